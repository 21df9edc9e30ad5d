// SPDX-License-Identifier: Apache-2.0

public import Checkpoints
public import SwitchModel
public import SwitchyardTypes
public import TensorKernels

/// Some of a model's experts as a trainer's experts elsewhere: weights, gradients and optimizer state; or weights that stay as
/// they are, and the part of a LoRA adapter that changes them with its optimizer state.
///
/// What it holds is a function of the state that it was given and of the calls since, in their order: the same bits for any
/// number of threads and on every instruction set, and the same as those of a ``TrainingStep`` that holds all experts itself.
///
/// One caller at a time.
public final class ExpertShard {
    /// Rows of a layer, by expert.
    public struct Batch {
        /// The sparse layer.
        public var layer: SparseLayer
        /// The experts, ascending, and their numbers of rows, in the order of the rows.
        public var groups: [ExpertRows]
        /// The rows, `[rows, d_model]`.
        public var tokens: FloatMatrix
        /// Where each row's dropout comes from; nil when evaluating.
        public var places: [RowPlace]?

        /// Names rows.
        ///
        /// - Parameters:
        ///   - layer: The sparse layer.
        ///   - groups: The experts, ascending, and their numbers of rows, in the order of the rows.
        ///   - tokens: The rows, `[rows, d_model]`.
        ///   - places: Where each row's dropout comes from; nil when evaluating.
        public init(_ layer: SparseLayer, groups: [ExpertRows], tokens: FloatMatrix, places: [RowPlace]?) {
            self.layer = layer
            self.groups = groups
            self.tokens = tokens
            self.places = places
        }
    }

    /// The model.
    public let configuration: ModelConfiguration
    /// What the shard holds, and how it learns.
    public let plan: ShardPlan
    /// Where the tensors lie that are trained: the experts', or the adapter's.
    public let layout: ParameterLayout

    /// The weights that are computed with: the sums with the adapter's products, where there is one.
    let weights: ParameterBuffer
    /// What changes the weights in place of new ones.
    let adapter: LowRankAdapter?
    let optimizer: any Optimizer
    /// Whether the weights below the adapter are here.
    var hasBase = false
    /// The checksum of the weights that are computed with, as the last step left them.
    var weightSum: UInt64?
    /// The checksum of the weights below the adapter.
    var baseSum: UInt64?
    let pool: WorkPool
    private let gradients: Gradients
    /// Whether the adapter's gradients are those of ``gradients``.
    private var isProjected = false
    /// Where gradients go that are not wanted: takes no memory, since nothing is written to it.
    private let unwanted: Gradients
    /// The weights that a step computes with, where they are not those that are trained.
    let rounded: ParameterBuffer?
    private let networks: [SparseLayer: [Int: FeedForwardParameters]]
    private let settings: TrainingSettings
    private let level: KernelLevel
    private let arena = Arena()
    private let routing: StepRouting
    private let sums: StepSums

    /// What is trained: the weights, or the adapter's.
    var trained: ParameterBuffer { self.adapter?.weights ?? self.weights }

    /// Makes a shard whose weights are zeros; what an adapter changes comes by ``putBase(_:at:)``.
    ///
    /// - Parameters:
    ///   - configuration: The model.
    ///   - plan: What the shard holds, and how it learns.
    ///   - pool: Threads that share the work.
    ///   - level: The instruction set.
    /// - Throws: `invalidSettings` or `limitExceeded`.
    public init(
        _ configuration: ModelConfiguration,
        plan: ShardPlan,
        pool: WorkPool,
        level: KernelLevel = .best
    ) throws(TrainingError) {
        try plan.validate(configuration)
        let held = try ParameterLayout(configuration, experts: plan.held)
        let adapter = try plan.adapter.map { adapter throws(TrainingError) in
            try LowRankAdapter(adapter.settings, of: configuration, experts: held, seed: plan.seed)
        }
        let layout = adapter?.layout ?? held
        var settings = TrainingSettings()
        settings.expertDropout = plan.dropout
        settings.precision = plan.precision
        settings.seed = plan.seed
        self.configuration = configuration
        self.plan = plan
        self.layout = layout
        self.adapter = adapter
        self.weights = ParameterBuffer(layout: held)
        self.gradients = Gradients(layout: held, wanted: adapter?.wanted)
        self.unwanted = Gradients(layout: held, wanted: held.entries.map { _ in false })
        self.rounded = plan.precision == .bfloat16 ? ParameterBuffer(layout: held) : nil
        self.optimizer = try plan.optimizer.within(layout).optimizer(of: layout)
        self.settings = settings
        self.pool = pool
        self.level = level
        self.networks = Self.networks(configuration, plan, held)
        self.sums = StepSums(configuration)
        self.routing = StepRouting(configuration, settings: settings, policy: .unlimited, batch: TrainingBatch([]))
    }

    /// Bytes of a shard's weights and gradients, an adapter's included, before it is made.
    ///
    /// - Parameters:
    ///   - configuration: The model.
    ///   - plan: What the shard holds.
    /// - Returns: Bytes.
    /// - Throws: `invalidSettings` or `limitExceeded`, as `init`.
    public static func byteCount(
        _ configuration: ModelConfiguration,
        plan: ShardPlan
    ) throws(TrainingError) -> Int {
        try plan.validate(configuration)
        let held = try ParameterLayout(configuration, experts: plan.held)
        var elements = held.count * 2
        if let adapter = plan.adapter {
            let counts = try LowRankAdapter.elementCounts(adapter.settings, of: configuration, experts: held)
            // The weights below the adapter, and gradients of those alone.
            elements = held.count + 2 * counts.changed + 2 * counts.trained
        }
        return elements * MemoryLayout<Float>.stride
    }

    private static func networks(
        _ configuration: ModelConfiguration,
        _ plan: ShardPlan,
        _ layout: ParameterLayout
    ) -> [SparseLayer: [Int: FeedForwardParameters]] {
        var networks: [SparseLayer: [Int: FeedForwardParameters]] = [:]
        for held in plan.held {
            for expert in held.experts {
                func weight(_ matrix: FeedForwardMatrix) -> Weight? {
                    Weight(.expert(held.layer, expert: expert, matrix), of: configuration, in: layout)
                }
                let isGated = configuration.gatedFeedForward
                guard let inner = weight(isGated ? .wi0 : .wi), let wo = weight(.wo) else { continue }
                networks[held.layer, default: [:]][expert] = FeedForwardParameters(
                    inner: inner,
                    factor: isGated ? weight(.wi1) : nil,
                    wo: wo
                )
            }
        }
        return networks
    }

    /// Whether the shard holds the experts of a batch, and the batch is well formed.
    ///
    /// - Parameter batch: The rows.
    /// - Throws: `invalidBatch` that says what is wrong.
    public func check(_ batch: Batch) throws(TrainingError) {
        func check(_ holds: Bool, _ message: @autoclosure () -> String) throws(TrainingError) {
            guard holds else { throw TrainingError(code: .invalidBatch, message: message()) }
        }
        guard let networks = self.networks[batch.layer] else {
            throw TrainingError(code: .invalidBatch, message: "no expert of \(batch.layer) is held here")
        }
        try check(
            batch.tokens.columns == self.configuration.modelWidth,
            "the rows have \(batch.tokens.columns) columns, but must have \(self.configuration.modelWidth)"
        )
        var (rows, last) = (0, -1)
        for group in batch.groups {
            try check(group.expert > last && group.rows > 0, "experts must be ascending, with at least 1 row each")
            try check(networks[group.expert] != nil, "expert \(group.expert) of \(batch.layer) is not held here")
            rows += group.rows
            last = group.expert
        }
        try check(rows == batch.tokens.rows, "the groups name \(rows) rows, but \(batch.tokens.rows) came")
        try check(batch.places?.count ?? rows == rows, "\(batch.places?.count ?? 0) places for \(rows) rows")
    }

    /// Computes experts' outputs.
    ///
    /// - Parameters:
    ///   - batch: The rows, which ``check(_:)`` has passed.
    ///   - step: The step, for dropout.
    /// - Returns: The outputs, `[rows, d_model]`.
    public func forward(_ batch: Batch, step: Int) -> FloatMatrix {
        let outputs = FloatMatrix(uninitializedRows: batch.tokens.rows, columns: batch.tokens.columns)
        defer { self.arena.end() }
        _ = self.feedForwards(batch, step).forward(batch.tokens.all, into: outputs.all)
        return outputs
    }

    /// Computes the gradients of experts' input rows, and adds to those of their weights.
    ///
    /// The experts' hidden rows are computed again.
    ///
    /// - Parameters:
    ///   - batch: The rows that ``forward(_:step:)`` got, which ``check(_:)`` has passed.
    ///   - outputGradients: The gradient of the loss by each row's output, `[rows, d_model]`.
    ///   - step: The step.
    ///   - accumulates: Whether to add to the weights' gradients; once for each batch of a step, in one order.
    ///   - answers: Whether the rows' gradients are wanted.
    /// - Returns: The gradient of the loss by each row, `[rows, d_model]`; nil where it is not wanted.
    public func backward(
        _ batch: Batch,
        outputGradients: FloatMatrix,
        step: Int,
        accumulates: Bool,
        answers: Bool
    ) -> FloatMatrix? {
        guard accumulates || answers else { return nil }
        let inputs = answers ? FloatMatrix(uninitializedRows: batch.tokens.rows, columns: batch.tokens.columns) : nil
        defer { self.arena.end() }
        if accumulates { self.isProjected = false }
        let networks = self.feedForwards(batch, step)
        let kept = networks.activations(of: batch.tokens.all)
        networks.backward(
            kept,
            outputGradient: outputGradients.all,
            inputGradient: inputs?.all,
            gradients: accumulates ? self.gradients : self.unwanted
        )
        return inputs
    }

    private func feedForwards(_ batch: Batch, _ step: Int) -> FeedForwards {
        let randomness = batch.places.map { _ in
            StepRandomness(seed: self.plan.seed, step: UInt32(truncatingIfNeeded: step))
        }
        let run = PartRun(
            configuration: self.configuration,
            weights: self.rounded ?? self.weights,
            pool: self.pool,
            level: self.level,
            arena: self.arena,
            exact: self.arena,
            packs: self.arena,
            settings: self.settings,
            randomness: randomness,
            gradients: self.gradients,
            sums: self.sums,
            routing: self.routing,
            experts: nil
        )
        var next = 0
        let groups = batch.groups.compactMap { group -> FeedForwards.Group? in
            let rows = next..<next + group.rows
            next = rows.upperBound
            return self.networks[batch.layer]?[group.expert].map { FeedForwards.Group(parameters: $0, rows: rows) }
        }
        let places = batch.places ?? []
        return FeedForwards(
            run: run,
            groups: groups,
            dropout: run.dropout(.inner, batch.layer.stack, batch.layer.block, rate: self.plan.dropout),
            place: { (Int(places[$0].sequence), Int(places[$0].position)) }
        )
    }

    /// Forgets the gradients, before the first batch of a step.
    public func beginStep() {
        self.sums.clear()
        self.gradients.begin()
        self.isProjected = false
    }

    /// The gradients of what is trained, once all batches of a step are in.
    private func trainedGradients() -> Gradients {
        self.sums.finishColumns(into: self.gradients)
        self.gradients.clearUntouched(pool: self.pool)
        guard let adapter else { return self.gradients }
        if !self.isProjected { adapter.project(self.gradients, pool: self.pool, level: self.level) }
        self.isProjected = true
        return adapter.gradients
    }

    /// The sum of squares of each tensor's gradient, once all batches of a step are in; nil for a tensor without one.
    ///
    /// - Returns: A number for each entry of ``layout``.
    public func squares() -> [Double?] {
        let gradients = self.trainedGradients()
        return zip(GradientNorm.squares(of: gradients, pool: self.pool), gradients.touched)
            .map { square, isTouched in isTouched ? square : nil }
    }

    /// Makes new weights of the gradients.
    ///
    /// - Parameters:
    ///   - rate: The learning rate.
    ///   - scale: What each gradient is multiplied with before it is used.
    public func apply(rate: Double, scale: Double) {
        self.optimizer.step(
            weights: self.trained,
            gradients: self.trainedGradients(),
            learningRate: rate,
            gradientScale: scale,
            pool: self.pool
        )
        self.weightsChanged()
        self.beginStep()
    }

    /// Makes the weights that a step computes with of what is trained.
    func weightsChanged() {
        if let adapter {
            // Without the weights below it, this is a trainer's: it computes nothing with them.
            guard self.hasBase else { return }
            adapter.apply(to: self.weights, pool: self.pool)
        }
        if let rounded { Rounding.copy(self.weights, into: rounded, pool: self.pool) }
        if self.adapter != nil { self.weightSum = self.weightChecksum() }
    }
}

extension FloatMatrix {
    /// All rows.
    fileprivate var all: Rows {
        Rows(pointer: self.pointer, count: self.rows, columns: self.columns, stride: self.columns)
    }
}
