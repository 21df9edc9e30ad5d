// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

/// How the replica of a pool is chosen that gets a call.
public enum ReplicaChoice: String, Sendable, Hashable, CaseIterable {
    /// Rows of one expert prefer one replica, the same at every gateway: replicas of a pool then read different experts.
    case affinity
    /// A layer's rows for a pool go to one replica, the less busy of two that are drawn at random.
    case twoChoices = "two-choices"
}

/// What a host has to do for an expert's rows, in rows.
enum ExpertWork {
    /// Reading an expert's weights takes about as long as computing this many rows with weights that are there.
    static let rowsPerRead = 16

    /// The work for an expert: its weights are read, or its rows are computed, whichever takes longer.
    static func of(rows: Int) -> Int { rows > 0 ? max(rows, Self.rowsPerRead) : 0 }

    /// The work for a call.
    static func of(_ assignment: PoolAssignment) -> Int {
        assignment.groups.reduce(0) { $0 + Self.of(rows: $1.rows.count) }
    }
}

/// Which replica each expert's rows prefer, and how a layer's rows are divided among a pool's replicas: pure functions.
///
/// **Homes.** An expert prefers the replica with the highest hash of the two (rendezvous hashing: D. Thaler, C. Ravishankar,
/// Using Name-Based Mappings to Increase Hit Rates, 1998, https://doi.org/10.1109/90.663936). Gateways that see the same
/// replicas so choose the same one without talking to each other. One deviation: no replica is the home of more than its share
/// of a layer's experts, rounded up, since a layer waits for its fullest host.
///
/// **Bound.** The preference yields where a replica would get more than ``ExpertPoolsConfiguration/affinityBound`` times its fair
/// share of the pool's work: what is in flight to it and what this layer adds (V. Mirrokni, M. Thorup, M. Zadimoghaddam,
/// Consistent Hashing with Bounded Loads, 2016, https://arxiv.org/abs/1608.01350). Two deviations: work is counted in reads of
/// an expert's weights, not in requests, and the work of a slow replica counts as many times as it takes longer. What yields goes to the
/// expert's next replica by hash that has room, and so again to the same one at every gateway.
enum ExpertAffinity {
    /// A replica that may take a part of a layer's rows.
    struct Seat: Sendable, Equatable {
        let slot: Int
        let identity: UInt64
        /// How many times as long as its fastest sibling's its calls take; at least 1.
        var slowness = 1.0
        /// Work in flight to it, and what it has got of the layer.
        var work: Int
        /// What it has got of the layer.
        var groups: [PoolAssignment.Group] = []
    }

    /// How a layer's rows were divided.
    struct Division: Sendable, Equatable {
        /// Experts whose rows all went to their home.
        var kept = 0
        /// Experts whose rows went elsewhere, some or all of them.
        var yielded = 0
    }

    /// A number for a replica that is the same in every process.
    ///
    /// - Parameter name: What every gateway knows it by.
    /// - Returns: The 64-bit FNV-1a hash of the name (https://www.rfc-editor.org/rfc/rfc9923).
    static func identity(_ name: String) -> UInt64 {
        name.utf8.reduce(0xCBF2_9CE4_8422_2325) { ($0 ^ UInt64($1)) &* 0x0000_0100_0000_01B3 }
    }

    /// How much an expert prefers a replica.
    static func preference(_ expert: Int, in layer: SparseLayer, for replica: UInt64) -> UInt64 {
        let stack: UInt64 = layer.stack == .decoder ? 1 : 0
        let key = stack << 63 | UInt64(truncatingIfNeeded: layer.block) << 32 | UInt64(truncatingIfNeeded: expert)
        var mixed = PoolRandom(seed: key)
        var random = PoolRandom(seed: replica ^ mixed.next())
        return random.next()
    }

    /// The home of each expert.
    ///
    /// - Parameters:
    ///   - experts: The experts of a pool, ascending.
    ///   - layer: Their layer.
    ///   - replicas: Identities of the pool's replicas, at least one.
    /// - Returns: An index of `replicas` for each expert. No replica has more of them than their number divided by that of the
    ///   replicas, rounded up.
    static func homes(of experts: [Int], in layer: SparseLayer, replicas: [UInt64]) -> [Int] {
        let most = (experts.count + replicas.count - 1) / max(1, replicas.count)
        var counts = [Int](repeating: 0, count: replicas.count)
        return experts.map { expert in
            var best = 0
            var highest: (hash: UInt64, identity: UInt64)?
            for index in replicas.indices where counts[index] < most {
                let rank = (Self.preference(expert, in: layer, for: replicas[index]), replicas[index])
                if let known = highest, rank <= known { continue }
                (best, highest) = (index, rank)
            }
            counts[best] += 1
            return best
        }
    }

    /// Divides a layer's rows among the replicas of a pool.
    ///
    /// - Parameters:
    ///   - groups: Experts and their rows.
    ///   - layer: The layer.
    ///   - seats: The replicas, at least one; each gets its groups in the order of their rows.
    ///   - bound: How many times its fair share a replica may get before preferences yield; at least 1.
    ///   - home: The slot of an expert's home.
    /// - Returns: How many experts kept their home.
    static func divide(
        _ groups: [PoolAssignment.Group],
        of layer: SparseLayer,
        among seats: inout [Seat],
        bound: Double,
        home: (Int) -> Int?
    ) -> Division {
        let total = seats.reduce(0) { $0 + $1.work } + groups.reduce(0) { $0 + ExpertWork.of(rows: $1.rows.count) }
        let speed = seats.reduce(0) { $0 + 1 / $1.slowness }
        let reads = (bound * Double(total) / speed / Double(ExpertWork.rowsPerRead)).rounded(.up)
        let limit = reads * Double(ExpertWork.rowsPerRead)
        var division = Division()
        // The largest first: where a hot expert fills its home, the others leave, and it is not read twice.
        let order = groups.indices.sorted { first, second in
            let (left, right) = (
                ExpertWork.of(rows: groups[first].rows.count), ExpertWork.of(rows: groups[second].rows.count)
            )
            return (right, groups[first].expert) < (left, groups[second].expert)
        }
        for index in order {
            let group = groups[index]
            let work = ExpertWork.of(rows: group.rows.count)
            let slot = home(group.expert)
            if let seat = Self.preferred(group.expert, layer, home: slot, seats, work, limit) {
                seats[seat].work += work
                seats[seat].groups.append(group)
                if seats[seat].slot == slot { division.kept += 1 } else { division.yielded += 1 }
            } else {
                division.yielded += 1
                Self.share(group, among: &seats)
            }
        }
        for seat in seats.indices { seats[seat].groups.sort { $0.rows.lowerBound < $1.rows.lowerBound } }
        return division
    }

    /// The replica that an expert likes best of those that have room for its work.
    private static func preferred(
        _ expert: Int,
        _ layer: SparseLayer,
        home: Int?,
        _ seats: [Seat],
        _ work: Int,
        _ limit: Double
    ) -> Int? {
        var best: Int?
        var highest: UInt64 = 0
        for (index, seat) in seats.enumerated() where Double(seat.work + work) * seat.slowness <= limit {
            guard seat.slot != home else { return index }
            let hash = Self.preference(expert, in: layer, for: seat.identity)
            if best == nil || hash > highest { (best, highest) = (index, hash) }
        }
        return best
    }

    /// Levels the replicas with the rows of an expert for which none has room.
    private static func share(_ group: PoolAssignment.Group, among seats: inout [Seat]) {
        func level(_ seat: Int) -> Double { Double(seats[seat].work) * seats[seat].slowness }
        let byLevel = seats.indices.sorted { (level($0), seats[$0].slot) < (level($1), seats[$1].slot) }
        let chosen = byLevel.prefix(max(1, group.rows.count / ExpertWork.rowsPerRead))
        let shares = PlacementTable.shares(
            of: group.rows.count,
            over: chosen.map { (level: level($0), replicas: 1 / seats[$0].slowness) }
        )
        var start = group.rows.lowerBound
        for (seat, share) in zip(chosen, shares) where share > 0 {
            seats[seat].work += ExpertWork.of(rows: share)
            seats[seat].groups.append(.init(expert: group.expert, rows: start..<start + share))
            start += share
        }
    }
}
