// SPDX-License-Identifier: Apache-2.0

public import SwitchyardTypes

// Replicas that gave other bits than they should, and how they serve again.
//
// **Audits.** An expert's output is the same bits on every replica, processor and placement, so two answers to one call are
// compared exactly (``LayerCalls``, `LayerCalls+Audit.swift`). A replica whose answer a third opinion refutes is caught.
//
// **Quarantine.** A caught replica gets no calls whose answers are used, even if it is its pool's last: dropped rows are
// counted, wrong ones are not. That outlives connections, and a restart under the same weights: a damaged file or processor is
// still damaged. It serves again when it has proved itself: it must answer the call that it got wrong, and then as many
// calls of its pool, sent to it beside the replica that serves them, as the configuration says, all with the right bits. Where
// none serves, it answers the first call as many times instead, or its pool would never be back. A wrong proof starts it all anew, after a wait that doubles.
//
// **Disputes.** Where two replicas differ and there is no third opinion, nothing says which of them is right. Then
// every call of the pool is audited, and the rows on which they differ are dropped.
extension ExpertPools {
    /// What a caught replica has still to prove.
    struct Quarantine: Sendable, Equatable {
        /// Wrong answers since it last served, proofs included.
        var catches = 0
        /// Proofs in a row with the right bits since the last wrong answer.
        var proofs = 0
        /// When it is sent the call that it got wrong; nil once it has answered that with the right bits.
        var evidenceAt: ContinuousClock.Instant?
        /// Whether a proof is in flight.
        var isProving = false
    }

    /// How a proof of a caught replica ended.
    public enum ProofResult: Int, Sendable, Hashable, CaseIterable {
        /// It answered with the right bits.
        case right
        /// It answered with other bits.
        case wrong
        /// It did not answer, or not with rows.
        case failed
    }

    /// Whether a replica has been caught and has not proved itself since.
    func isQuarantined(_ slot: Int) -> Bool { self.replicas[slot].quarantine != nil }

    /// The type in which a pool's replicas keep weights.
    ///
    /// - Parameter name: The pool.
    /// - Returns: What the first that has described itself says.
    public func weightType(of name: String) -> DType? {
        self.replicas.first { $0.id.pool == name && !$0.isLeaving && $0.description != nil }?.description?.weightType
    }

    /// Draws whether a call is audited.
    ///
    /// - Parameter pool: Index of the pool.
    /// - Returns: True for the configured fraction of calls, and for all while the pool's replicas are in dispute.
    mutating func drawsAudit(in pool: Int) -> Bool {
        guard !self.pools[pool].isDisputed else { return true }
        let fraction = self.configuration.auditFraction
        guard fraction > 0 else { return false }
        return fraction >= 1 || Double.random(in: 0..<1, using: &self.auditRandom) < fraction
    }

    /// Chooses a second replica for an audited call, as if it were a first one, and counts the call as in flight.
    ///
    /// - Parameters:
    ///   - pool: Index of the pool.
    ///   - first: A slot that has the call; the witness keeps weights in the same type, or their bits would differ rightly.
    ///   - excluded: Slots that have been tried for this call.
    ///   - load: What the call asks for.
    ///   - now: The current time.
    /// - Returns: The replica's slot; nil if there is none that is ready and free.
    mutating func startWitness(
        in pool: Int,
        like first: Int,
        excluding excluded: ShortList<Int>,
        load: CallLoad,
        now: ContinuousClock.Instant
    ) -> Int? {
        let type = self.replicas[first].description?.weightType
        let others = self.pools[pool].ready
            .filter { !excluded.contains($0) && self.replicas[$0].description?.weightType == type }
        guard case .success(let slot) = self.startOne(of: others, load: load, now: now) else { return nil }
        return slot
    }

    /// The caught replica that is to answer a call beside the one that serves it; at most one proof is in flight to each.
    ///
    /// - Parameters:
    ///   - pool: Index of the pool.
    ///   - winner: Slot of the replica whose answer was taken.
    /// - Returns: The replica; nil if none of the pool has something to prove with new calls.
    mutating func takeProof(in pool: Int, like winner: Int?) -> ReplicaID? {
        for slot in self.pools[pool].members where self.replicas[slot].state == .quarantined {
            guard let quarantine = self.replicas[slot].quarantine, quarantine.evidenceAt == nil, !quarantine.isProving
            else { continue }
            let type = self.replicas[slot].description?.weightType
            if let winner, self.replicas[winner].description?.weightType != type { continue }
            self.replicas[slot].quarantine?.isProving = true
            return self.replicas[slot].id
        }
        return nil
    }

    /// Records how a caught replica answered a proof.
    ///
    /// - Parameters:
    ///   - id: The replica.
    ///   - result: How it answered.
    ///   - now: The current time.
    /// - Returns: That it has proved itself and is asked to describe itself, if this was the last proof that it needed.
    public mutating func proofEnded(
        _ id: ReplicaID,
        _ result: ProofResult,
        now: ContinuousClock.Instant
    ) -> [PoolAction] {
        guard let slot = self.slot(of: id), var quarantine = self.replicas[slot].quarantine, quarantine.isProving
        else { return [] }
        quarantine.isProving = false
        self.pools[self.replicas[slot].pool].counts.audits.proofs[result.rawValue] += 1
        switch result {
        case .right:
            quarantine.proofs += 1
            // Where no sibling serves, there are no calls to answer beside it: the same call is answered again.
            let isAlone = self.pools[self.replicas[slot].pool].ready.isEmpty
            quarantine.evidenceAt = isAlone ? now.advanced(by: self.configuration.firstEjection) : nil
        case .wrong:
            quarantine.catches += 1
            quarantine.proofs = 0
            quarantine.evidenceAt = now.advanced(by: self.quarantineWait(quarantine))
        case .failed:
            quarantine.evidenceAt = now.advanced(by: self.configuration.longestProbeInterval)
        }
        self.replicas[slot].quarantine = quarantine
        guard quarantine.proofs >= self.configuration.proofsToServe, self.replicas[slot].state == .quarantined
        else { return [] }
        // Verified anew, as after a connection: its pool may have changed meanwhile.
        self.replicas[slot].quarantine = nil
        self.setState(slot, .unverified, now: now)
        return [.cleared(id), .describe(id)]
    }

    /// Takes a replica out of service that gave wrong rows.
    mutating func quarantine(_ slot: Int, now: ContinuousClock.Instant) -> [PoolAction] {
        var quarantine = self.replicas[slot].quarantine ?? Quarantine()
        quarantine.catches += 1
        quarantine.proofs = 0
        quarantine.evidenceAt = now.advanced(by: self.quarantineWait(quarantine))
        self.replicas[slot].quarantine = quarantine
        self.replicas[slot].quarantineCount += 1
        self.pools[self.replicas[slot].pool].isDisputed = false
        switch self.replicas[slot].state {
        case .ready, .ejected, .probing:
            self.replicas[slot].ejectedUntil = nil
            self.setState(slot, .quarantined, now: now)
            self.probeEjectedIfNoneIsReady(self.replicas[slot].pool)
        case .disconnected, .unverified, .draining, .mismatched, .spare, .quarantined:
            break
        }
        return [.quarantined(self.replicas[slot].id)]
    }

    /// Puts a replica back into quarantine that has described itself.
    ///
    /// - Parameters:
    ///   - slot: The replica.
    ///   - isRestarted: Whether another process is at its address: it starts with the call that the last one got wrong.
    ///   - now: The current time.
    mutating func resumeQuarantine(_ slot: Int, isRestarted: Bool, now: ContinuousClock.Instant) {
        self.replicas[slot].quarantine?.isProving = false
        if isRestarted {
            self.replicas[slot].quarantine?.proofs = 0
            self.replicas[slot].quarantine?.evidenceAt = now
        }
        self.replicas[slot].ejectedUntil = nil
        self.setState(slot, .quarantined, now: now)
    }

    /// The last ready replica of a pool is lost: caught ones prove themselves with the call that they got wrong alone.
    mutating func repeatEvidence(in pool: Int, now: ContinuousClock.Instant) {
        for slot in self.pools[pool].members
        where self.replicas[slot].quarantine.map({ $0.evidenceAt == nil && !$0.isProving }) ?? false {
            self.replicas[slot].quarantine?.evidenceAt = now.advanced(by: self.configuration.firstEjection)
        }
    }

    /// Counts the end of an audit.
    mutating func noteAudit(in pool: Int, _ result: AuditResult, rows: Int) {
        self.pools[pool].counts.audits[result] += 1
        if result != .unfinished, result != .unwitnessed { self.pools[pool].counts.audits.rows += UInt64(rows) }
        // Another opinion has settled it.
        if result == .caught { self.pools[pool].isDisputed = false }
    }

    /// Counts a call that the runner computes again.
    mutating func noteRecomputed(in pool: Int) { self.pools[pool].counts.audits.recomputed += 1 }

    /// Records that two replicas of a pool differ and nothing says which is right.
    ///
    /// - Parameter pool: Index of the pool.
    /// - Returns: The event, if they were not in dispute.
    mutating func noteDispute(in pool: Int) -> [PoolAction] {
        guard !self.pools[pool].isDisputed, self.pools[pool].ready.count > 1 else { return [] }
        self.pools[pool].isDisputed = true
        return [.disputed(pool: self.pools[pool].name)]
    }

    private func quarantineWait(_ quarantine: Quarantine) -> Duration {
        let doublings = min(max(quarantine.catches - 1, 0), 16)
        return min(self.configuration.firstEjection * (1 << doublings), self.configuration.longestEjection)
    }
}

extension ExpertPools.Replica {
    /// When a caught replica is sent the call that it got wrong; nil if that is not due at any time.
    var evidenceDue: ContinuousClock.Instant? {
        guard let quarantine = self.quarantine, !quarantine.isProving else { return nil }
        return quarantine.evidenceAt
    }
}

/// How an audit of a call ended.
public enum AuditResult: Int, Sendable, Hashable, CaseIterable {
    /// All opinions have the same bits.
    case agreed
    /// A third opinion, or the gateway's own, refuted one.
    case caught
    /// Two replicas differ and there is no third opinion: the rows on which they differ are dropped.
    case disputed
    /// The second opinion did not come in time; the first one was used.
    case unfinished
    /// There was no second opinion to be had.
    case unwitnessed
}

/// Counts of one pool's audits since the start.
public struct AuditCounts: Sendable, Equatable {
    private var results = [UInt64](repeating: 0, count: AuditResult.allCases.count)
    /// Token rows that were compared.
    public internal(set) var rows: UInt64 = 0
    /// Audited calls that the gateway computed again.
    public internal(set) var recomputed: UInt64 = 0
    /// Proofs of caught replicas, by ``ExpertPools/ProofResult``.
    public internal(set) var proofs = [UInt64](repeating: 0, count: ExpertPools.ProofResult.allCases.count)

    /// Creates counts of zero.
    public init() {}

    /// How many audits ended in one way.
    public internal(set) subscript(result: AuditResult) -> UInt64 {
        get { self.results[result.rawValue] }
        set { self.results[result.rawValue] = newValue }
    }
}
