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
/// A buffer of weights that the adapter was applied to is the merged model.
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

    /// One matrix that is changed.
    private struct Module {
        var name: String
        /// Its entry in the model's layout.
        var index: Int
        var outputs: Int
        var inputs: Int
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
    /// - Throws: `invalidSettings` for a setting out of range or a target that names no matrix; `limitExceeded`.
    public init(_ weights: ParameterBuffer, settings: LowRankSettings, seed: UInt64) throws(TrainingError) {
        try settings.validate()
        self.settings = settings
        self.targets = try settings.chosen(in: weights.layout)
        var modules: [Module] = []
        for (index, entry) in weights.layout.entries.enumerated() where self.targets[index] {
            guard let name = LowRankSettings.module(entry) else { continue }
            modules.append(Module(name: name, index: index, outputs: entry.shape[0], inputs: entry.shape[1]))
        }
        self.modules = modules
        self.layout = try Self.layout(modules, of: weights.layout, rank: settings.rank)
        self.weights = ParameterBuffer(layout: self.layout)
        self.gradients = Gradients(layout: self.layout)
        self.scale = Float(Self.files(settings, modules, base: "").scale)
        self.frozen = ParameterBuffer(
            layout: ParameterLayout(
                modules.map { ParameterLayout.Tensor(weights.layout.entries[$0.index]) }
            )
        )
        let draws = WeightDraws(seed: seed)
        for (place, module) in modules.enumerated() {
            self.frozen.start(place).update(from: weights.start(module.index), count: module.outputs * module.inputs)
            draws.fill(
                self.weights[2 * place],
                name: self.layout.entries[2 * place].name,
                uniformWithin: 1 / Double(module.inputs).squareRoot()
            )
        }
    }

    private static func layout(
        _ modules: [Module],
        of model: ParameterLayout,
        rank: Int
    ) throws(TrainingError) -> ParameterLayout {
        var elements = 0
        var tensors: [ParameterLayout.Tensor] = []
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

    /// Adds the adapter to the base model: sets every matrix that it changes to `W + s B A`.
    ///
    /// The sums are those of a merged checkpoint (`Checkpoint.open(_:overrides:adapter:progress:)`) in float32, bit for bit.
    ///
    /// - Parameters:
    ///   - weights: The model's weights, whose other tensors are left as they are.
    ///   - pool: The threads.
    public func apply(to weights: ParameterBuffer, pool: WorkPool) {
        for (place, module) in self.modules.enumerated() {
            let sum = LowRankSum(
                base: self.frozen.start(place),
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
