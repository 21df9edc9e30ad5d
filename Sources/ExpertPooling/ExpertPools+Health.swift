// SPDX-License-Identifier: Apache-2.0

internal import RPCCore

// Who is left alone, for how long, and who never.
//
// **Ejection.** Failures in a row, bad replies, calls that others answered first after a hedge, and calls that take much
// longer than a sibling's eject a replica for a time that doubles with each ejection, until many successes in a row are
// taken for health. A probe (the question what it holds) must be answered before it gets calls again.
//
// **Never everyone.** Nobody is ejected when no other replica of its pool serves: a failing host is better than none. For
// slowness, at most half of a pool's replicas are out at a time. Where the last one that served is lost, those that were
// left alone are used again at once. Deadline misses are the exception: waiting for a stalled
// host costs every sequence of every step a whole deadline, so such a host is left alone even if it is the last, and its
// tokens are dropped at once until a probe is answered; a pool without anyone is probed every two seconds or oftener.
extension ExpertPools {
    /// A call was answered, and the answer is good.
    mutating func attemptSucceeded(
        _ slot: Int,
        rows: Int,
        call: CallClass,
        time: Duration,
        now: ContinuousClock.Instant
    ) -> [PoolAction] {
        self.finishAttempt(slot)
        guard !self.replicas[slot].isLeaving else { return [] }
        let pool = self.replicas[slot].pool
        self.pools[pool].times[call.index].add(time)
        self.pools[pool].retryBudget.succeeded()
        let seconds = time.seconds
        self.replicas[slot].latencySeconds =
            self.replicas[slot].latencySeconds.map { 0.9 * $0 + 0.1 * seconds } ?? seconds
        self.replicas[slot].succeeded += 1
        self.replicas[slot].rows += UInt64(rows)
        self.replicas[slot].failuresInARow = 0
        self.replicas[slot].badRepliesInARow = 0
        self.replicas[slot].overtakesInARow = 0
        self.replicas[slot].successesInARow += 1
        if self.replicas[slot].successesInARow >= self.configuration.successesToForgive {
            self.replicas[slot].ejections = 0
        }
        self.noteTime(slot, call, seconds)
        return self.ejectIfSlow(slot, call, now: now)
    }

    /// A call failed.
    ///
    /// - Returns: The replica's ejection, if this was one failure too many.
    mutating func attemptFailed(
        _ slot: Int,
        _ failure: CallFailure,
        call: CallClass,
        time: Duration,
        now: ContinuousClock.Instant
    ) -> [PoolAction] {
        self.finishAttempt(slot)
        guard !self.replicas[slot].isLeaving else { return [] }
        let pool = self.replicas[slot].pool
        self.replicas[slot].failed += 1
        self.pools[pool].retryBudget.failed()
        // So long it took at least: percentiles that forgot such calls would be those of the lucky.
        if failure == .deadline { self.pools[pool].times[call.index].add(time) }
        // Shedding load is what a healthy host does under too much of it.
        guard failure != .overloaded else { return [] }
        self.replicas[slot].failuresInARow += 1
        self.replicas[slot].successesInARow = 0
        if failure == .badReply { self.replicas[slot].badRepliesInARow += 1 }
        let isTooMany =
            self.replicas[slot].failuresInARow >= self.configuration.failuresToEject
            || self.replicas[slot].badRepliesInARow >= self.configuration.badRepliesToEject
            // Out of an ejection only on trial: the next failure is one too many.
            || (self.replicas[slot].ejections > 0 && self.replicas[slot].failuresInARow > 1)
        guard isTooMany, self.replicas[slot].state == .ready,
            failure == .deadline || self.pools[pool].ready.count > 1
        else { return [] }
        return self.eject(slot, .failed(failure), now: now)
    }

    /// Another replica answered a call that this one had first; its own attempt is given up.
    mutating func attemptOvertaken(
        _ slot: Int,
        call: CallClass,
        time: Duration,
        now: ContinuousClock.Instant
    ) -> [PoolAction] {
        self.finishAttempt(slot)
        guard !self.replicas[slot].isLeaving else { return [] }
        let pool = self.replicas[slot].pool
        self.pools[pool].times[call.index].add(time)
        self.replicas[slot].overtakesInARow += 1
        self.replicas[slot].successesInARow = 0
        let limit =
            self.replicas[slot].ejections > 0
            ? min(3, self.configuration.overtakesToEject) : self.configuration.overtakesToEject
        guard self.replicas[slot].overtakesInARow >= limit, self.mayEjectForSlowness(slot) else { return [] }
        return self.eject(slot, .overtaken, now: now)
    }

    /// A call was given up for a reason that says nothing about the replica.
    mutating func attemptCancelled(_ slot: Int) {
        self.finishAttempt(slot)
    }

    /// The replica pushed back: it wants no calls before that time.
    mutating func pushedBack(_ slot: Int, until: ContinuousClock.Instant) {
        self.replicas[slot].notBefore = max(self.replicas[slot].notBefore ?? until, until)
    }

    /// A replica said that it is leaving: it finishes the calls it has.
    ///
    /// - Parameters:
    ///   - id: The replica.
    ///   - now: The present.
    /// - Returns: That it is draining, if it was ready until now.
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

    private mutating func finishAttempt(_ slot: Int) {
        guard self.replicas[slot].outstanding > 0 else { return }
        self.replicas[slot].outstanding -= 1
        self.forgetIfDone(slot)
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
        self.replicas[slot].overtakesInARow = 0
        self.replicas[slot].ejectedAt = now
        self.replicas[slot].isStalled = reason == .failed(.deadline)
        self.setState(slot, .ejected(until: now.advanced(by: time)), now: now)
        return [.ejected(self.replicas[slot].id, for: time, reason)]
    }

    private mutating func noteTime(_ slot: Int, _ call: CallClass, _ seconds: Double) {
        let samples = self.replicas[slot].classSamples[call.index]
        let average = self.replicas[slot].classSeconds[call.index]
        self.replicas[slot].classSamples[call.index] = samples + 1
        guard samples > 0 else {
            self.replicas[slot].classSeconds[call.index] = seconds
            return
        }
        // One stall must not look like a slow host: an average moves by a bounded step.
        let bounded = min(seconds, 4 * average + 0.001)
        self.replicas[slot].classSeconds[call.index] = average + 0.1 * (bounded - average)
    }

    private mutating func ejectIfSlow(_ slot: Int, _ call: CallClass, now: ContinuousClock.Instant) -> [PoolAction] {
        let needed = self.configuration.samplesToBelieve
        guard self.configuration.slownessToEject > 0, self.replicas[slot].classSamples[call.index] >= needed,
            self.mayEjectForSlowness(slot)
        else { return [] }
        var fastest: Double?
        for sibling in self.pools[self.replicas[slot].pool].ready
        where sibling != slot && self.replicas[sibling].classSamples[call.index] >= needed {
            let seconds = self.replicas[sibling].classSeconds[call.index]
            fastest = min(fastest ?? seconds, seconds)
        }
        let own = self.replicas[slot].classSeconds[call.index]
        guard let fastest, own > fastest * self.configuration.slownessToEject,
            own > fastest + self.configuration.slownessMargin.seconds
        else { return [] }
        return self.eject(slot, .slow, now: now)
    }

    /// A slow host is still a host: half of a pool at least is kept.
    private func mayEjectForSlowness(_ slot: Int) -> Bool {
        guard self.replicas[slot].state == .ready else { return false }
        let pool = self.pools[self.replicas[slot].pool]
        let out = pool.members.count - pool.ready.count
        return pool.ready.count > 1 && out + 1 <= pool.members.count / 2
    }
}
