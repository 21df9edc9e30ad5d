// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

// Which replicas are ejected, for how long, and which never are.
//
// **Ejection.** Failures in a row, bad replies, calls that others answered first after a hedge, and calls that take much
// longer than a sibling's eject a replica for a time that doubles with each ejection, until enough successes in a row show
// that it has recovered. Before it gets calls again it must answer a probe (a describe call).
//
// **Never every replica.** A replica is not ejected if no other of its pool is ready: a failing host is better than none.
// For slowness, at most half of a pool's replicas are ejected at a time. When the last ready replica is lost, the ejected
// ones are used again at once. Missed deadlines are the exception: waiting for a stalled host costs every sequence of every
// step a whole deadline, so such a host is ejected even if it is the last one, and its tokens are dropped at once
// until it answers a probe; a pool without a ready replica is probed at least every two seconds.
//
// **On trial.** A host may answer probes and miss every call. After an ejection for missed deadlines, the first call decides: if
// it is missed too, the replica is ejected again for twice as long, up to `longestLastEjection` where it is its pool's last and
// `longestEjection` where it is not. So such a host costs one deadline per back-off, however it connects
// (`ExpertPools+Connections.swift`).
extension ExpertPools {
    /// Ejects the replica of an ended attempt, if it failed too often or is too slow.
    mutating func ejection(after end: AttemptEnd) -> [PoolAction] {
        let replica = end.slot
        switch end.outcome {
        case .answered:
            return self.isTooSlow(replica, end.kind) ? self.eject(replica, .slow, now: end.ended) : []
        case .outOfTime, .cancelled:
            return []
        case .failed(.overloaded):
            // A healthy host answers some calls between those that it sheds. One that sheds all looks idle, and draws calls.
            let limit = self.configuration.shedsToEject
            let limitOnTrial = self.replicas[replica].ejections > 0 ? min(5, limit) : limit
            guard self.replicas[replica].shedsInARow >= limitOnTrial, self.mayEjectForSlowness(replica) else {
                return []
            }
            return self.eject(replica, .failed(.overloaded), now: end.ended)
        case .failed(.wrongReply):
            return self.quarantine(replica, now: end.ended)
        case .failed(let failure):
            guard self.hasFailedTooOften(replica), self.mayEject(replica, for: failure) else { return [] }
            return self.eject(replica, .failed(failure), now: end.ended)
        case .overtaken:
            let limit = self.configuration.overtakesToEject
            let limitOnTrial = self.replicas[replica].ejections > 0 ? min(3, limit) : limit
            guard self.replicas[replica].overtakesInARow >= limitOnTrial, self.mayEjectForSlowness(replica) else {
                return []
            }
            return self.eject(replica, .overtaken, now: end.ended)
        }
    }

    /// Records a pushback: the replica wants no calls before that time.
    mutating func pushedBack(_ slot: Int, until: ContinuousClock.Instant) {
        self.replicas[slot].notBefore = max(self.replicas[slot].notBefore ?? until, until)
    }

    /// Records that a replica is leaving: it finishes its calls in flight.
    ///
    /// - Parameters:
    ///   - id: The replica.
    ///   - now: The current time.
    /// - Returns: The event that it is draining, if it was ready until now.
    public mutating func draining(_ id: ReplicaID, now: ContinuousClock.Instant) -> [PoolAction] {
        guard let slot = self.slot(of: id), self.replicas[slot].state == .ready else { return [] }
        self.setState(slot, .draining, now: now)
        self.probeEjectedIfNoneIsReady(self.replicas[slot].pool)
        return [.draining(id)]
    }

    mutating func probeFailed(_ slot: Int, now: ContinuousClock.Instant) {
        self.replicas[slot].failedProbes += 1
        self.replicas[slot].isStalled = true
        if self.probeSpare(of: slot, now: now) { return }
        self.setState(slot, .ejected(until: now.advanced(by: self.probeWait(slot))), now: now)
    }

    /// How long after a probe without an answer the next one follows.
    func probeWait(_ slot: Int) -> Duration {
        let doublings = min(self.replicas[slot].failedProbes, 8)
        return min(self.configuration.firstEjection * (1 << doublings), self.configuration.longestProbeInterval)
    }

    /// When the last ready replica of a pool is lost, the back-off of the ejected ones ends at once.
    mutating func probeEjectedIfNoneIsReady(_ pool: Int) {
        guard self.pools[pool].ready.isEmpty else { return }
        for slot in self.pools[pool].members {
            guard case .ejected(let until) = self.replicas[slot].state, let since = self.replicas[slot].ejectedAt
            else { continue }
            let isRepeated = self.replicas[slot].isOnTrial && self.replicas[slot].ejections > 1
            let wait = isRepeated ? self.configuration.longestLastEjection : .zero
            self.replicas[slot].state = .ejected(until: min(until, since.advanced(by: wait)))
        }
    }

    // MARK: - Inside

    private func hasFailedTooOften(_ slot: Int) -> Bool {
        let failures = self.replicas[slot].failuresInARow
        return failures >= self.configuration.failuresToEject
            || self.replicas[slot].missesInARow >= self.configuration.failuresToEject
            || self.replicas[slot].badRepliesInARow >= self.configuration.badRepliesToEject
            // After an ejection the second failure in a row is one too many, and the first call if it is on trial.
            || (self.replicas[slot].ejections > 0 && failures > 1)
            || (self.replicas[slot].isOnTrial && self.replicas[slot].missesInARow > 0)
    }

    /// Whether a failure may eject a replica in its state.
    private func mayEject(_ slot: Int, for failure: CallFailure) -> Bool {
        switch self.replicas[slot].state {
        case .ready:
            failure == .deadline || self.pools[self.replicas[slot].pool].ready.count > 1
        case .disconnected, .unverified:
            // A deadline was missed on a connection that has gone since: it may not serve as soon as the next one is up.
            failure == .deadline && self.replicas[slot].ejectedUntil == nil
        case .ejected, .probing, .draining, .mismatched, .spare, .quarantined:
            false
        }
    }

    private mutating func eject(
        _ slot: Int,
        _ reason: EjectionReason,
        now: ContinuousClock.Instant
    ) -> [PoolAction] {
        let pool = self.replicas[slot].pool
        let doublings = min(self.replicas[slot].ejections, 16)
        var time = min(self.configuration.firstEjection * (1 << doublings), self.configuration.longestEjection)
        let isLast = self.pools[pool].ready.allSatisfy { $0 == slot }
        if isLast {
            let isRepeated = self.replicas[slot].isOnTrial && reason == .failed(.deadline)
            let configuration = self.configuration
            time = min(time, isRepeated ? configuration.longestLastEjection : configuration.longestProbeInterval)
        }
        self.replicas[slot].ejections += 1
        self.replicas[slot].ejectionCount += 1
        self.replicas[slot].failuresInARow = 0
        self.replicas[slot].badRepliesInARow = 0
        self.replicas[slot].missesInARow = 0
        self.replicas[slot].shedsInARow = 0
        self.replicas[slot].overtakesInARow = 0
        self.replicas[slot].ejectedAt = now
        self.replicas[slot].isStalled = reason == .failed(.deadline)
        self.replicas[slot].isOnTrial = self.replicas[slot].isOnTrial || reason == .failed(.deadline)
        if self.replicas[slot].state == .ready {
            self.setState(slot, .ejected(until: now.advanced(by: time)), now: now)
        } else {
            self.replicas[slot].ejectedUntil = now.advanced(by: time)
        }
        return [.ejected(self.replicas[slot].id, for: time, reason)]
    }

    private func isTooSlow(_ slot: Int, _ call: CallClass) -> Bool {
        let needed = self.configuration.samplesToBelieve
        guard self.configuration.slownessToEject > 0, self.replicas[slot].classSamples[call.index] >= needed,
            self.mayEjectForSlowness(slot)
        else { return false }
        var fastest: Double?
        for sibling in self.pools[self.replicas[slot].pool].ready
        where sibling != slot && self.replicas[sibling].classSamples[call.index] >= needed {
            let seconds = self.replicas[sibling].classSeconds[call.index]
            fastest = min(fastest ?? seconds, seconds)
        }
        guard let fastest else { return false }
        let own = self.replicas[slot].classSeconds[call.index]
        return own > fastest * self.configuration.slownessToEject
            && own > fastest + self.configuration.slownessMargin.inSeconds
    }

    /// A slow host is better than none: at least half of a pool is kept.
    private func mayEjectForSlowness(_ slot: Int) -> Bool {
        guard self.replicas[slot].state == .ready else { return false }
        let pool = self.pools[self.replicas[slot].pool]
        // Spare addresses are none of its replicas.
        let members = pool.members.count { if case .spare = self.replicas[$0].state { false } else { true } }
        let out = members - pool.ready.count
        return pool.ready.count > 1 && out + 1 <= members / 2
    }
}
