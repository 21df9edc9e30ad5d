// SPDX-License-Identifier: Apache-2.0

// Several addresses of one process: a host with an A and an AAAA record, or with two names.
//
// Addresses whose descriptions have one instance id are one replica of the pool with spare addresses. One of them, the first
// that was verified, gets the calls, and the others are `spare`: they count neither as ready nor as a place for hedges and
// retries, which would end where the first attempt did. When the connection through the first is lost, or a probe through
// it has no answer, a spare address takes its place, with everything that is held against the process.
extension ReplicaState {
    /// Whether a replica in this state stands for its process: its other addresses are spare.
    var holdsInstance: Bool {
        switch self {
        case .ready, .ejected, .probing, .draining, .quarantined: true
        case .disconnected, .unverified, .mismatched, .spare: false
        }
    }
}

extension ExpertPools {
    /// The member of a pool that stands for a process.
    ///
    /// - Parameters:
    ///   - instance: The process's id; nil, from hosts that have none, stands for no process.
    ///   - pool: Index of the pool.
    ///   - slot: A member that is left out.
    /// - Returns: Its slot.
    func holder(of instance: String?, in pool: Int, besides slot: Int) -> Int? {
        guard let instance else { return nil }
        return self.pools[pool].members
            .first {
                $0 != slot && self.replicas[$0].state.holdsInstance && self.replicas[$0].instance == instance
            }
    }

    /// Lets a spare address take the place of one that no longer stands for the process.
    ///
    /// - Parameters:
    ///   - slot: The replica that has left its state.
    ///   - before: That state.
    ///   - now: The current time.
    mutating func promoteSpare(of slot: Int, which before: ReplicaState, now: ContinuousClock.Instant) {
        let pool = self.replicas[slot].pool
        guard let spare = self.spare(for: slot),
            self.holder(of: self.replicas[slot].instance, in: pool, besides: slot) == nil
        else { return }
        self.replicas[spare].inherit(self.replicas[slot].record)
        self.replicas[spare].ejectedUntil = nil
        switch before {
        // What it was caught with may have been cleared while it left; or the spare address was caught, and the other was not.
        case _ where self.isQuarantined(spare) && before != .draining: self.setState(spare, .quarantined, now: now)
        case .ready, .draining: self.setState(spare, before, now: now)
        case .ejected(let until): self.setState(spare, .ejected(until: until), now: now)
        default: self.setState(spare, .ejected(until: now), now: now)
        }
        self.renameSpares(of: spare)
    }

    /// Asks a spare address after a probe without an answer.
    ///
    /// - Parameters:
    ///   - slot: The replica that was probed.
    ///   - now: The current time.
    /// - Returns: Whether there is a spare address.
    mutating func probeSpare(of slot: Int, now: ContinuousClock.Instant) -> Bool {
        guard let spare = self.spare(for: slot) else { return false }
        self.replicas[spare].inherit(self.replicas[slot].record)
        self.replicas[spare].ejectedUntil = nil
        self.setState(spare, .ejected(until: now), now: now)
        self.setState(slot, .unverified, now: now)
        self.replicas[slot].describeAgain = now.advanced(by: self.configuration.longestProbeInterval)
        self.renameSpares(of: spare)
        return true
    }

    private func spare(for slot: Int) -> Int? {
        guard let instance = self.replicas[slot].instance else { return nil }
        return self.pools[self.replicas[slot].pool].members
            .first {
                guard $0 != slot, case .spare = self.replicas[$0].state else { return false }
                return self.replicas[$0].instance == instance
            }
    }

    private mutating func renameSpares(of slot: Int) {
        let first = self.replicas[slot]
        for member in self.pools[first.pool].members where self.replicas[member].instance == first.instance {
            if case .spare = self.replicas[member].state { self.replicas[member].state = .spare(of: first.id) }
        }
    }
}
