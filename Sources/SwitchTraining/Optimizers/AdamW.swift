// SPDX-License-Identifier: Apache-2.0

internal import CKernels
public import Checkpoints
internal import SwitchyardTypes
public import TensorKernels

/// Adam with decoupled weight decay.
///
/// From I. Loshchilov and F. Hutter, "Decoupled Weight Decay Regularization" (ICLR 2019), as `torch.optim.AdamW` of PyTorch
/// 2.13 computes it (https://github.com/pytorch/pytorch/blob/v2.13.0/torch/optim/adam.py, `_single_tensor_adam`), without
/// AMSGrad. Every number is float32, bias corrections float64 rounded once. Deviations: none in real numbers; sums and products
/// are not fused, so that a step has the same bits on every processor.
///
/// ``Settings/scaleParameter`` makes it an Adam with steps in proportion to each tensor's size, which is how Adafactor treats
/// T5's weights: they are drawn with deviations from 0.02 to 1, and no one rate suits them all. torch has nothing like it;
/// `deploy/models/switch-mini/train_mini.py` writes it as `ScaledAdam`, with decay rates of 0.9 and 0.99.
public final class AdamW: Optimizer, @unchecked Sendable {
    // Safety: one caller at a time makes a step; its threads write disjoint elements.

    /// Adam's settings.
    public struct Settings: Sendable, Hashable, Codable {
        /// How much of the mean gradient stays; at least 0 and below 1.
        public var beta1 = 0.9
        /// How much of the mean square stays; at least 0 and below 1.
        public var beta2 = 0.999
        /// Added to the root of the mean square; above 0.
        public var epsilon = 1e-8
        /// Whether steps are in proportion to the root mean square of a tensor's weights, as Adafactor's are.
        ///
        /// The rate of a tensor's step, and with it its decay, is the step's rate times that size before the step.
        public var scaleParameter = false
        /// The least root mean square that scales a step, so that tensors of zeros learn; not used without ``scaleParameter``.
        public var scaleEpsilon = 1e-3
        /// The decay of weights, times the learning rate.
        public var decay = WeightDecay()

        /// PyTorch's defaults, but without decay.
        public init() {}
    }

    /// Where the form of a step differs.
    public enum Form: Sendable, Hashable {
        /// As `torch.optim.AdamW`: epsilon is added to the root of the corrected mean square, and tensors without a gradient stay
        /// as they are.
        case torch

        /// As `labml_nn.optimizers.adam.Adam` of labml_nn 0.5.1 with `optimized_update`, its default
        /// (https://nn.labml.ai/optimizers/adam.html): epsilon is added to the root of the mean square before its correction,
        /// and every tensor makes every step: an expert without a token has a gradient of zeros in labml, not none.
        case labml
    }

    /// The tensors that are trained.
    public let layout: ParameterLayout

    /// The settings.
    public let settings: Settings

    /// Whose Adam it is.
    public let form: Form

    private let mean: ParameterBuffer
    private let square: ParameterBuffer
    private let decays: [Double]
    private var steps: [Int]
    /// The instruction set, which does not show in the bits.
    var level = KernelLevel.best

    /// Makes an optimizer that has seen nothing.
    ///
    /// - Parameters:
    ///   - layout: The tensors to train.
    ///   - settings: The settings.
    ///   - form: Whose Adam it is.
    /// - Throws: `invalidSettings` for a setting out of range.
    public init(
        layout: ParameterLayout,
        settings: Settings = Settings(),
        form: Form = .torch
    ) throws(TrainingError) {
        for (name, beta) in [("beta1", settings.beta1), ("beta2", settings.beta2)] where !(beta >= 0 && beta < 1) {
            throw TrainingError(
                code: .invalidSettings,
                message: "\(name) is \(beta); it must be at least 0 and below 1"
            )
        }
        // The gaps between tensors are computed too, and stay zeros because of it.
        guard settings.epsilon >= 1e-30, settings.epsilon.isFinite else {
            throw TrainingError(
                code: .invalidSettings,
                message: "epsilon is \(settings.epsilon); it must be at least 1e-30"
            )
        }
        guard settings.scaleEpsilon >= 0, settings.scaleEpsilon.isFinite else {
            throw TrainingError(
                code: .invalidSettings,
                message: "scaleEpsilon is \(settings.scaleEpsilon); it must be 0 or more"
            )
        }
        self.decays = try settings.decay.values(for: layout)
        self.layout = layout
        self.settings = settings
        self.form = form
        self.mean = ParameterBuffer(layout: layout)
        self.square = ParameterBuffer(layout: layout)
        self.steps = Array(repeating: 0, count: layout.entries.count)
    }

    private func factors(_ entry: Int, learningRate: Double, gradientScale: Double) -> ck_adamw_factors {
        let settings = self.settings
        let step = self.steps[entry]
        let root = (1 - PortableMath.power(settings.beta2, step)).squareRoot()
        return ck_adamw_factors(
            keep: Float(1 - learningRate * self.decays[entry]),
            mean_share: Float(1 - settings.beta1),
            square_keep: Float(settings.beta2),
            square_share: Float(1 - settings.beta2),
            root_of_correction: Float(root),
            epsilon: Float(self.form == .torch ? settings.epsilon : settings.epsilon / root),
            step_size: Float(learningRate / (1 - PortableMath.power(settings.beta1, step))),
            gradient_scale: Float(gradientScale)
        )
    }

    /// Makes a step.
    ///
    /// - Parameters:
    ///   - weights: Changed in place.
    ///   - gradients: The step's gradients, finite.
    ///   - learningRate: The step's rate.
    ///   - gradientScale: What each gradient is multiplied with before it is used.
    ///   - pool: The threads.
    public func step(
        weights: ParameterBuffer,
        gradients: Gradients,
        learningRate: Double,
        gradientScale: Double,
        pool: WorkPool
    ) {
        // The gradients of tensors that nothing touched are zeros.
        let takesPart = self.form == .torch ? gradients.touched : self.steps.map { _ in true }
        for entry in self.steps.indices where takesPart[entry] { self.steps[entry] += 1 }
        let pieces = BufferChunks(self.layout, wanted: takesPart)
        let scales = self.scales(weights, pieces, pool)
        let factors = self.steps.indices.map {
            self.factors($0, learningRate: learningRate * scales[$0], gradientScale: gradientScale)
        }
        let chunks = pieces.chunks
        guard let weights = weights.all.baseAddress, let gradients = gradients.values.all.baseAddress,
            let mean = self.mean.all.baseAddress, let square = self.square.all.baseAddress
        else { return }
        let level = self.level.rawValue
        pool.run(chunks.count) { range in
            for chunk in chunks[range] {
                var factors = factors[chunk.entry]
                ck_adamw(
                    level,
                    &factors,
                    weights + chunk.start,
                    gradients + chunk.start,
                    mean + chunk.start,
                    square + chunk.start,
                    chunk.count
                )
            }
        }
    }

    /// What each tensor's rate is multiplied with.
    private func scales(_ weights: ParameterBuffer, _ pieces: BufferChunks, _ pool: WorkPool) -> [Double] {
        guard self.settings.scaleParameter else { return Array(repeating: 1, count: self.steps.count) }
        return zip(self.layout.entries, pieces.squares(of: weights, pool: pool))
            .map { entry, squares in
                max(self.settings.scaleEpsilon, (squares / Double(max(1, entry.range.count))).squareRoot())
            }
    }

    /// The moments and the counts of steps, under PyTorch's names: `optimizer.exp_avg.NAME`, `optimizer.exp_avg_sq.NAME`.
    ///
    /// - Returns: The tensors, which read this optimizer's memory.
    /// - Throws: `CheckpointError` where a tensor cannot be described.
    public func state() throws(CheckpointError) -> [TensorView] {
        var tensors = [try OptimizerState.steps(self.steps)]
        for (index, entry) in self.layout.entries.enumerated() {
            for (kind, buffer) in [("exp_avg", self.mean), ("exp_avg_sq", self.square)] {
                tensors.append(
                    try TensorView(
                        name: OptimizerState.name(kind, entry),
                        dtype: .float32,
                        shape: entry.shape,
                        lending: UnsafeRawBufferPointer(buffer[index]),
                        of: buffer
                    )
                )
            }
        }
        return tensors
    }

    /// Takes over what ``state()`` gave, bit for bit.
    ///
    /// - Parameter tensors: The tensors, in any order.
    /// - Throws: `CheckpointError` for a tensor that is missing, unknown, or of another shape or type; nothing is changed
    ///   then.
    public func restore(_ tensors: [TensorView]) throws(CheckpointError) {
        let kinds = [("exp_avg", self.mean), ("exp_avg_sq", self.square)]
        let names = self.layout.entries.flatMap { entry in kinds.map { OptimizerState.name($0.0, entry) } }
        let found = try OptimizerState.indexed(tensors, expecting: names + [OptimizerState.stepsName])
        let steps = try OptimizerState.steps(from: found[OptimizerState.stepsName], count: self.steps.count)
        for entry in self.layout.entries {
            for (kind, _) in kinds {
                let name = OptimizerState.name(kind, entry)
                _ = try OptimizerState.checked(found[name], name: name, shape: entry.shape)
            }
        }
        // All are sound, so that nothing is changed by half.
        for (index, entry) in self.layout.entries.enumerated() {
            for (kind, buffer) in kinds {
                let name = OptimizerState.name(kind, entry)
                try OptimizerState.copy(found[name], name: name, shape: entry.shape, to: buffer[index])
            }
        }
        self.steps = steps
    }
}
