// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

// Membership, connections and descriptions.
//
// **What a connection does not end.** An ejection and a count of failures belong to the address, not to a connection: one that
// is lost and made again ends neither, or a host that takes connections, ends them and never answers would never be
// ejected. Only a good answer does: to a call, or to a probe once the back-off is over. A replica that leaves its pool and
// is found again is remembered, too.
//
// **Another process.** A host that was restarted has another instance id. What its predecessor did says little about it, so
// failures, bad replies and times start anew, and its back-off is as short as for a first ejection. Missed deadlines and the
// number of ejections stay with the address, and each restart before a hundred good answers doubles the back-off again, so
// that a process that stalls and restarts gains nothing by it.
extension ExpertPools {
    /// Adds a replica, which has no connection yet.
    ///
    /// - Parameter id: The replica; a known one is unchanged.
    public mutating func added(_ id: ReplicaID) {
        if let slot = self.slots[id] {
            if self.replicas[slot].isLeaving {
                self.replicas[slot].isLeaving = false
                self.recall(slot)
                self.pools[self.replicas[slot].pool].members.append(slot)
            }
            return
        }
        let pool = self.poolIndex(of: id.pool)
        let replica = Replica(id: id, pool: pool)
        let slot: Int
        if let free = self.freeSlots.popLast() {
            self.replicas[free] = replica
            slot = free
        } else {
            slot = self.replicas.count
            self.replicas.append(replica)
        }
        self.slots[id] = slot
        self.recall(slot)
        self.pools[pool].members.append(slot)
    }

    /// Removes a replica; calls in flight may still be answered.
    ///
    /// - Parameters:
    ///   - id: The replica.
    ///   - now: The current time.
    public mutating func removed(_ id: ReplicaID, now: ContinuousClock.Instant) {
        guard let slot = self.slots[id], !self.replicas[slot].isLeaving else { return }
        self.leaveConnection(slot, now: now)
        self.remember(slot, now: now)
        self.pools[self.replicas[slot].pool].members.removeAll { $0 == slot }
        // A replica that is added again meanwhile must not exceed its limit of calls.
        var replica = Replica(id: id, pool: self.replicas[slot].pool)
        replica.outstanding = self.replicas[slot].outstanding
        replica.outstandingRows = self.replicas[slot].outstandingRows
        replica.outstandingWork = self.replicas[slot].outstandingWork
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
        self.leaveConnection(slot, now: now)
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
    /// - Returns: Whether it is ready, mismatched, or another address of a process that is known; nothing if an ejection
    ///   lasts longer.
    public mutating func described(
        _ id: ReplicaID,
        _ description: ReplicaDescription,
        now: ContinuousClock.Instant
    ) -> [PoolAction] {
        guard let slot = self.slots[id] else { return [] }
        switch self.replicas[slot].state {
        case .unverified: break
        case .probing: self.replicas[slot].probeAnswered()
        case .disconnected, .ready, .ejected, .draining, .mismatched, .spare, .quarantined: return []
        }
        self.replicas[slot].description = description
        // An address may be known under another name elsewhere, a process is not.
        self.replicas[slot].identity = ExpertAffinity.identity(description.instance ?? id.address)
        self.replicas[slot].describeAgain = nil
        self.replicas[slot].failedDescribes = 0
        self.replicas[slot].trouble = nil
        let isRestarted = self.recognise(slot, description.instance, now: now)
        if let reason = self.objection(to: description, from: slot) {
            self.setState(slot, .mismatched(reason), now: now)
            return [.mismatched(id, reason: reason)]
        }
        if let first = self.holder(of: description.instance, in: self.replicas[slot].pool, besides: slot) {
            let known = self.replicas[first].id
            self.setState(slot, .spare(of: known), now: now)
            return [.spare(id, of: known)]
        }
        if self.isQuarantined(slot) {
            self.resumeQuarantine(slot, isRestarted: isRestarted, now: now)
            return []
        }
        if let until = self.replicas[slot].ejectedUntil, until > now {
            self.replicas[slot].ejectedUntil = nil
            self.setState(slot, .ejected(until: until), now: now)
            return []
        }
        self.replicas[slot].ejectedUntil = nil
        self.setState(slot, .ready, now: now)
        if self.learnsPlacement {
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
    ///   - trouble: Why, for people.
    ///   - now: The current time.
    public mutating func describeFailed(_ id: ReplicaID, _ trouble: String = "", now: ContinuousClock.Instant) {
        guard let slot = self.slots[id] else { return }
        switch self.replicas[slot].state {
        case .unverified:
            let doublings = min(self.replicas[slot].failedDescribes, 8)
            let wait = min(
                self.configuration.describeRetry * (1 << doublings),
                self.configuration.longestProbeInterval
            )
            self.replicas[slot].failedDescribes += 1
            self.replicas[slot].trouble = trouble
            self.replicas[slot].describeAgain = now.advanced(by: wait)
        case .probing:
            self.replicas[slot].trouble = trouble
            self.probeFailed(slot, now: now)
        case .disconnected, .ready, .ejected, .draining, .mismatched, .spare, .quarantined:
            break
        }
    }

    /// The earliest time at which ``timerFired(now:)`` has something to do.
    public var nextTimer: ContinuousClock.Instant? {
        var earliest: ContinuousClock.Instant?
        // By index: copying each replica would cost more than the rest of a step.
        for slot in self.replicas.indices where !self.replicas[slot].isLeaving {
            var time = self.replicas[slot].describeAgain
            switch self.replicas[slot].state {
            case .ejected(let until): time = until
            case .quarantined: time = self.replicas[slot].evidenceDue
            default: break
            }
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
        var proofs: [ReplicaID] = []
        for slot in self.replicas.indices where !self.replicas[slot].isLeaving {
            if case .ejected(let until) = self.replicas[slot].state, until <= now {
                self.replicas[slot].state = .probing
                due.append(self.replicas[slot].id)
            } else if self.replicas[slot].state == .quarantined, let time = self.replicas[slot].evidenceDue, time <= now
            {
                self.replicas[slot].quarantine?.isProving = true
                proofs.append(self.replicas[slot].id)
            } else if let again = self.replicas[slot].describeAgain, again <= now {
                self.replicas[slot].describeAgain = nil
                due.append(self.replicas[slot].id)
            }
        }
        return due.sorted().map { .describe($0) } + proofs.sorted().map { .proveEvidence($0) }
    }

    // MARK: - Inside

    /// Ends a replica's connection, but not its ejection.
    private mutating func leaveConnection(_ slot: Int, now: ContinuousClock.Instant) {
        switch self.replicas[slot].state {
        case .ejected(let until):
            self.replicas[slot].ejectedUntil = until
        case .probing:
            self.replicas[slot].failedProbes += 1
            self.replicas[slot].ejectedUntil = now.advanced(by: self.probeWait(slot))
        case .disconnected, .unverified, .ready, .draining, .mismatched, .spare, .quarantined:
            break
        }
        self.replicas[slot].quarantine?.isProving = false
        self.setState(slot, .disconnected, now: now)
        self.replicas[slot].describeAgain = nil
        self.replicas[slot].notBefore = nil
        self.replicas[slot].description = nil
        self.replicas[slot].trouble = nil
        self.replicas[slot].forgetSpeed()
    }

    /// Compares a replica's instance id with the last one at its address.
    ///
    /// - Returns: Whether it is another process than the last one there.
    private mutating func recognise(_ slot: Int, _ instance: String?, now: ContinuousClock.Instant) -> Bool {
        guard let instance else { return false }
        defer { self.replicas[slot].instance = instance }
        guard let last = self.replicas[slot].instance else {
            self.recallQuarantine(of: instance, at: slot)
            return false
        }
        guard last != instance else { return false }
        if self.replicas[slot].state.holdsInstance {
            self.promoteSpare(of: slot, which: self.replicas[slot].state, now: now)
        }
        self.replicas[slot].failuresInARow = 0
        self.replicas[slot].badRepliesInARow = 0
        self.replicas[slot].shedsInARow = 0
        self.replicas[slot].failedProbes = 0
        let wait = min(
            self.configuration.firstEjection * (1 << min(self.replicas[slot].restarts, 16)),
            self.configuration.longestEjection
        )
        self.replicas[slot].restarts += 1
        if let until = self.replicas[slot].ejectedUntil, let since = self.replicas[slot].ejectedAt {
            self.replicas[slot].ejectedUntil = min(until, since.advanced(by: wait))
        }
        return true
    }

    /// A process that was caught at an address that has left is the same one at another.
    private mutating func recallQuarantine(of instance: String, at slot: Int) {
        guard !self.isQuarantined(slot) else { return }
        let pool = self.replicas[slot].id.pool
        let caught = self.departed.first { $0.key.pool == pool && $0.value.instance == instance }
        self.replicas[slot].quarantine = caught?.value.record.quarantine
    }

    /// Keeps what is held against a replica that leaves its pool.
    private mutating func remember(_ slot: Int, now: ContinuousClock.Instant) {
        self.departed = self.departed.filter {
            $0.value.record.quarantine != nil
                || $0.value.leftAt.duration(to: now) <= self.configuration.longestEjection
        }
        let replica = self.replicas[slot]
        guard replica.ejections > 0 || replica.missesInARow > 0 || replica.quarantine != nil,
            self.departed.count < Departed.limit
        else { return }
        self.departed[replica.id] = Departed(record: replica.record, instance: replica.instance, leftAt: now)
    }

    private mutating func recall(_ slot: Int) {
        guard let departed = self.departed.removeValue(forKey: self.replicas[slot].id) else { return }
        self.replicas[slot].record = departed.record
    }
}
