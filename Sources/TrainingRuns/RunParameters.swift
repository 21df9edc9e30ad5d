// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import SwitchTraining
internal import SwitchyardTypes
internal import TensorKernels

/// The weights of a run, and what makes new ones of a step's gradients: all of them, those outside experts, or a LoRA
/// adapter's.
final class RunParameters {
    /// The weights that the model computes with, an adapter's product included.
    let weights: ParameterBuffer
    /// The gradients of these weights.
    let gradients: Gradients
    /// The adapter that is trained in place of the weights, if one is.
    let adapter: LowRankAdapter?
    private let optimizer: any Optimizer
    private let pool: WorkPool

    /// Loads or draws the weights, and what belongs to them.
    ///
    /// - Parameters:
    ///   - plan: The run.
    ///   - layout: Where the model's tensors lie.
    ///   - configuration: The model.
    ///   - checkpoint: The weights to begin with; nil for new ones.
    ///   - save: The save that the run goes on from, if it does.
    ///   - pool: The threads.
    /// - Throws: `CheckpointError` for tensors that cannot be used, `TrainingError` for settings out of range.
    init(
        _ plan: RunPlan,
        _ layout: ParameterLayout,
        _ configuration: ModelConfiguration,
        _ checkpoint: Checkpoint?,
        resumingFrom save: SaveFolder.Save?,
        pool: WorkPool
    ) throws {
        self.pool = pool
        self.weights = try plan.model.weights(layout, configuration, checkpoint, seed: plan.seed, pool: pool)
        self.adapter = try plan.lowRank.map { [weights] settings in
            try LowRankAdapter(weights, settings: settings, seed: plan.seed)
        }
        if let save, let adapter { try adapter.restore(from: "\(save.path)/\(SavedCheckpoint.adapterName)") }
        self.adapter?.apply(to: self.weights, pool: pool)
        let wanted = self.adapter?.targets ?? (plan.freezesExperts ? layout.outsideExperts : nil)
        self.gradients = Gradients(layout: layout, wanted: wanted)
        let trained = self.adapter?.layout ?? (plan.freezesExperts ? layout.withoutExperts : layout)
        switch plan.optimizer {
        case .adamW(let settings): self.optimizer = try AdamW(layout: trained, settings: settings)
        case .adafactor(let settings): self.optimizer = try Adafactor(layout: trained, settings: settings)
        }
        if let save {
            let path = "\(save.path)/\(SaveFolder.resumeName)/\(ResumeState.optimizerName)"
            try self.optimizer.restore(try SafetensorsFile.read(path))
        }
    }

    /// Elements of all tensors that are trained.
    var trainedCount: Int { self.optimizer.layout.parameterCount }

    /// The optimizer's state.
    var optimizerState: [TensorView] {
        get throws { try self.optimizer.state() }
    }

    /// Makes new weights of the gradients.
    ///
    /// - Parameters:
    ///   - report: The step's report, whose norm becomes that of the gradients that are used.
    ///   - rate: The learning rate.
    ///   - limit: The gradients' greatest norm; nil for any.
    /// - Throws: `notFinite` for an adapter's gradient that is not a number; the weights are as they were.
    func update(_ report: inout StepReport, rate: Double, limit: Double?) throws {
        if let adapter {
            adapter.project(self.gradients, pool: self.pool)
            report.gradientNorm = try GradientNorm.norm(of: adapter.gradients, scale: 1, pool: self.pool)
        }
        self.optimizer.step(
            weights: self.adapter?.weights ?? self.weights,
            gradients: self.adapter?.gradients ?? self.gradients,
            learningRate: rate,
            gradientScale: GradientNorm.clipFactor(norm: report.gradientNorm, limit: limit),
            pool: self.pool
        )
        self.adapter?.apply(to: self.weights, pool: self.pool)
    }
}
