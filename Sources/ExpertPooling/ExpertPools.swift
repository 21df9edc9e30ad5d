// SPDX-License-Identifier: Apache-2.0

internal import RPCCore
public import SwitchyardTypes

/// The pools of expert hosts as a pure machine: which replicas are verified, chosen and ejected.
///
/// Events come in with the time; actions go out. ``LayerCalls``, a layer's calls, asks this machine for replicas and
/// reports how each attempt ended.
///
/// - An expert's rows prefer one replica of a pool (``ExpertAffinity``); where that cannot take them, and for hedges and
///   retries, a replica is chosen as the "least outstanding of two random" (`ExpertPools+Choice.swift`).
/// - An attempt ends in ``attemptEnded(_:)``, where everything that follows from its end is counted and decided.
/// - Connections and descriptions are in `ExpertPools+Connections.swift`, several addresses of one process in
///   `ExpertPools+Instances.swift`.
/// - Ejection, probes and draining are in `ExpertPools+Health.swift`.
/// - Deadlines, hedge delays and budgets come from observed times (`ExpertPools+Observed.swift`).
public struct ExpertPools: Sendable {
    /// The limits.
    public let configuration: ExpertPoolsConfiguration
    /// Fingerprint that every replica must have.
    public let fingerprint: UInt64
    /// Width of a token row that every replica must have.
    public let modelWidth: Int
    /// Grows whenever ``isComplete(layers:expertCount:)`` may have changed.
    public internal(set) var readyVersion = 0

    var replicas: [Replica] = []
    var pools: [Pool] = []
    var random: PoolRandom
    /// Draws which calls are audited; a generator of its own, so that audits change no other choice.
    var auditRandom: PoolRandom
    var slots: [ReplicaID: Int] = [:]
    var freeSlots: [Int] = []
    /// What is remembered of replicas that left with a verdict, for when they are added again.
    var departed: [ReplicaID: Departed] = [:]
    private var poolIndices: [String: Int] = [:]
    private let isPlacementGiven: Bool
    /// Whether the placement is learned from the replicas' descriptions.
    var learnsPlacement: Bool { !self.isPlacementGiven }
    var table: PlacementTable
    /// The extra placements that the caller wants; fewer may be in force.
    var wantedExtras: [SparseLayer: [Int: [String]]] = [:]

    /// Creates the machine without replicas.
    ///
    /// - Parameters:
    ///   - configuration: The limits.
    ///   - fingerprint: Fingerprint that every replica must have.
    ///   - modelWidth: Width of a token row.
    ///   - placement: Which pool holds each expert, or nil to learn it from the replicas' descriptions.
    ///   - seed: Seed of the random choices.
    public init(
        configuration: ExpertPoolsConfiguration = .defaults,
        fingerprint: UInt64,
        modelWidth: Int,
        placement: PlacementTable?,
        seed: UInt64 = 0
    ) {
        self.configuration = configuration
        self.fingerprint = fingerprint
        self.modelWidth = modelWidth
        self.isPlacementGiven = placement != nil
        self.table = placement ?? PlacementTable()
        self.random = PoolRandom(seed: seed)
        self.auditRandom = PoolRandom(seed: ~seed)
    }

    /// Which pools hold each expert, as far as known.
    public var placement: PlacementTable { self.table }

    /// Whether a pool has a replica that is ready.
    ///
    /// - Parameter pool: Name of the pool.
    /// - Returns: Whether at least one of its replicas is ready.
    public func isReady(_ pool: String) -> Bool { self.readyCount(of: pool) > 0 }

    /// How many replicas of a pool are ready.
    ///
    /// - Parameter pool: Name of the pool.
    /// - Returns: Their number.
    public func readyCount(of pool: String) -> Int {
        self.poolIndices[pool].map { self.pools[$0].ready.count } ?? 0
    }

    /// Whether every expert of a model is held by a pool with a ready replica.
    ///
    /// - Parameters:
    ///   - layers: The model's sparse layers.
    ///   - expertCount: Experts of each.
    /// - Returns: Whether every expert has a host that takes calls.
    public func isComplete(layers: [SparseLayer], expertCount: Int) -> Bool {
        guard self.table.unplaced(layers: layers, expertCount: expertCount).isEmpty else { return false }
        let pools = Set(layers.flatMap { layer in (0..<expertCount).compactMap { self.table.pool(of: $0, in: layer) } })
        return pools.allSatisfy { self.isReady($0) }
    }

    /// Splits a layer's grouped rows into calls: one grouped call for each replica that experts of the layer prefer, or one
    /// per pool (``ReplicaChoice``).
    ///
    /// - Parameters:
    ///   - groups: Expert and row count, in the order of the dispatched rows.
    ///   - layer: The layer.
    ///   - now: The current time.
    /// - Returns: The calls, ordered by the pools' names, and the rows that no pool holds.
    public mutating func assignments(
        of groups: [(expert: Int, rows: Int)],
        in layer: SparseLayer,
        now: ContinuousClock.Instant
    ) -> (calls: [PoolAssignment], unplaced: [Range<Int>]) {
        let (pooled, unplaced) = self.table.assignments(of: groups, in: layer) { self.readyCount(of: $0) }
        guard self.configuration.replicaChoice == .affinity,
            pooled.contains(where: { self.readyCount(of: $0.pool) > 1 })
        else { return (pooled, unplaced) }
        var calls: [PoolAssignment] = []
        calls.reserveCapacity(2 * pooled.count)
        for assignment in pooled { self.divide(assignment, in: layer, now: now, into: &calls) }
        return (calls, unplaced)
    }

    // MARK: - Inside

    func slot(of id: ReplicaID) -> Int? { self.slots[id] }

    mutating func poolIndex(of name: String) -> Int {
        if let index = self.poolIndices[name] { return index }
        self.poolIndices[name] = self.pools.count
        self.pools.append(
            Pool(
                name: name,
                retryBudget: RetryBudget(maxTokens: self.configuration.retryTokens),
                hedgeTokens: self.configuration.hedgeBurst
            )
        )
        return self.pools.count - 1
    }

    /// Moves a replica into a state, and keeps its pool's list of ready replicas up to date.
    mutating func setState(_ slot: Int, _ state: ReplicaState, now: ContinuousClock.Instant) {
        let before = self.replicas[slot].state
        self.replicas[slot].state = state
        let pool = self.replicas[slot].pool
        if before == .ready, state != .ready {
            self.pools[pool].ready.removeAll { $0 == slot }
            if self.pools[pool].ready.isEmpty {
                self.pools[pool].lostAt = now
                self.repeatEvidence(in: pool, now: now)
            }
            if self.pools[pool].ready.count < 2 { self.pools[pool].isDisputed = false }
            self.readyVersion += 1
            if self.learnsPlacement { self.learnPlacement(of: pool) }
            self.judgeRefused(in: pool, now: now)
        } else if state == .ready, before != .ready {
            self.pools[pool].ready.append(slot)
            self.pools[pool].lostAt = nil
            self.replicas[slot].isStalled = false
            self.readyVersion += 1
            self.judgeRefused(in: pool, now: now)
        }
        if before.holdsInstance, !state.holdsInstance { self.promoteSpare(of: slot, which: before, now: now) }
    }

    mutating func forgetIfDone(_ slot: Int) {
        let replica = self.replicas[slot]
        guard replica.isLeaving, replica.outstanding == 0, self.slots[replica.id] == slot else { return }
        self.slots[replica.id] = nil
        self.freeSlots.append(slot)
    }
}
