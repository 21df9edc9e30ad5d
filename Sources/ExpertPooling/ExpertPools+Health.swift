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
extension ExpertPools {
    /// Ejects the replica of an ended attempt, if it failed too often or is too slow.
    mutating func ejection(after end: AttemptEnd) -> [PoolAction] {
        let replica = end.slot
        switch end.outcome {
        case .answered:
            return self.isTooSlow(replica, end.kind) ? self.eject(replica, .slow, now: end.ended) : []
        case .failed(.overloaded), .outOfTime, .cancelled:
            return []
        case .failed(let failure):
            guard self.hasFailedTooOften(replica), self.replicas[replica].state == .ready,
                failure == .deadline || self.pools[self.replicas[replica].pool].ready.count > 1
            else { return [] }
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
        let doublings = min(self.replicas[slot].failedProbes, 8)
        let wait = min(self.configuration.firstEjection * (1 << doublings), self.configuration.longestProbeInterval)
        self.setState(slot, .ejected(until: now.advanced(by: wait)), now: now)
    }

    /// When the last ready replica of a pool is lost, the back-off of the ejected ones ends at once.
    mutating func probeEjectedIfNoneIsReady(_ pool: Int) {
        guard self.pools[pool].ready.isEmpty else { return }
        for slot in self.pools[pool].members {
            guard case .ejected = self.replicas[slot].state, let since = self.replicas[slot].ejectedAt else { continue }
            self.replicas[slot].state = .ejected(until: since)
        }
    }

    // MARK: - Inside

    private func hasFailedTooOften(_ slot: Int) -> Bool {
        let failures = self.replicas[slot].failuresInARow
        return failures >= self.configuration.failuresToEject
            || self.replicas[slot].missesInARow >= self.configuration.failuresToEject
            || self.replicas[slot].badRepliesInARow >= self.configuration.badRepliesToEject
            // After an ejection it is on trial: the next failure in a row is one too many.
            || (self.replicas[slot].ejections > 0 && failures > 1)
    }

    private mutating func eject(
        _ slot: Int,
        _ reason: EjectionReason,
        now: ContinuousClock.Instant
    ) -> [PoolAction] {
        let pool = self.replicas[slot].pool
        let doublings = min(self.replicas[slot].ejections, 16)
        var time = min(self.configuration.firstEjection * (1 << doublings), self.configuration.longestEjection)
        if self.pools[pool].ready.count == 1 { time = min(time, self.configuration.longestProbeInterval) }
        self.replicas[slot].ejections += 1
        self.replicas[slot].ejectionCount += 1
        self.replicas[slot].failuresInARow = 0
        self.replicas[slot].badRepliesInARow = 0
        self.replicas[slot].missesInARow = 0
        self.replicas[slot].overtakesInARow = 0
        self.replicas[slot].ejectedAt = now
        self.replicas[slot].isStalled = reason == .failed(.deadline)
        self.setState(slot, .ejected(until: now.advanced(by: time)), now: now)
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
        let out = pool.members.count - pool.ready.count
        return pool.ready.count > 1 && out + 1 <= pool.members.count / 2
    }
}
