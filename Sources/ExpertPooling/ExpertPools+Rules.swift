// SPDX-License-Identifier: Apache-2.0

internal import RPCCore
internal import SwitchyardTypes

// What must hold of the counts and lists of the pools after every event.
extension ExpertPools {
    /// Attempts that are counted as in flight, at replicas that have left too.
    package var openAttempts: Int { self.slots.values.reduce(0) { $0 + self.replicas[$1].outstanding } }

    func countsBroken() -> String? {
        if Set(self.freeSlots).count != self.freeSlots.count { return "a slot is free twice" }
        for (id, slot) in self.slots {
            if self.replicas[slot].id != id { return "\(id) is looked up as \(self.replicas[slot].id)" }
            if self.freeSlots.contains(slot) { return "the slot of \(id) is free" }
        }
        if self.slots.count + self.freeSlots.count != self.replicas.count {
            return
                "\(self.replicas.count) slots hold \(self.slots.count) replicas, and \(self.freeSlots.count) are free"
        }
        for (id, slot) in self.slots {
            if let broken = self.replicaBroken(self.replicas[slot], slot) { return "\(id) \(broken)" }
        }
        for pool in self.pools {
            if Set(pool.members).count != pool.members.count { return "pool \(pool.name) has a member twice" }
            if Set(pool.ready).count != pool.ready.count { return "pool \(pool.name) has a ready replica twice" }
            if pool.hedgeTokens < 0 || pool.hedgeTokens > self.configuration.hedgeBurst {
                return "pool \(pool.name) has \(pool.hedgeTokens) tokens for hedges"
            }
            let hedges = self.configuration.hedgeBurst + self.configuration.hedgeFraction * Double(pool.counts.calls)
            if Double(pool.counts.hedges) > hedges + 0.001 {
                return "pool \(pool.name) made \(pool.counts.hedges) hedges, but may make \(hedges)"
            }
            if pool.counts.hedgesWon > pool.counts.hedges { return "pool \(pool.name) won more hedges than it made" }
            if (pool.lostAt != nil) != (pool.ready.isEmpty && pool.lostAt != nil) {
                return "pool \(pool.name) is lost, but has \(pool.ready.count) ready replicas"
            }
            if let broken = self.homesBroken(of: pool) { return "pool \(pool.name): \(broken)" }
            if let broken = pool.retryBudget.checkInvariants() { return "pool \(pool.name): \(broken)" }
        }
        return nil
    }

    private func replicaBroken(_ replica: Replica, _ slot: Int) -> String? {
        if replica.outstanding < 0 || replica.outstandingRows < 0 {
            return "has \(replica.outstanding) attempts in flight"
        }
        if replica.outstanding > self.configuration.outstandingPerReplica {
            return "has \(replica.outstanding) attempts in flight, over its limit"
        }
        if replica.outstanding == 0, replica.outstandingRows > 0 || replica.outstandingWork > 0 {
            return "has \(replica.outstandingRows) rows in flight without an attempt"
        }
        if replica.outstandingWork < replica.outstandingRows {
            return "has \(replica.outstandingRows) rows in flight that are \(replica.outstandingWork) of work"
        }
        let isMember = self.pools[replica.pool].members.contains(slot)
        if isMember == replica.isLeaving { return replica.isLeaving ? "is leaving and a member" : "is no member" }
        if replica.isLeaving, replica.outstanding == 0 { return "has left, but is kept" }
        switch replica.state {
        case .ready, .draining, .spare, .mismatched, .quarantined:
            if replica.description == nil { return "is \(replica.state.name), but has not described itself" }
            let isServing = replica.state == .ready || replica.state == .draining
            if isServing, replica.ejectedUntil != nil {
                return "is \(replica.state.name), and its ejection is not over"
            }
        case .ejected(let until):
            if replica.ejectedUntil.map({ $0 > until }) ?? false { return "is ejected for two times" }
        case .disconnected:
            if replica.describeAgain != nil { return "is disconnected, but will be asked to describe itself" }
        case .unverified, .probing: break
        }
        return nil
    }
}
