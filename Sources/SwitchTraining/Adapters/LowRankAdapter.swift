// SPDX-License-Identifier: Apache-2.0

public import Checkpoints
internal import SwitchyardTypes
public import TensorKernels

/// A model's LoRA adapter: for each matrix `W` that it changes, the product of two small ones that is added to it,
/// `W + s B A`.
///
/// From E. Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021), section 4.1, with the names, first values
/// and scales of peft 0.21.2 (https://github.com/huggingface/peft/blob/v0.21.2/src/peft/tuners/lora/layer.py). Deviations:
///
/// - The sum is formed once a step, and the model computes with it as with any weights; PEFT computes `W x` and
///   `s B (A x)` for every row. Gradients are made of the whole `dW`: `dA = s B^T dW` and `dB = s dW A^T`, one chain of
///   float32 multiply-adds for each element, over ascending rows or columns of `dW`. So they have the same bits for any
///   number of threads, any instruction set and any split into parts.
/// - There is no dropout of the adapter's own.
///
/// A buffer of weights that the adapter was applied to is the merged model. Experts that are elsewhere have the same adapter
/// in parts, one in each ``ExpertShard``.
public final class LowRankAdapter: @unchecked Sendable {
    // Safety: one caller at a time trains; its threads write disjoint rows.

    /// What the adapter changes.
    public let settings: LowRankSettings

    /// Where the trained matrices lie, A before B, in the order of what they change.
    public let layout: ParameterLayout

    /// The trained matrices: A `[rank, inputs]`, B `[outputs, rank]`.
    public let weights: ParameterBuffer

    /// The trained matrices' gradients.
    public let gradients: Gradients

    /// For each entry of the model's layout whether the adapter changes it.
    public let targets: [Bool]

    /// For each entry of the model's layout whether the adapter needs its gradient: not where it is changed elsewhere.
    public let wanted: [Bool]

    /// One matrix that is changed.
    private struct Module {
        var name: String
        /// Its entry in the model's layout.
        var index: Int
        var outputs: Int
        var inputs: Int
        /// Where it lies among the matrices without the adapter; nil where it is changed elsewhere.
        var base: Int?
    }

    private let modules: [Module]
    /// The matrices without the adapter.
    private let frozen: ParameterBuffer
    private let scale: Float

    /// Makes an adapter that changes nothing yet.
    ///
    /// As in PEFT, A is uniform within `1 / sqrt(inputs)` (Kaiming's bound with `a = sqrt(5)`), and B is zeros. A's elements
    /// are functions of the seed, the tensor's name and their places.
    ///
    /// - Parameters:
    ///   - weights: The base model, of which the matrices to change are copied.
    ///   - settings: What to change.
    ///   - seed: The seed of the first values.
    ///   - expertsElsewhere: Whether experts' matrices are changed elsewhere. The adapter then has their A and B, but neither
    ///     applies nor trains them.
    /// - Throws: `invalidSettings` for a setting out of range or a target that names no matrix; `limitExceeded`.
    public convenience init(
        _ weights: ParameterBuffer,
        settings: LowRankSettings,
        seed: UInt64,
        expertsElsewhere: Bool = false
    ) throws(TrainingError) {
        try settings.validate()
        try self.init(
            settings,
            targets: try settings.chosen(in: weights.layout),
            of: weights.layout,
            seed: seed,
            expertsElsewhere: expertsElsewhere
        )
        self.takeBase(weights)
    }

    /// Makes the part of an adapter that changes some of a model's experts, which are zeros until ``takeBase(_:)``.
    ///
    /// - Parameters:
    ///   - settings: What to change in the whole model.
    ///   - configuration: The model.
    ///   - layout: The tensors of the experts.
    ///   - seed: The seed of the first values.
    /// - Throws: As the adapter of the whole model.
    convenience init(
        _ settings: LowRankSettings,
        of configuration: ModelConfiguration,
        experts layout: ParameterLayout,
        seed: UInt64
    ) throws(TrainingError) {
        let targets = try settings.targets(in: layout, of: configuration)
        try self.init(settings, targets: targets, of: layout, seed: seed, expertsElsewhere: false)
    }

    private init(
        _ settings: LowRankSettings,
        targets: [Bool],
        of model: ParameterLayout,
        seed: UInt64,
        expertsElsewhere: Bool
    ) throws(TrainingError) {
        self.settings = settings
        self.targets = targets
        self.wanted = zip(targets, model.entries).map { $0 && !(expertsElsewhere && $1.kind.isExpert) }
        var modules: [Module] = []
        var bases: [ParameterLayout.Tensor] = []
        for (index, entry) in model.entries.enumerated() where targets[index] {
            guard let name = LowRankSettings.module(entry) else { continue }
            var module = Module(name: name, index: index, outputs: entry.shape[0], inputs: entry.shape[1])
            if self.wanted[index] {
                module.base = bases.count
                bases.append(ParameterLayout.Tensor(entry))
            }
            modules.append(module)
        }
        self.modules = modules
        self.layout = try Self.layout(modules, of: model, rank: settings.rank)
        self.weights = ParameterBuffer(layout: self.layout)
        self.gradients = Gradients(layout: self.layout)
        self.scale = Float(Self.files(settings, modules, base: "").scale)
        self.frozen = ParameterBuffer(layout: ParameterLayout(bases))
        let draws = WeightDraws(seed: seed)
        for (place, module) in modules.enumerated() {
            draws.fill(
                self.weights[2 * place],
                name: self.layout.entries[2 * place].name,
                uniformWithin: 1 / Double(module.inputs).squareRoot()
            )
        }
    }

    /// Copies the matrices to change from the base model.
    ///
    /// - Parameter weights: The base model.
    func takeBase(_ weights: ParameterBuffer) {
        for module in self.modules {
            guard let base = module.base else { continue }
            self.frozen.start(base).update(from: weights.start(module.index), count: module.outputs * module.inputs)
        }
    }

    /// The matrices without the adapter, by their entries in the model's layout.
    var base: [Int: UnsafeMutableBufferPointer<Float>] {
        var matrices: [Int: UnsafeMutableBufferPointer<Float>] = [:]
        for module in self.modules {
            if let base = module.base { matrices[module.index] = self.frozen[base] }
        }
        return matrices
    }

    /// What the part of an adapter takes that changes some of a model's experts.
    ///
    /// - Parameters:
    ///   - settings: What to change in the whole model.
    ///   - configuration: The model.
    ///   - layout: The tensors of the experts.
    /// - Returns: Elements of A and B together, and of the matrices that they change.
    /// - Throws: As the adapter itself.
    static func elementCounts(
        _ settings: LowRankSettings,
        of configuration: ModelConfiguration,
        experts layout: ParameterLayout
    ) throws(TrainingError) -> (trained: Int, changed: Int) {
        let targets = try settings.targets(in: layout, of: configuration)
        let changed = zip(layout.entries, targets).filter(\.1).map(\.0)
        let modules = changed.map { Module(name: $0.name, index: 0, outputs: $0.shape[0], inputs: $0.shape[1]) }
        let elements = try Self.elementCount(modules, rank: settings.rank)
        return (elements, changed.reduce(0) { $0 + $1.range.count })
    }

    private static func elementCount(_ modules: [Module], rank: Int) throws(TrainingError) -> Int {
        var elements = 0
        for module in modules {
            // Both factors are far below 2^31, and the sum is checked before it grows further.
            elements += rank * (module.inputs + module.outputs)
            guard elements <= ParameterLayout.mostElements else {
                throw TrainingError(
                    code: .limitExceeded,
                    message:
                        "an adapter of rank \(rank) for \(modules.count) matrices has over \(ParameterLayout.mostElements)"
                        + " parameters; choose a smaller rank or fewer targets"
                )
            }
        }
        return elements
    }

    private static func layout(
        _ modules: [Module],
        of model: ParameterLayout,
        rank: Int
    ) throws(TrainingError) -> ParameterLayout {
        _ = try Self.elementCount(modules, rank: rank)
        var tensors: [ParameterLayout.Tensor] = []
        for module in modules {
            let entry = model.entries[module.index]
            for (name, shape) in [
                (AdapterFiles.firstName(of: module.name), [rank, module.inputs]),
                (AdapterFiles.secondName(of: module.name), [module.outputs, rank]),
            ] {
                tensors.append(ParameterLayout.Tensor(name: name, shape: shape, kind: entry.kind, role: entry.role))
            }
        }
        return ParameterLayout(tensors)
    }

    private static func files(_ settings: LowRankSettings, _ modules: [Module], base: String) -> AdapterFiles {
        AdapterFiles(
            rank: settings.rank,
            alpha: settings.alpha,
            isRankStabilized: settings.isRankStabilized,
            targets: settings.configuredTargets(modules.map(\.name)),
            base: base
        )
    }

    /// Adds the adapter to the base model: sets every matrix that it changes here to `W + s B A`.
    ///
    /// The sums are those of a merged checkpoint (`Checkpoint.open(_:overrides:adapter:progress:)`) in float32, bit for bit.
    ///
    /// - Parameters:
    ///   - weights: The model's weights, whose other tensors are left as they are.
    ///   - pool: The threads.
    public func apply(to weights: ParameterBuffer, pool: WorkPool) {
        for (place, module) in self.modules.enumerated() {
            guard let base = module.base else { continue }
            self.apply(place, to: weights, base: self.frozen.start(base), pool: pool)
        }
    }

    /// Adds the adapter to the matrices that it changes elsewhere, once their A and B have come home.
    ///
    /// - Parameters:
    ///   - weights: The model's weights, whose other tensors are left as they are.
    ///   - checkpoint: The base model, of which the matrices are read again.
    ///   - pool: The threads.
    /// - Throws: `CheckpointError` for a tensor that cannot be read.
    public func applyElsewhere(
        to weights: ParameterBuffer,
        of checkpoint: Checkpoint,
        pool: WorkPool
    ) throws(CheckpointError) {
        for (place, module) in self.modules.enumerated() where module.base == nil {
            try weights.read(weights.layout.entries[module.index].role, of: checkpoint, into: module.index)
            self.apply(place, to: weights, base: weights.start(module.index), pool: pool)
        }
    }

    private func apply(_ place: Int, to weights: ParameterBuffer, base: UnsafePointer<Float>, pool: WorkPool) {
        let module = self.modules[place]
        let sum = LowRankSum(
            base: base,
            first: self.weights.start(2 * place),
            second: self.weights.start(2 * place + 1),
            output: weights.start(module.index),
            inputs: module.inputs,
            rank: self.settings.rank,
            scale: self.scale
        )
        WorkPool.share(module.outputs, width: module.inputs * self.settings.rank, among: pool) {
            sum.compute(rows: $0)
        }
    }

    /// Makes the adapter's gradients of the model's.
    ///
    /// A matrix that got none, such as an expert's without a token, leaves its A and B untouched.
    ///
    /// - Parameters:
    ///   - gradients: The gradients of a step with the adapter applied.
    ///   - pool: The threads.
    ///   - level: The instruction set; the bits are the same for all.
    public func project(_ gradients: Gradients, pool: WorkPool, level: KernelLevel = .best) {
        self.gradients.clear()
        let rank = self.settings.rank
        var products: [MatrixProduct] = []
        for (place, module) in self.modules.enumerated() where gradients.touched[module.index] {
            let whole = MatrixOperand(gradients.values.start(module.index), stride: module.inputs)
            products.append(
                MatrixProduct(
                    MatrixOperand(self.weights.start(2 * place + 1), stride: rank, isTransposed: true),
                    whole,
                    rows: rank,
                    depth: module.outputs,
                    columns: module.inputs,
                    into: self.gradients.values.start(2 * place)
                )
            )
            products.append(
                MatrixProduct(
                    whole,
                    MatrixOperand(self.weights.start(2 * place), stride: module.inputs, isTransposed: true),
                    rows: module.outputs,
                    depth: module.inputs,
                    columns: rank,
                    into: self.gradients.values.start(2 * place + 1)
                )
            )
            self.gradients.touched[2 * place] = true
            self.gradients.touched[2 * place + 1] = true
        }
        pool.multiply(products, level: level)
        for index in self.gradients.touched.indices where self.gradients.touched[index] {
            let values = self.gradients.values.start(index)
            Residual.scale(values, by: self.scale, count: self.layout.entries[index].range.count, into: values)
        }
    }

    /// Writes the adapter in PEFT's layout, which `--merge-adapter` reads too, and flushes it to disk.
    ///
    /// - Parameters:
    ///   - directory: A folder that exists and has no adapter.
    ///   - base: The model that the adapter changes: a folder, or a name on the hub.
    /// - Throws: `writeFailed`.
    public func write(to directory: String, base: String) throws(CheckpointError) {
        let files = Self.files(self.settings, self.modules, base: base)
        try files.write(try self.weights.tensors(), to: directory)
    }

    /// Takes the trained matrices over from an adapter of the same matrices, rank and scale.
    ///
    /// - Parameter directory: The adapter's folder, as ``write(to:base:)`` or PEFT wrote it.
    /// - Throws: `CheckpointError` that names the file and the key or tensor; nothing is changed then.
    public func restore(from directory: String) throws(CheckpointError) {
        let (files, tensors) = try AdapterFiles.read(directory)
        let expected = Self.files(self.settings, self.modules, base: "")
        guard files.rank == expected.rank, files.scale == expected.scale else {
            throw CheckpointError(
                code: .invalidArgument,
                message:
                    "is an adapter of rank \(files.rank) and scale \(files.scale), but the settings say rank \(expected.rank) and "
                    + "scale \(expected.scale); set rank, alpha and rank stabilisation to the adapter's",
                file: directory
            )
        }
        let known = Set(self.layout.entries.map(\.name))
        if let other = tensors.keys.sorted().first(where: { !known.contains($0) }) {
            throw CheckpointError(
                code: .unknownTensor,
                message: "changes a matrix that the targets do not name; set the targets to the adapter's",
                file: directory,
                tensor: other
            )
        }
        var views: [TensorView] = []
        for entry in self.layout.entries {
            guard let view = tensors[entry.name] else {
                throw CheckpointError(
                    code: .missingTensor,
                    message:
                        "is not in the adapter; set the targets to the adapter's, or bring the adapter of this model",
                    file: directory,
                    tensor: entry.name
                )
            }
            guard view.shape == entry.shape, view.dtype.isWeight else {
                throw CheckpointError(
                    code: .wrongShape,
                    message:
                        "is \(view.dtype.safetensorsName) of shape \(view.shape), not F32, BF16 or F16 of shape \(entry.shape); "
                        + "bring the adapter of this model",
                    file: directory,
                    tensor: entry.name
                )
            }
            views.append(view)
        }
        for (index, view) in views.enumerated() {
            view.withUnsafeBytes { bytes in
                guard let base = bytes.baseAddress else { return }
                view.dtype.read(base, count: view.elementCount, into: self.weights.start(index))
            }
        }
    }
}

extension ParameterLayout.Tensor {
    init(_ entry: ParameterLayout.Entry) {
        self.init(name: entry.name, shape: entry.shape, kind: entry.kind, role: entry.role)
    }
}
