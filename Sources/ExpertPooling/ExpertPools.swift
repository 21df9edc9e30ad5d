// SPDX-License-Identifier: Apache-2.0

internal import RPCCore
public import SwitchyardTypes

/// The pools of expert hosts as a pure machine: which replicas are verified, chosen and ejected.
///
/// Events come in with the time; actions go out. ``LayerCalls``, a layer's calls, asks this machine for replicas and
/// reports how each attempt ended.
///
/// - A replica is chosen as the "least outstanding of two random" (``ExpertPools`` in `ExpertPools+Choice.swift`).
/// - An attempt ends in ``attemptEnded(_:)``, where everything that follows from its end is counted and decided.
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
    private var slots: [ReplicaID: Int] = [:]
    private var freeSlots: [Int] = []
    private var poolIndices: [String: Int] = [:]
    private let isPlacementGiven: Bool
    /// Whether the placement is learned from the replicas' descriptions.
    var learnsPlacement: Bool { !self.isPlacementGiven }
    private var table: PlacementTable
    /// The extra placements that the caller wants; fewer may be in force.
    private var wantedExtras: [SparseLayer: [Int: [String]]] = [:]

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

    /// Splits a layer's grouped rows by pool: one grouped call per pool.
    ///
    /// - Parameters:
    ///   - groups: Expert and row count, in the order of the dispatched rows.
    ///   - layer: The layer.
    /// - Returns: The calls, ordered by the pools' names, and the rows that no pool holds.
    public func assignments(
        of groups: [(expert: Int, rows: Int)],
        in layer: SparseLayer
    ) -> (calls: [PoolAssignment], unplaced: [Range<Int>]) {
        self.table.assignments(of: groups, in: layer) { self.readyCount(of: $0) }
    }

    // MARK: - Membership and connections

    /// Adds a replica, which has no connection yet.
    ///
    /// - Parameter id: The replica; a known one is unchanged.
    public mutating func added(_ id: ReplicaID) {
        if let slot = self.slots[id] {
            if self.replicas[slot].isLeaving {
                self.replicas[slot].isLeaving = false
                self.pools[self.replicas[slot].pool].members.append(slot)
            }
            return
        }
        let pool = self.poolIndex(of: id.pool)
        let replica = Replica(id: id, pool: pool)
        if let slot = self.freeSlots.popLast() {
            self.replicas[slot] = replica
            self.slots[id] = slot
        } else {
            self.slots[id] = self.replicas.count
            self.replicas.append(replica)
        }
        if let slot = self.slots[id] { self.pools[pool].members.append(slot) }
    }

    /// Removes a replica; calls in flight may still be answered.
    ///
    /// - Parameters:
    ///   - id: The replica.
    ///   - now: The current time.
    public mutating func removed(_ id: ReplicaID, now: ContinuousClock.Instant) {
        guard let slot = self.slots[id], !self.replicas[slot].isLeaving else { return }
        self.setState(slot, .disconnected, now: now)
        self.pools[self.replicas[slot].pool].members.removeAll { $0 == slot }
        // A replica that is added again meanwhile must not exceed its limit of calls.
        var replica = Replica(id: id, pool: self.replicas[slot].pool)
        replica.outstanding = self.replicas[slot].outstanding
        replica.outstandingRows = self.replicas[slot].outstandingRows
        replica.isLeaving = true
        self.replicas[slot] = replica
        self.forgetIfDone(slot)
        self.pruneExtras()
    }

    /// Records that a connection to a replica is up.
    ///
    /// - Parameter id: The replica.
    /// - Returns: The describe call to make.
    public mutating func connected(_ id: ReplicaID) -> [PoolAction] {
        guard let slot = self.slots[id], !self.replicas[slot].isLeaving, self.replicas[slot].state == .disconnected
        else { return [] }
        self.replicas[slot].state = .unverified
        return [.describe(id)]
    }

    /// Records that the last connection to a replica is gone.
    ///
    /// - Parameters:
    ///   - id: The replica.
    ///   - now: The current time.
    public mutating func disconnected(_ id: ReplicaID, now: ContinuousClock.Instant) {
        guard let slot = self.slots[id] else { return }
        let wasReady = self.replicas[slot].state == .ready
        self.setState(slot, .disconnected, now: now)
        self.replicas[slot].describeAgain = nil
        self.replicas[slot].failedProbes = 0
        self.replicas[slot].notBefore = nil
        self.resetRuns(slot)
        self.replicas[slot].description = nil
        if wasReady {
            self.probeEjectedIfNoneIsReady(self.replicas[slot].pool)
            self.pruneExtras()
        }
    }

    /// Records a replica's description.
    ///
    /// - Parameters:
    ///   - id: The replica.
    ///   - description: The description.
    ///   - now: The current time.
    /// - Returns: Whether it is ready or mismatched.
    public mutating func described(
        _ id: ReplicaID,
        _ description: ReplicaDescription,
        now: ContinuousClock.Instant
    ) -> [PoolAction] {
        guard let slot = self.slots[id] else { return [] }
        switch self.replicas[slot].state {
        case .unverified, .probing: break
        case .disconnected, .ready, .ejected, .draining, .mismatched: return []
        }
        self.replicas[slot].description = description
        self.replicas[slot].describeAgain = nil
        self.replicas[slot].failedProbes = 0
        if let reason = self.objection(to: description, from: slot) {
            self.setState(slot, .mismatched(reason), now: now)
            return [.mismatched(id, reason: reason)]
        }
        self.setState(slot, .ready, now: now)
        self.resetRuns(slot)
        if !self.isPlacementGiven {
            self.learnPlacement(from: slot, description)
            for pool in self.pools.indices { self.judgeRefused(in: pool, now: now) }
        }
        self.pruneExtras()
        return [.joined(id)]
    }

    /// Records that a replica failed to describe itself.
    ///
    /// - Parameters:
    ///   - id: The replica.
    ///   - now: The current time.
    public mutating func describeFailed(_ id: ReplicaID, now: ContinuousClock.Instant) {
        guard let slot = self.slots[id] else { return }
        switch self.replicas[slot].state {
        case .unverified:
            self.replicas[slot].describeAgain = now.advanced(by: self.configuration.describeRetry)
        case .probing:
            self.probeFailed(slot, now: now)
        case .disconnected, .ready, .ejected, .draining, .mismatched:
            break
        }
    }

    /// The earliest time at which ``timerFired(now:)`` has something to do.
    public var nextTimer: ContinuousClock.Instant? {
        var earliest: ContinuousClock.Instant?
        // By index: copying each replica would cost more than the rest of a step.
        for slot in self.replicas.indices where !self.replicas[slot].isLeaving {
            var time = self.replicas[slot].describeAgain
            if case .ejected(let until) = self.replicas[slot].state { time = until }
            if let time, earliest.map({ time < $0 }) ?? true { earliest = time }
        }
        return earliest
    }

    /// Handles the timer: back-offs may be over.
    ///
    /// - Parameter now: The current time.
    /// - Returns: Describe calls to make.
    public mutating func timerFired(now: ContinuousClock.Instant) -> [PoolAction] {
        var due: [ReplicaID] = []
        for slot in self.replicas.indices where !self.replicas[slot].isLeaving {
            if case .ejected(let until) = self.replicas[slot].state, until <= now {
                self.replicas[slot].state = .probing
                due.append(self.replicas[slot].id)
            } else if let again = self.replicas[slot].describeAgain, again <= now {
                self.replicas[slot].describeAgain = nil
                due.append(self.replicas[slot].id)
            }
        }
        return due.sorted().map { .describe($0) }
    }

    // MARK: - Hot experts

    /// Places experts on additional pools, replacing earlier extra placements.
    ///
    /// Only experts that every ready replica of a pool holds are placed there, now and as replicas come and go.
    ///
    /// - Parameter extras: Names of pools, by layer and expert.
    public mutating func setExtras(_ extras: [SparseLayer: [Int: [String]]]) {
        self.wantedExtras = extras
        self.pruneExtras()
    }

    /// The experts that every ready replica of a pool holds in addition to the pool's own.
    ///
    /// - Returns: Indices by pool and layer; pools without a ready replica are missing.
    public func spareExperts() -> [String: [SparseLayer: Set<Int>]] {
        var result: [String: [SparseLayer: Set<Int>]] = [:]
        for pool in self.pools where !pool.ready.isEmpty {
            let held = self.heldByAll(pool)
            let own = self.table.experts(of: pool.name)
            result[pool.name] = held.reduce(into: [:]) { spare, entry in
                let experts = entry.value.subtracting(own[entry.key] ?? [])
                if !experts.isEmpty { spare[entry.key] = experts }
            }
        }
        return result
    }

    private func heldByAll(_ pool: Pool) -> [SparseLayer: Set<Int>] {
        var held: [SparseLayer: Set<Int>]?
        for slot in pool.ready {
            let experts = self.replicas[slot].description?.experts ?? [:]
            held = held.map { all in all.reduce(into: [:]) { $0[$1.key] = $1.value.intersection(experts[$1.key] ?? []) }
            }
            if held == nil { held = experts }
        }
        return held ?? [:]
    }

    private mutating func pruneExtras() {
        guard !self.wantedExtras.isEmpty || !self.table.extras.isEmpty else { return }
        let spare = self.spareExperts()
        for name in spare.keys { self.table.know(name) }
        let extras = self.wantedExtras.reduce(into: [SparseLayer: [Int: [String]]]()) { result, entry in
            result[entry.key] = entry.value.mapValues { pools in pools.filter { spare[$0]?[entry.key] != nil } }
            for (expert, pools) in result[entry.key] ?? [:] {
                result[entry.key]?[expert] = pools.filter { spare[$0]?[entry.key]?.contains(expert) == true }
            }
        }
        self.table.setExtras(extras)
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
            if self.pools[pool].ready.isEmpty { self.pools[pool].lostAt = now }
            self.readyVersion += 1
            self.judgeRefused(in: pool, now: now)
        } else if state == .ready, before != .ready {
            self.pools[pool].ready.append(slot)
            self.pools[pool].lostAt = nil
            self.replicas[slot].isStalled = false
            self.readyVersion += 1
            self.judgeRefused(in: pool, now: now)
        }
    }

    mutating func forgetIfDone(_ slot: Int) {
        let replica = self.replicas[slot]
        guard replica.isLeaving, replica.outstanding == 0, self.slots[replica.id] == slot else { return }
        self.slots[replica.id] = nil
        self.freeSlots.append(slot)
    }

    private mutating func resetRuns(_ slot: Int) {
        self.replicas[slot].failuresInARow = 0
        self.replicas[slot].badRepliesInARow = 0
        self.replicas[slot].overtakesInARow = 0
        self.replicas[slot].successesInARow = 0
        self.replicas[slot].classSamples = [Int](repeating: 0, count: CallClass.count)
    }

    /// Places the experts of a replica that has just joined on its pool.
    ///
    /// An expert that another pool already holds stays there. A replica that holds less than its pool did is its only
    /// ready one (``objection(to:from:)``), so the pool's placement is learned again from it, and the experts that it
    /// lacks may be found elsewhere.
    private mutating func learnPlacement(from slot: Int, _ description: ReplicaDescription) {
        let name = self.replicas[slot].id.pool
        let holdsAll = self.table.experts(of: name)
            .allSatisfy { layer, experts in
                experts.isSubset(of: description.experts[layer] ?? [])
            }
        var teachers = [slot]
        if !holdsAll {
            self.table.removeAll(of: name)
            let others = self.replicas.indices.filter { $0 != slot && self.replicas[$0].state == .ready }
            teachers += others.sorted { self.replicas[$0].id < self.replicas[$1].id }
        }
        for teacher in teachers {
            for (layer, experts) in self.replicas[teacher].description?.experts ?? [:] {
                for expert in experts where self.table.pool(of: expert, in: layer) == nil {
                    self.table.place(expert, of: layer, on: self.replicas[teacher].id.pool)
                }
            }
        }
        self.readyVersion += 1
    }
}
