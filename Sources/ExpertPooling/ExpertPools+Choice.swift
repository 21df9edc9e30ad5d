// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

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
        excluding excluded: ShortList<Int>,
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
        if let preferred, candidates.contains(preferred), self.isFree(preferred, now: now), self.isLocal(preferred) {
            self.start(preferred, load)
            return .success(preferred)
        }
        // One candidate needs no list of those that are free.
        if candidates.count == 1, let only = candidates.first {
            if self.isFree(only, now: now) {
                self.start(only, load)
                return .success(only)
            }
            return .failure(.allBusy(until: self.replicas[only].notBefore.flatMap { $0 > now ? $0 : nil }))
        }
        var free: [Int] = []
        var earliest: ContinuousClock.Instant?
        free.reserveCapacity(candidates.count)
        for slot in candidates {
            if let notBefore = self.replicas[slot].notBefore, notBefore > now {
                earliest = min(earliest ?? notBefore, notBefore)
            } else if self.isFree(slot, now: now) {
                free.append(slot)
            }
        }
        if free.contains(where: { self.isLocal($0) }) { free.removeAll { !self.isLocal($0) } }
        let isPreferred = preferred.map { free.contains($0) } ?? false
        guard let chosen = isPreferred ? preferred : self.lessLoadedOfTwo(free) else {
            return .failure(.allBusy(until: earliest))
        }
        self.start(chosen, load)
        return .success(chosen)
    }

    /// Whether a replica has not asked for a pause, and may have another call in flight.
    private func isFree(_ slot: Int, now: ContinuousClock.Instant) -> Bool {
        self.replicas[slot].notBefore.map { $0 <= now } ?? true
            && self.replicas[slot].outstanding < self.configuration.outstandingPerReplica
    }

    /// Whether a replica is in the gateway's zone, which every one is of a gateway without a zone.
    private func isLocal(_ slot: Int) -> Bool {
        self.configuration.zone.map { self.replicas[slot].description?.zone == $0 } ?? true
    }

    /// Counts a call as in flight.
    private mutating func start(_ slot: Int, _ load: CallLoad) {
        self.replicas[slot].outstanding += 1
        self.replicas[slot].outstandingRows += load.rows
        self.replicas[slot].outstandingWork += load.work
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
    func candidates(in pool: Int, excluding excluded: ShortList<Int>) -> [Int] {
        let all = self.pools[pool].ready
        let ready = excluded.isEmpty ? all : all.filter { !excluded.contains($0) }
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
