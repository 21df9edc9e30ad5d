// SPDX-License-Identifier: Apache-2.0

/// One layer's work over the pools: how much each pool takes, and the effect of one more pool for an expert.
///
/// Pools are numbers here, in the order of their names. An expert's work is divided evenly over its pools, and a pool's
/// evenly over its replicas, so a load is a part of the layer's work that one replica takes.
struct LayerBalance {
    /// An additional pool for an expert.
    struct Addition: Equatable {
        var expert: Int
        var pool: Int
        /// The busiest pool that it takes load off.
        var relieved: Int
        /// The layer's highest load afterwards.
        var worst: Double
        /// The higher one of the two pools' loads afterwards.
        var pair: Double

        /// Orders by gain, then by a fixed order.
        static func < (left: Addition, right: Addition) -> Bool {
            (left.worst, left.pair, left.expert, left.pool) < (right.worst, right.pair, right.expert, right.pool)
        }
    }

    /// Tolerance for sums in a different order.
    static let slack = 1 + 1e-9

    /// Replicas by pool; at least one, so that a pool that is down keeps the load it would have.
    let replicas: [Double]
    /// Part of the layer's work, by expert.
    let shares: [Double]
    /// Pools that an expert could get in addition to its current ones, by expert.
    let spare: [[Int]]
    /// Pools by expert, its own first; empty if no pool holds it.
    private(set) var homes: [[Int]]
    /// Rows of one replica, by pool.
    private(set) var loads: [Double]

    init(replicas: [Int], shares: [Double], spare: [[Int]], homes: [[Int]]) {
        self.replicas = replicas.map { Double(max($0, 1)) }
        self.shares = shares
        self.spare = spare
        self.homes = homes
        self.loads = []
        self.recount()
    }

    /// The busiest pool and its load; the first of equals.
    var worst: (pool: Int, load: Double) {
        var worst = (pool: 0, load: 0.0)
        for (pool, load) in self.loads.enumerated() where load > worst.load { worst = (pool, load) }
        return worst
    }

    /// The load of every replica if all took the same; only pools with experts count.
    var mean: Double {
        let used = Set(self.homes.joined())
        let placed = zip(self.shares, self.homes).reduce(0) { $1.1.isEmpty ? $0 : $0 + $1.0 }
        let replicas = used.reduce(0) { $0 + self.replicas[$1] }
        return replicas > 0 ? placed / replicas : 0
    }

    /// A lower bound of the busiest replica's load, however the rows are divided over the pools that hold them.
    ///
    /// Some replica takes at least the mean over all pools, and some holder of an expert takes at least the expert's
    /// rows divided by the number of holders.
    var floor: Double {
        let placed = zip(self.shares, self.homes).reduce(0) { $1.1.isEmpty ? $0 : $0 + $1.0 }
        let all = Set(self.homes.joined()).union(self.spare.joined())
        let mean = placed / max(all.reduce(0) { $0 + self.replicas[$1] }, 1)
        return self.homes.indices.reduce(mean) { floor, expert in
            guard !self.homes[expert].isEmpty else { return floor }
            let holders = Set(self.homes[expert]).union(self.spare[expert]).reduce(0) { $0 + self.replicas[$1] }
            return max(floor, self.shares[expert] / holders)
        }
    }

    mutating func add(_ expert: Int, to pool: Int) {
        self.homes[expert].append(pool)
        self.recount()
    }

    mutating func remove(_ expert: Int, from pool: Int) {
        self.homes[expert].removeAll { $0 == pool }
        self.recount()
    }

    /// The additional pool that relieves the busiest pool most.
    ///
    /// - Parameters:
    ///   - step: What it must take off that pool, as a fraction of its load.
    ///   - limit: Pools that an expert may have in total.
    ///   - excluded: Experts that get none.
    /// - Returns: The one that makes the layer's highest load lowest; among equals, the one that makes the two pools'
    ///   higher load lowest. Nil if no pool could take a part and stay below the current highest load.
    func bestAddition(step: Double, limit: Int, excluding excluded: Set<Int>) -> Addition? {
        let (worstPool, worstLoad) = self.worst
        guard worstLoad > 0 else { return nil }
        let order = self.loads.indices.sorted { (self.loads[$1], $0) < (self.loads[$0], $1) }
        var best: Addition?
        for expert in self.homes.indices where self.homes[expert].contains(worstPool) {
            let homes = self.homes[expert]
            guard homes.count < limit, !excluded.contains(expert) else { continue }
            let after = self.shares[expert] / Double(homes.count + 1)
            let taken = self.shares[expert] / Double(homes.count) - after
            let relief = taken / self.replicas[worstPool]
            guard relief >= step * worstLoad, relief > 0 else { continue }
            for pool in self.spare[expert] where !homes.contains(pool) {
                let pair = max(self.loads[pool] + after / self.replicas[pool], worstLoad - relief)
                guard pair < worstLoad else { continue }
                // The expert's other pools get lighter too. Among unchanged pools, the first in order is the busiest.
                let lighter = homes.reduce(pair) { max($0, self.loads[$1] - taken / self.replicas[$1]) }
                let other = order.first { $0 != pool && !homes.contains($0) }.map { self.loads[$0] } ?? 0
                let addition = Addition(
                    expert: expert,
                    pool: pool,
                    relieved: worstPool,
                    worst: max(lighter, other),
                    pair: pair
                )
                if best.map({ addition < $0 }) ?? true { best = addition }
            }
        }
        return best
    }

    /// Computed from scratch, so that adding and removing leaves no rounding errors.
    private mutating func recount() {
        self.loads = Array(repeating: 0, count: self.replicas.count)
        for (expert, homes) in self.homes.enumerated() {
            for pool in homes {
                self.loads[pool] += self.shares[expert] / Double(homes.count) / self.replicas[pool]
            }
        }
    }
}
