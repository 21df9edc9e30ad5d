// SPDX-License-Identifier: Apache-2.0

public import Checkpoints
public import SwitchyardTypes
public import TensorKernels

/// Which of a checkpoint's experts to load.
public enum ExpertSelection: Sendable, Hashable {
    /// All whose tensors are in the checkpoint's directory.
    case held

    /// Those named, for each sparse layer.
    case only([SparseLayer: [Int]])
}

/// Experts in this process's memory.
///
/// An expert's output row depends on its input row and on the weights, and on nothing else: not on which other rows are
/// computed with it, not on the number of threads, not on the machine. So `forward` on another host and `begin` here
/// give the same bits.
public final class LocalExperts: ExpertExecutor, Sendable {
    /// Rows that go through the experts at once, which bounds the memory of the inner activations.
    private static let slabRows = 2048

    private let layers: [SparseLayer: [Int: FeedForwardWeights]]
    let pool: WorkPool
    let modelWidth: Int
    let feedForwardWidth: Int
    private let isGated: Bool
    let activation: Activation

    /// Loads and packs experts.
    ///
    /// - Parameters:
    ///   - checkpoint: Where the tensors come from.
    ///   - experts: Which experts to load.
    ///   - pool: Threads that share the work, while loading and later.
    ///   - storage: How to keep the weights; those of a packed part are used straight from the mapped file, unchanged.
    ///   - progress: Told after each tensor.
    /// - Throws: `CheckpointError` for tensors that are missing or malformed, `ModelError` for a configuration that
    ///   is not supported.
    public convenience init(
        checkpoint: Checkpoint,
        experts: ExpertSelection = .held,
        pool: WorkPool,
        storage: WeightStorage = .checkpoint,
        progress: (@Sendable (WorkProgress) -> Void)? = nil
    ) throws {
        let wanted: [SparseLayer: [Int]]
        switch experts {
        case .held: wanted = checkpoint.heldExperts
        case .only(let named): wanted = named
        }
        try self.init(
            sources: [(checkpoint, wanted)],
            configuration: checkpoint.configuration,
            pool: pool,
            storage: storage,
            progress: progress
        )
    }

    /// Loads and packs all experts that the parts of one checkpoint hold, each once even if several parts hold it.
    ///
    /// - Parameters:
    ///   - checkpoints: Where the tensors come from: at least one, and all with the same configuration.
    ///   - pool: Threads that compute.
    ///   - loadingPool: Threads that share the loading; nil for those that compute.
    ///   - storage: How to keep the weights; those of a packed part are used straight from the mapped file, unchanged.
    ///   - progress: Told after each tensor.
    /// - Throws: `CheckpointError` for tensors that are missing or malformed, `ModelError` for a configuration that is
    ///   not supported, or for checkpoints whose configurations differ.
    public convenience init(
        checkpoints: [Checkpoint],
        pool: WorkPool,
        loadingPool: WorkPool? = nil,
        storage: WeightStorage = .checkpoint,
        progress: (@Sendable (WorkProgress) -> Void)? = nil
    ) throws {
        guard let configuration = checkpoints.first?.configuration,
            checkpoints.allSatisfy({ $0.configuration == configuration })
        else {
            throw ModelError(
                code: .unsupported,
                message: "experts are loaded from parts of one checkpoint, and "
                    + checkpoints.map(\.directory).joined(separator: ", ")
                    + " differ in their configurations; name parts that were cut from the same checkpoint"
            )
        }
        var loaded: [SparseLayer: Set<Int>] = [:]
        let sources = checkpoints.map { checkpoint in
            let wanted = checkpoint.heldExperts.map { layer, experts in
                (layer, experts.filter { loaded[layer, default: []].insert($0).inserted })
            }
            return (checkpoint, Dictionary(uniqueKeysWithValues: wanted))
        }
        try self.init(
            sources: sources,
            configuration: configuration,
            pool: pool,
            loadingPool: loadingPool,
            storage: storage,
            progress: progress
        )
    }

    private init(
        sources: [(checkpoint: Checkpoint, wanted: [SparseLayer: [Int]])],
        configuration: ModelConfiguration,
        pool: WorkPool,
        loadingPool: WorkPool? = nil,
        storage: WeightStorage,
        progress: (@Sendable (WorkProgress) -> Void)?
    ) throws {
        try ModelError.requireSupport(for: configuration)
        let tensors = configuration.feedForwardMatrices.count * (configuration.design.hasBiases ? 2 : 1)
        let total = tensors * sources.reduce(0) { $1.wanted.values.reduce($0) { $0 + $1.count } }
        var layers: [SparseLayer: [Int: FeedForwardWeights]] = [:]
        var types: [PartType] = []
        var done = 0
        for (checkpoint, wanted) in sources {
            try WeightLoader.requireReadable(checkpoint)
            let before = done
            var type = PartType(checkpoint)
            let loader = WeightLoader(
                checkpoint: checkpoint,
                pool: loadingPool ?? pool,
                storage: storage,
                label: "Loading experts",
                total: total,
                progress: { step in
                    var step = step
                    step.completed += before
                    progress?(step)
                }
            )
            for (layer, indices) in wanted.sorted(by: { $0.key < $1.key }) {
                for expert in indices.sorted() {
                    let loaded = try loader.network(configuration) { .expert(layer, expert: expert, $0) }
                    type.kept.formUnion(loaded.types)
                    layers[layer, default: [:]][expert] = loaded
                    done += tensors
                }
            }
            types.append(type)
        }
        try PartType.requireOne(types)
        self.layers = layers
        self.pool = pool
        self.modelWidth = configuration.modelWidth
        self.feedForwardWidth = configuration.feedForwardWidth
        self.isGated = configuration.gatedFeedForward
        self.activation = Activation(configuration.activation)
    }

    /// How the weights are kept: the type of the first expert, since a checkpoint of mixed types has experts of mixed
    /// types; nil where none is held.
    public var weightType: DType? {
        let first = self.layers.min { $0.key < $1.key }?.value
        return first?.min { $0.key < $1.key }?.value.inner.dtype
    }

    /// The experts of each layer, ascending.
    public var held: [SparseLayer: [Int]] {
        self.layers.mapValues { $0.keys.sorted() }
    }

    /// Bytes of the packed weights, including those in mapped files.
    public var byteCount: Int {
        self.layers.values.reduce(0) { sum, experts in
            experts.values.reduce(sum) { $0 + $1.byteCount }
        }
    }

    /// Whether an expert is held.
    ///
    /// - Parameters:
    ///   - layer: The sparse layer.
    ///   - expert: The expert's index in the layer.
    /// - Returns: Whether `forward` would compute it.
    public func holds(_ layer: SparseLayer, expert: Int) -> Bool {
        self.layers[layer]?[expert] != nil
    }

    /// Computes `wo(activation(wi x))`, or `wo(activation(wi0 x) * (wi1 x))` where experts are gated, for rows that are grouped by expert;
    /// each product with its bias where the family has biases.
    ///
    /// - Parameters:
    ///   - layer: The sparse layer.
    ///   - groups: The experts and their numbers of rows, in the order of the rows.
    ///   - tokens: The rows, `[rows, d_model]` float32.
    ///   - outputs: Room for as many rows; must not overlap `tokens`.
    ///   - pauses: Where to pause; nowhere if omitted.
    /// - Throws: `ExpertError` when the layer is unknown, an expert is not held or a group has no rows; nothing has
    ///   then been computed.
    public func forward(
        layer: SparseLayer,
        groups: [ExpertRows],
        tokens: UnsafePointer<Float>,
        outputs: UnsafeMutablePointer<Float>,
        pauses: WorkPauses? = nil
    ) throws(ExpertError) {
        let rows = groups.reduce(0) { $0 + $1.rows }
        if rows > 0, rows <= Self.slabRows {
            let work = try self.work(of: groups, rows: rows, layer: layer, tokens: tokens, outputs: outputs)
            work.run(pauses: pauses)
            return
        }
        let slabs = try self.slabs(of: groups, layer: layer)
        var row = 0
        for slab in slabs {
            var work = FeedForwardWork(
                rows: slab.reduce(0) { $0 + $1.rows },
                width: self.feedForwardWidth,
                isGated: self.isGated,
                activation: self.activation,
                pool: self.pool
            )
            for part in slab {
                let offset = row * self.modelWidth
                work.add(part.expert, rows: part.rows, input: tokens + offset, output: outputs + offset)
                row += part.rows
            }
            work.run(pauses: pauses)
        }
    }

    /// The work for rows that are one slab.
    private func work(
        of groups: [ExpertRows],
        rows: Int,
        layer: SparseLayer,
        tokens: UnsafePointer<Float>,
        outputs: UnsafeMutablePointer<Float>
    ) throws(ExpertError) -> FeedForwardWork {
        let experts = try self.experts(of: layer)
        var work = FeedForwardWork(
            rows: rows,
            width: self.feedForwardWidth,
            isGated: self.isGated,
            activation: self.activation,
            pool: self.pool
        )
        var row = 0
        for group in groups {
            let expert = try Self.expert(of: group, among: experts, layer: layer)
            let offset = row * self.modelWidth
            work.add(expert, rows: group.rows, input: tokens + offset, output: outputs + offset)
            row += group.rows
        }
        return work
    }

    /// Prepares a layer's work, which `wait` does on the calling thread and the pool.
    ///
    /// Rows for experts that are not held are dropped as `unavailable`.
    ///
    /// - Parameter request: The layer's work.
    /// - Returns: A handle for the outputs.
    public func begin(_ request: ExpertLayerRequest) -> any PendingExperts {
        if let kept = request.memory?.kept as? LocalPendingExperts, kept.isFree {
            kept.begin(request, experts: self)
            return kept
        }
        let pending = LocalPendingExperts()
        pending.begin(request, experts: self)
        request.memory?.kept = pending
        return pending
    }

    /// Shares rows among the threads, where they are many.
    func share(_ rows: Int, width: Int, body: (Range<Int>) -> Void) {
        WorkPool.share(rows, width: width, among: self.pool, body: body)
    }

    /// Rows that go through one expert.
    struct Part {
        let expert: FeedForwardWeights
        let rows: Int
    }

    /// A layer's experts.
    private func experts(of layer: SparseLayer) throws(ExpertError) -> [Int: FeedForwardWeights] {
        guard let experts = self.layers[layer] else {
            throw ExpertError(
                code: .unknownLayer,
                message: "no experts of \(layer.stack) block \(layer.block) are held here; ask a host that lists them"
            )
        }
        return experts
    }

    /// The expert that a group names, if it is held and the group has rows.
    private static func expert(
        of group: ExpertRows,
        among experts: [Int: FeedForwardWeights],
        layer: SparseLayer
    ) throws(ExpertError) -> FeedForwardWeights {
        guard let expert = experts[group.expert] else {
            throw ExpertError(
                code: .notHeld,
                message: "expert \(group.expert) of \(layer.stack) block \(layer.block) is not held here;"
                    + " ask a host that lists it"
            )
        }
        guard group.rows > 0 else {
            throw ExpertError(
                code: .invalidGroup,
                message: "expert \(group.expert) has a group of \(group.rows) rows; send groups of at least 1"
            )
        }
        return expert
    }

    /// Looks the experts up and cuts the rows into slabs.
    func slabs(of groups: [ExpertRows], layer: SparseLayer) throws(ExpertError) -> [[Part]] {
        let experts = try self.experts(of: layer)
        var slabs: [[Part]] = []
        var room = 0
        for group in groups {
            let expert = try Self.expert(of: group, among: experts, layer: layer)
            var left = group.rows
            while left > 0 {
                if room == 0 {
                    slabs.append([])
                    slabs[slabs.count - 1].reserveCapacity(groups.count)
                    room = LocalExperts.slabRows
                }
                let taken = min(left, room)
                slabs[slabs.count - 1].append(Part(expert: expert, rows: taken))
                left -= taken
                room -= taken
            }
        }
        return slabs
    }
}
