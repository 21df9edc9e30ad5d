// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

// The parts of a layer's rows that the replicas of a pool get, by ``ExpertAffinity``.
extension ExpertPools {
    /// Which replica is the home of each of a pool's experts, by layer.
    struct Homes: Sendable {
        /// The replicas and the placement that they were made from.
        var version: UInt64 = 0
        /// How many replicas share the experts.
        var replicas = 0
        /// Slots by layer and expert; -1 where the pool does not hold the expert as its own.
        var slots: [SparseLayer: [Int]] = [:]
    }

    /// How long what is known of a slow replica's speed counts, if it answers nothing: then it gets calls again to find out.
    static let speedMemory = Duration.seconds(1)

    /// Divides the rows of a pool among its replicas: one call for each that gets some.
    mutating func divide(
        _ assignment: PoolAssignment,
        in layer: SparseLayer,
        now: ContinuousClock.Instant,
        into calls: inout [PoolAssignment]
    ) {
        let pool = self.poolIndex(of: assignment.pool)
        guard self.pools[pool].ready.count > 1 else {
            calls.append(assignment)
            return
        }
        var seats = self.seats(in: pool, for: assignment, in: layer, now: now)
        guard seats.count > 1 else {
            calls.append(assignment)
            return
        }
        self.updateHomes(of: pool, in: layer)
        let homes = self.pools[pool].homes.slots[layer] ?? []
        let division = ExpertAffinity.divide(
            assignment.groups,
            of: layer,
            among: &seats,
            bound: self.configuration.affinityBound,
            home: { homes.indices.contains($0) && homes[$0] >= 0 ? homes[$0] : nil }
        )
        self.pools[pool].counts.keptExperts += UInt64(division.kept)
        self.pools[pool].counts.yieldedExperts += UInt64(division.yielded)
        for seat in seats where !seat.groups.isEmpty {
            calls.append(PoolAssignment(pool: assignment.pool, groups: seat.groups, preferredSlot: seat.slot))
        }
    }

    /// The replicas that may get a part: the ready ones that take calls, of the gateway's zone if there are any.
    private func seats(
        in pool: Int,
        for assignment: PoolAssignment,
        in layer: SparseLayer,
        now: ContinuousClock.Instant
    ) -> [ExpertAffinity.Seat] {
        let ready = self.pools[pool].ready
        let kind = CallClass(stack: layer.stack, rows: assignment.rowCount / ready.count)
        var fastest: Double?
        for slot in ready {
            guard let seconds = self.knownSeconds(of: slot, kind, now: now) else { continue }
            fastest = min(fastest ?? seconds, seconds)
        }
        var seats: [ExpertAffinity.Seat] = []
        var hasLocal = false
        for slot in ready where self.replicas[slot].notBefore.map({ $0 <= now }) ?? true {
            let isLocal = self.configuration.zone.map { self.replicas[slot].description?.zone == $0 } ?? false
            if isLocal, !hasLocal {
                hasLocal = true
                seats.removeAll()
            }
            guard isLocal || !hasLocal else { continue }
            var seat = ExpertAffinity.Seat(
                slot: slot,
                identity: self.replicas[slot].identity,
                work: self.replicas[slot].outstandingWork
            )
            if let fastest, let seconds = self.knownSeconds(of: slot, kind, now: now),
                seconds > fastest * self.configuration.slownessToYield,
                seconds > fastest + self.configuration.slownessToYieldMargin.inSeconds
            {
                seat.slowness = seconds / fastest
            }
            seats.append(seat)
        }
        return seats
    }

    /// How long a replica's calls of a kind take; nil if too few were seen, or none of late.
    private func knownSeconds(of slot: Int, _ kind: CallClass, now: ContinuousClock.Instant) -> Double? {
        guard self.replicas[slot].classSamples[kind.index] >= self.configuration.samplesToBelieve,
            let last = self.replicas[slot].lastAnswer, last.duration(to: now) < Self.speedMemory
        else { return nil }
        return self.replicas[slot].classSeconds[kind.index]
    }

    /// Whether a replica is counted among those that share a pool's experts: every gateway that is connected to it sees it.
    ///
    /// An ejection is one gateway's opinion and soon over: the homes stay, and its experts go to their next replica meanwhile.
    private func sharesExperts(_ slot: Int) -> Bool {
        switch self.replicas[slot].state {
        case .ready, .ejected, .probing, .quarantined: self.replicas[slot].description != nil
        case .disconnected, .unverified, .draining, .mismatched, .spare: false
        }
    }

    /// Finds the homes of a layer's experts, unless they are known.
    private mutating func updateHomes(of pool: Int, in layer: SparseLayer) {
        var version = UInt64(truncatingIfNeeded: self.readyVersion)
        for slot in self.pools[pool].members where self.sharesExperts(slot) {
            version =
                version &* 0x0000_0100_0000_01B3 ^ self.replicas[slot].identity &+ UInt64(truncatingIfNeeded: slot)
        }
        if self.pools[pool].homes.version != version {
            self.pools[pool].homes = Homes(version: version)
        }
        guard self.pools[pool].homes.slots[layer] == nil else { return }
        let members = self.pools[pool].members.filter { self.sharesExperts($0) }
            .sorted { (self.replicas[$0].identity, $0) < (self.replicas[$1].identity, $1) }
        let experts = self.table.experts(of: self.pools[pool].name, in: layer)
        let homes = ExpertAffinity.homes(of: experts, in: layer, replicas: members.map { self.replicas[$0].identity })
        self.pools[pool].homes.replicas = members.count
        var slots = [Int](repeating: -1, count: (experts.last ?? -1) + 1)
        for (expert, home) in zip(experts, homes) { slots[expert] = members[home] }
        self.pools[pool].homes.slots[layer] = slots
    }

    /// What must hold of the homes.
    func homesBroken(of pool: Pool) -> String? {
        for (layer, slots) in pool.homes.slots {
            var counts: [Int: Int] = [:]
            for slot in slots where slot >= 0 { counts[slot, default: 0] += 1 }
            let experts = counts.values.reduce(0, +)
            let most = (experts + pool.homes.replicas - 1) / max(1, pool.homes.replicas)
            if let fullest = counts.values.max(), fullest > most {
                return
                    "\(fullest) of \(experts) experts of \(layer) have one of \(pool.homes.replicas) replicas as their home"
            }
        }
        return nil
    }
}
