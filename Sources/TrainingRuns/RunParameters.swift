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
    /// The checkpoint below the adapter.
    private let base: Checkpoint?
    /// Experts that are trained elsewhere, if they are.
    private let experts: (any LearningExperts)?
    private let pool: WorkPool

    /// Loads or draws the weights, and what belongs to them.
    ///
    /// - Parameters:
    ///   - plan: The run.
    ///   - layout: Where the model's tensors lie.
    ///   - configuration: The model.
    ///   - checkpoint: The weights to begin with; nil for new ones.
    ///   - save: The save that the run goes on from, if it does.
    ///   - experts: Where experts are computed.
    ///   - pool: The threads.
    /// - Throws: `CheckpointError` for tensors that cannot be used, `TrainingError` for settings out of range.
    init(
        _ plan: RunPlan,
        _ layout: ParameterLayout,
        _ configuration: ModelConfiguration,
        _ checkpoint: Checkpoint?,
        resumingFrom save: SaveFolder.Save?,
        experts: ExpertPlace,
        pool: WorkPool
    ) throws {
        self.pool = pool
        if case .learning(let experts) = experts { self.experts = experts } else { self.experts = nil }
        let areElsewhere = self.experts != nil
        let keepsExpertsOut = plan.freezesExperts || areElsewhere
        self.base = plan.lowRank == nil ? nil : checkpoint
        self.weights = try plan.model.weights(layout, configuration, checkpoint, seed: plan.seed, pool: pool)
        self.adapter = try plan.lowRank.map { [weights] settings in
            try LowRankAdapter(weights, settings: settings, seed: plan.seed, expertsElsewhere: areElsewhere)
        }
        if let save, let adapter { try adapter.restore(from: "\(save.path)/\(SavedCheckpoint.adapterName)") }
        self.adapter?.apply(to: self.weights, pool: pool)
        let wanted = self.adapter?.wanted ?? (keepsExpertsOut ? layout.outsideExperts : nil)
        self.gradients = Gradients(layout: layout, wanted: wanted)
        let whole = self.adapter?.layout ?? layout
        let trained = keepsExpertsOut ? whole.withoutExperts : whole
        self.optimizer = try plan.optimizer.optimizer(of: trained)
        let saved = try save.map { save in
            try SafetensorsFile.read("\(save.path)/\(SaveFolder.resumeName)/\(ResumeState.optimizerName)")
        }
        guard let experts = self.experts else {
            if let saved { try self.optimizer.restore(saved) }
            return
        }
        var parts = SavedOptimizer()
        if let saved {
            parts = try SavedOptimizer(saved, of: whole)
            try self.optimizer.restore(try parts.tensors(of: trained))
        }
        let initial = self.adapter?.weights ?? self.weights
        try experts.load(initial, state: parts.state, steps: parts.steps, step: save?.step ?? 0)
    }

    /// What is trained, wherever it is.
    private var trained: ParameterBuffer { self.adapter?.weights ?? self.weights }

    /// Elements of all tensors that are trained.
    var trainedCount: Int {
        self.experts == nil ? self.optimizer.layout.parameterCount : self.trained.layout.parameterCount
    }

    /// Brings weights that are trained elsewhere home, and an adapter's product with them.
    ///
    /// - Returns: The optimizer's state, of all that is trained: the same tensors wherever it is trained.
    func bringHome() throws -> [TensorView] {
        guard let experts = self.experts else { return try self.optimizer.state() }
        let shards = try experts.state(into: self.trained)
        if let adapter, let base { try adapter.applyElsewhere(to: self.weights, of: base, pool: self.pool) }
        return try SavedOptimizer.joined(
            try self.optimizer.state(),
            of: self.optimizer.layout,
            with: shards,
            of: self.trained.layout
        )
    }

    /// Makes new weights of the gradients.
    ///
    /// - Parameters:
    ///   - report: The step's report, whose norm becomes that of the gradients that are used.
    ///   - squares: The sums of squares of gradients that are elsewhere, by the tensor's name.
    ///   - rate: The learning rate.
    ///   - limit: The gradients' greatest norm; nil for any.
    /// - Throws: `notFinite` for an adapter's gradient that is not a number; the weights are as they were. What keeps experts
    ///   elsewhere from their step.
    func update(_ report: inout StepReport, squares: [String: Double], rate: Double, limit: Double?) throws {
        if let adapter {
            adapter.project(self.gradients, pool: self.pool)
            var all = GradientNorm.squares(of: adapter.gradients, pool: self.pool)
            for (index, entry) in adapter.layout.entries.enumerated() {
                if let square = squares[entry.name] { all[index] = square }
            }
            report.gradientNorm = try GradientNorm.norm(squares: all, layout: adapter.layout, scale: 1)
        }
        let scale = GradientNorm.clipFactor(norm: report.gradientNorm, limit: limit)
        // The hosts' work begins, and goes on beside this one's.
        try self.experts?.apply(rate: rate, scale: scale)
        self.optimizer.step(
            weights: self.trained,
            gradients: self.adapter?.gradients ?? self.gradients,
            learningRate: rate,
            gradientScale: scale,
            pool: self.pool
        )
        self.adapter?.apply(to: self.weights, pool: self.pool)
    }
}
