// SPDX-License-Identifier: Apache-2.0

/// Why no replica could be chosen for a call.
enum NoReplica: Error, Sendable, Hashable {
    /// No replica of the pool is ready.
    case noneReady
    /// Every ready replica has been tried for this call.
    case allTried
    /// Every remaining replica is at its limit of calls in flight, or has pushed back; ask again at this time.
    case allBusy(until: ContinuousClock.Instant?)
}

/// What a call asks of a replica.
struct CallLoad: Sendable, Equatable {
    /// Its token rows.
    let rows: Int
    /// Its work (``ExpertWork``).
    let work: Int
}

extension CallLoad {
    init(_ assignment: PoolAssignment) {
        self.init(rows: assignment.rowCount, work: ExpertWork.of(assignment))
    }
}

extension ExpertPools {
    /// Chooses a replica for a call and counts the call as in flight.
    ///
    /// The preferred one if it can take the call, or else the "least outstanding of two random" (M. Mitzenmacher, The Power of
    /// Two Choices in Randomized Load Balancing, 2001, https://www.eecs.harvard.edu/~michaelm/postscripts/tpds2001.pdf), with
    /// two deviations: in a pool of one or two ready replicas all are compared, and a gateway with a zone considers only
    /// replicas of that zone while one of them is free.
    ///
    /// - Parameters:
    ///   - pool: Index of the pool.
    ///   - excluded: Slots that have been tried for this call.
    ///   - preferred: The slot of the replica that its experts prefer (``ExpertAffinity``); nil for none.
    ///   - load: What the call asks for.
    ///   - now: The current time.
    /// - Returns: The replica's slot, or why there is none.
    mutating func startAttempt(
        in pool: Int,
        excluding excluded: [Int],
        preferring preferred: Int? = nil,
        load: CallLoad,
        now: ContinuousClock.Instant
    ) -> Result<Int, NoReplica> {
        let candidates = self.candidates(in: pool, excluding: excluded)
        guard !candidates.isEmpty else {
            return .failure(self.candidates(in: pool, excluding: []).isEmpty ? .noneReady : .allTried)
        }
        return self.startOne(of: candidates, preferring: preferred, load: load, now: now)
    }

    /// Chooses one of some replicas and counts a call as in flight to it.
    mutating func startOne(
        of candidates: [Int],
        preferring preferred: Int? = nil,
        load: CallLoad,
        now: ContinuousClock.Instant
    ) -> Result<Int, NoReplica> {
        var free: [Int] = []
        var local: [Int] = []
        var earliest: ContinuousClock.Instant?
        for slot in candidates {
            if let notBefore = self.replicas[slot].notBefore, notBefore > now {
                earliest = min(earliest ?? notBefore, notBefore)
                continue
            }
            guard self.replicas[slot].outstanding < self.configuration.outstandingPerReplica else { continue }
            free.append(slot)
            if let zone = self.configuration.zone, self.replicas[slot].description?.zone == zone { local.append(slot) }
        }
        let usable = local.isEmpty ? free : local
        let isPreferred = preferred.map { usable.contains($0) } ?? false
        guard let chosen = isPreferred ? preferred : self.lessLoadedOfTwo(usable) else {
            return .failure(.allBusy(until: earliest))
        }
        self.replicas[chosen].outstanding += 1
        self.replicas[chosen].outstandingRows += load.rows
        self.replicas[chosen].outstandingWork += load.work
        return .success(chosen)
    }

    /// The replicas that may get a call: the ready ones, or, once all of those have been tried, ejected and draining ones.
    ///
    /// A slow, unreliable or draining replica is better than none. A stalled one is not: waiting for it costs every
    /// sequence a whole deadline.
    ///
    /// - Parameters:
    ///   - pool: Index of the pool.
    ///   - excluded: Slots that have been tried for this call.
    /// - Returns: Slots.
    func candidates(in pool: Int, excluding excluded: [Int]) -> [Int] {
        let ready = self.pools[pool].ready.filter { !excluded.contains($0) }
        guard ready.isEmpty else { return ready }
        return self.pools[pool].members
            .filter { slot in
                guard !excluded.contains(slot) else { return false }
                switch self.replicas[slot].state {
                case .ejected, .probing: return !self.replicas[slot].isStalled
                case .draining: return !self.isQuarantined(slot)
                case .disconnected, .unverified, .ready, .mismatched, .spare, .quarantined: return false
                }
            }
    }

    private mutating func lessLoadedOfTwo(_ free: [Int]) -> Int? {
        guard var first = free.first else { return nil }
        guard free.count > 1 else { return first }
        var second = free[1]
        if free.count > 2 {
            let draw = Int.random(in: 0..<free.count, using: &self.random)
            let step = Int.random(in: 1..<free.count, using: &self.random)
            (first, second) = (free[draw], free[(draw + step) % free.count])
        } else if Bool.random(using: &self.random) {
            swap(&first, &second)
        }
        return self.replicas[second].outstanding < self.replicas[first].outstanding ? second : first
    }
}
