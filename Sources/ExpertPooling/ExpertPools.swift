// SPDX-License-Identifier: Apache-2.0

/// The pools of expert hosts as a pure machine: who is verified, who is chosen, who is left alone.
///
/// Events come in with the time; actions go out. Choice is "least outstanding of two random"
/// (M. Mitzenmacher, The Power of Two Choices in Randomized Load Balancing, 2001,
/// https://www.eecs.harvard.edu/~michaelm/postscripts/tpds2001.pdf), with one deviation: a pool of one or two serving
/// replicas is looked at whole.
///
/// **Ejection.** Failures in a row eject a replica for a time that doubles with each ejection, until many successes in a
/// row are taken for health. Nobody is ejected for errors when no other
/// replica of its pool serves: a failing host is better than none. Deadline misses are the exception: waiting for a
/// stalled host costs every sequence of every step a whole deadline, so such a host is left alone even if it is the last,
/// and its tokens are dropped at once until a probe is answered. When the last serving replica of a pool disconnects, the
/// back-off of the ejected ones ends at once.
public struct ExpertPools: Sendable {
    private struct Replica: Sendable {
        var state = ReplicaState.connecting
        var outstanding = 0
        var failuresInARow = 0
        var successesInARow = 0
        var ejections = 0
        var ejectedAt: ContinuousClock.Instant?
        /// Whether it is no longer named, and is kept only until its last call has ended.
        var isLeaving = false
        var describeAgain: ContinuousClock.Instant?
        var succeeded: UInt64 = 0
        var failed: UInt64 = 0
        var rows: UInt64 = 0
        var latencySeconds: Double?
        var description: ReplicaDescription?
    }

    /// The bounds that are kept.
    public let configuration: ExpertPoolsConfiguration
    /// Fingerprint that every replica must have.
    public let fingerprint: UInt64
    /// Width of a token row that every replica must have.
    public let modelWidth: Int

    private var replicas: [ReplicaID: Replica] = [:]
    private let isPlacementGiven: Bool
    private var table: PlacementTable

    /// Creates the machine without replicas.
    ///
    /// - Parameters:
    ///   - configuration: The bounds to keep.
    ///   - fingerprint: Fingerprint that every replica must have.
    ///   - modelWidth: Width of a token row.
    ///   - placement: Which pool holds each expert, or nil to learn it from what the replicas say they hold.
    public init(
        configuration: ExpertPoolsConfiguration = .defaults,
        fingerprint: UInt64,
        modelWidth: Int,
        placement: PlacementTable?
    ) {
        self.configuration = configuration
        self.fingerprint = fingerprint
        self.modelWidth = modelWidth
        self.isPlacementGiven = placement != nil
        self.table = placement ?? PlacementTable()
    }

    /// Which pool holds each expert, as far as it is known.
    public var placement: PlacementTable { self.table }

    /// The earliest time at which ``timerFired(now:)`` has something to do.
    public var nextTimer: ContinuousClock.Instant? {
        self.replicas.values
            .compactMap { replica in
                if case .ejected(let until) = replica.state { return until }
                return replica.describeAgain
            }
            .min()
    }

    /// All replicas, ordered by pool and address.
    public var reports: [ReplicaReport] {
        self.replicas.filter { !$0.value.isLeaving }.sorted { $0.key < $1.key }
            .map { id, replica in
                ReplicaReport(
                    id: id,
                    state: replica.state,
                    outstanding: replica.outstanding,
                    succeeded: replica.succeeded,
                    failed: replica.failed,
                    rows: replica.rows,
                    latency: replica.latencySeconds.map { .nanoseconds(Int64($0 * 1e9)) },
                    description: replica.description
                )
            }
    }

    /// Whether a pool has a replica that takes calls.
    ///
    /// - Parameter pool: Name of the pool.
    /// - Returns: Whether one of its replicas is serving.
    public func isServing(_ pool: String) -> Bool {
        self.replicas.contains { $0.key.pool == pool && $0.value.state == .serving }
    }

    /// Whether every expert of a model is held by a pool with a serving replica.
    ///
    /// - Parameters:
    ///   - layers: The model's sparse layers.
    ///   - expertCount: Experts of each.
    /// - Returns: Whether no token would be dropped for want of a host.
    public func isComplete(layers: [ExpertLayer], expertCount: Int) -> Bool {
        guard self.table.unplaced(layers: layers, expertCount: expertCount).isEmpty else { return false }
        let pools = Set(layers.flatMap { layer in (0..<expertCount).compactMap { self.table.pool(of: $0, in: layer) } })
        return pools.allSatisfy { self.isServing($0) }
    }

    // MARK: - Membership and connections

    /// A replica was named or found; it is connecting.
    ///
    /// - Parameter id: The replica; a known one is left as it is.
    public mutating func added(_ id: ReplicaID) {
        self.replicas[id, default: Replica()].isLeaving = false
    }

    /// A replica is no longer named; calls that are out may still be answered.
    ///
    /// - Parameter id: The replica.
    public mutating func removed(_ id: ReplicaID) {
        guard let outstanding = self.replicas[id]?.outstanding else { return }
        // A name that comes back meanwhile must not be given more calls than it may have.
        self.replicas[id] = outstanding > 0 ? Replica(outstanding: outstanding, isLeaving: true) : nil
    }

    /// A connection to a replica is up.
    ///
    /// - Parameter id: The replica.
    /// - Returns: The question to ask it.
    public mutating func connected(_ id: ReplicaID) -> [PoolAction] {
        guard let replica = self.replicas[id], !replica.isLeaving, replica.state == .connecting else { return [] }
        self.replicas[id]?.state = .describing
        return [.describe(id)]
    }

    /// The last connection to a replica is gone.
    ///
    /// - Parameter id: The replica.
    public mutating func disconnected(_ id: ReplicaID) {
        guard let state = self.replicas[id]?.state else { return }
        self.replicas[id]?.state = .connecting
        self.replicas[id]?.describeAgain = nil
        self.replicas[id]?.failuresInARow = 0
        self.replicas[id]?.successesInARow = 0
        self.replicas[id]?.description = nil
        guard state == .serving, !self.isServing(id.pool) else { return }
        for (sibling, replica) in self.replicas where sibling.pool == id.pool {
            guard case .ejected = replica.state, let since = replica.ejectedAt else { continue }
            self.replicas[sibling]?.state = .ejected(until: since)
        }
    }

    /// A replica said what it holds.
    ///
    /// - Parameters:
    ///   - id: The replica.
    ///   - description: What it said.
    /// - Returns: Whether it joined or was refused.
    public mutating func described(_ id: ReplicaID, _ description: ReplicaDescription) -> [PoolAction] {
        guard let replica = self.replicas[id] else { return [] }
        switch replica.state {
        case .describing, .probing: break
        case .connecting, .serving, .ejected, .refused: return []
        }
        self.replicas[id]?.description = description
        self.replicas[id]?.describeAgain = nil
        if let reason = self.objection(to: description, from: id) {
            self.replicas[id]?.state = .refused(reason)
            return [.refused(id, reason: reason)]
        }
        self.replicas[id]?.state = .serving
        self.replicas[id]?.failuresInARow = 0
        self.replicas[id]?.successesInARow = 0
        if !self.isPlacementGiven {
            self.learnPlacement(from: id, description)
        }
        return [.joined(id)]
    }

    /// A replica did not say what it holds.
    ///
    /// - Parameters:
    ///   - id: The replica.
    ///   - now: The present.
    public mutating func describeFailed(_ id: ReplicaID, now: ContinuousClock.Instant) {
        switch self.replicas[id]?.state {
        case .describing:
            self.replicas[id]?.describeAgain = now.advanced(by: self.configuration.describeRetry)
        case .probing:
            self.replicas[id]?.ejections += 1
            self.eject(id, for: self.ejectionTime(id), now: now)
        case .connecting, .serving, .ejected, .refused, nil:
            break
        }
    }

    /// Time has passed: back-offs may be over.
    ///
    /// - Parameter now: The present.
    /// - Returns: Questions to ask.
    public mutating func timerFired(now: ContinuousClock.Instant) -> [PoolAction] {
        var actions: [PoolAction] = []
        for id in self.replicas.keys.sorted() {
            if case .ejected(let until) = self.replicas[id]?.state, until <= now {
                self.replicas[id]?.state = .probing
                actions.append(.describe(id))
            } else if let again = self.replicas[id]?.describeAgain, again <= now {
                self.replicas[id]?.describeAgain = nil
                actions.append(.describe(id))
            }
        }
        return actions
    }

    // MARK: - Calls

    /// Chooses a replica for a call and counts the call as out.
    ///
    /// - Parameters:
    ///   - pool: Name of the pool.
    ///   - excluded: Replicas that have been tried for this call.
    ///   - generator: Source of randomness.
    /// - Returns: The replica.
    ///   Fails where none serves, or where all have too many calls out.
    public mutating func startCall(
        in pool: String,
        excluding excluded: Set<ReplicaID> = [],
        using generator: inout some RandomNumberGenerator
    ) -> Result<ReplicaID, NoReplica> {
        let serving = self.replicas.filter { $0.key.pool == pool && $0.value.state == .serving }
            .keys.filter { !excluded.contains($0) }.sorted()
        guard !serving.isEmpty else { return .failure(.noneServing) }
        let free = serving.filter { self.outstanding($0) < self.configuration.outstandingPerReplica }
        guard !free.isEmpty else { return .failure(.allBusy) }
        var candidates = free
        if free.count > 2 {
            let first = Int.random(in: 0..<free.count, using: &generator)
            let step = Int.random(in: 1..<free.count, using: &generator)
            candidates = [free[first], free[(first + step) % free.count]]
        } else if free.count == 2, Bool.random(using: &generator) {
            candidates.reverse()
        }
        guard let chosen = candidates.min(by: { self.outstanding($0) < self.outstanding($1) }) else {
            return .failure(.noneServing)
        }
        self.replicas[chosen]?.outstanding += 1
        return .success(chosen)
    }

    /// A call was answered, and the answer is good.
    ///
    /// - Parameters:
    ///   - id: The replica.
    ///   - rows: Token rows of the call.
    ///   - time: From sending to the answer.
    public mutating func callSucceeded(_ id: ReplicaID, rows: Int, time: Duration) {
        guard self.replicas[id] != nil else { return }
        self.finishCall(id)
        let seconds = Double(time.components.seconds) + Double(time.components.attoseconds) * 1e-18
        let average = self.replicas[id]?.latencySeconds.map { 0.9 * $0 + 0.1 * seconds } ?? seconds
        self.replicas[id]?.latencySeconds = average
        self.replicas[id]?.succeeded += 1
        self.replicas[id]?.rows += UInt64(rows)
        self.replicas[id]?.failuresInARow = 0
        self.replicas[id]?.successesInARow += 1
        if let inARow = self.replicas[id]?.successesInARow, inARow >= self.configuration.successesToForgive {
            self.replicas[id]?.ejections = 0
        }
    }

    /// A call failed.
    ///
    /// - Parameters:
    ///   - id: The replica.
    ///   - failure: How.
    ///   - now: The present.
    /// - Returns: The replica's ejection, if this was one failure too many.
    public mutating func callFailed(
        _ id: ReplicaID,
        _ failure: CallFailure,
        now: ContinuousClock.Instant
    ) -> [PoolAction] {
        guard self.replicas[id] != nil else { return [] }
        self.finishCall(id)
        self.replicas[id]?.failed += 1
        // Shedding load is what a healthy host does under too much of it.
        guard failure != .overloaded else { return [] }
        self.replicas[id]?.failuresInARow += 1
        self.replicas[id]?.successesInARow = 0
        guard let replica = self.replicas[id], replica.state == .serving,
            replica.failuresInARow >= self.configuration.failuresToEject,
            failure == .deadline || self.hasServingSibling(of: id)
        else { return [] }
        let time = self.ejectionTime(id)
        self.eject(id, for: time, now: now)
        self.replicas[id]?.ejections += 1
        self.replicas[id]?.failuresInARow = 0
        return [.ejected(id, for: time, after: failure)]
    }

    /// A call was given up for a reason that says nothing about the replica.
    ///
    /// - Parameter id: The replica.
    public mutating func callCancelled(_ id: ReplicaID) {
        self.finishCall(id)
    }

    // MARK: - Inside

    private func outstanding(_ id: ReplicaID) -> Int {
        self.replicas[id]?.outstanding ?? 0
    }

    private mutating func finishCall(_ id: ReplicaID) {
        guard let outstanding = self.replicas[id]?.outstanding, outstanding > 0 else { return }
        self.replicas[id]?.outstanding = outstanding - 1
        if outstanding == 1, self.replicas[id]?.isLeaving == true { self.replicas[id] = nil }
    }

    /// Places the experts of a replica that has just joined on its pool.
    ///
    /// An expert that another pool already holds stays there. Where the replica holds less than its pool did, it is the
    /// only one that serves (``objection(to:from:)``), so the pool's placement is learned anew from it, and the experts
    /// that it does not have may be found elsewhere.
    private mutating func learnPlacement(from id: ReplicaID, _ description: ReplicaDescription) {
        let holdsAll = self.table.experts(of: id.pool)
            .allSatisfy { layer, experts in
                experts.isSubset(of: description.experts[layer] ?? [])
            }
        var teachers = [id]
        if !holdsAll {
            self.table.removeAll(of: id.pool)
            teachers += self.replicas.filter { $0.key != id && $0.value.state == .serving }.keys.sorted()
        }
        for teacher in teachers {
            for (layer, experts) in self.replicas[teacher]?.description?.experts ?? [:] {
                for expert in experts where self.table.pool(of: expert, in: layer) == nil {
                    self.table.place(expert, of: layer, on: teacher.pool)
                }
            }
        }
    }

    private mutating func eject(_ id: ReplicaID, for time: Duration, now: ContinuousClock.Instant) {
        self.replicas[id]?.state = .ejected(until: now.advanced(by: time))
        self.replicas[id]?.ejectedAt = now
    }

    private func hasServingSibling(of id: ReplicaID) -> Bool {
        self.replicas.contains { $0.key != id && $0.key.pool == id.pool && $0.value.state == .serving }
    }

    private func ejectionTime(_ id: ReplicaID) -> Duration {
        let doublings = min(self.replicas[id]?.ejections ?? 0, 16)
        return min(self.configuration.firstEjection * (1 << doublings), self.configuration.longestEjection)
    }

    /// Why a replica must not be used; nil where it may.
    private func objection(to description: ReplicaDescription, from id: ReplicaID) -> String? {
        func hex(_ value: UInt64) -> String {
            let digits = String(value, radix: 16)
            return String(repeating: "0", count: 16 - digits.count) + digits
        }
        guard description.fingerprint == self.fingerprint else {
            return "it serves the model \(hex(description.fingerprint)), but this gateway serves "
                + "\(hex(self.fingerprint)): start it with a shard of the same checkpoint"
        }
        guard description.modelWidth == self.modelWidth else {
            return "its token rows are \(description.modelWidth) wide, but this model's are \(self.modelWidth)"
        }
        if !self.isPlacementGiven {
            guard description.experts.contains(where: { !$0.value.isEmpty }) else { return "it holds no experts" }
            // Alone it may teach its pool another placement; beside others that serve it must fit theirs.
            guard self.hasServingSibling(of: id) else { return nil }
        }
        for (layer, experts) in self.table.experts(of: id.pool).sorted(by: { $0.key < $1.key }) {
            let missing = experts.subtracting(description.experts[layer] ?? [])
            guard missing.isEmpty else {
                let list = missing.sorted().map(String.init).joined(separator: ", ")
                return "it lacks experts \(list) of layer \(layer), which the placement puts on \(id.pool)"
            }
        }
        return nil
    }
}
