// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

extension PlacementPlanner {
    /// Which hosts should load which additional shard, if planning with their current shards is not enough.
    ///
    /// The shards of the busiest pools are tried on the hosts of the least busy ones: for each pair the plan is made as if
    /// those hosts held that shard, and the pair that lowers the busiest replica's load most, averaged over the layers, is
    /// advised. Then the next one is sought as if the first were done. A replica's memory is not known here, so
    /// people must judge whether the shard fits.
    ///
    /// - Parameters:
    ///   - snapshot: The cluster now.
    ///   - count: The most entries to return.
    ///   - candidates: How many of the busiest and of the least busy pools are tried.
    /// - Returns: What to load where, most useful first; empty if no shard lowers the load by `minimumGain`.
    public func advice(
        for snapshot: PlacementSnapshot,
        count: Int = 3,
        candidates: Int = 4
    ) -> [PlacementAdvice] {
        var advice: [PlacementAdvice] = []
        var supposed = snapshot
        while advice.count < count {
            let start = self.worst(of: supposed)
            guard start > 0, let next = self.bestShard(for: supposed, candidates: candidates),
                next.worst <= start * (1 - self.configuration.minimumGain)
            else { break }
            advice.append(
                PlacementAdvice(
                    shardOf: next.shard,
                    hostsOf: next.hosts,
                    worstBefore: start,
                    worstAfter: next.worst
                )
            )
            supposed = next.snapshot
        }
        return advice
    }

    private func bestShard(
        for snapshot: PlacementSnapshot,
        candidates: Int
    ) -> (shard: String, hosts: String, snapshot: PlacementSnapshot, worst: Double)? {
        let busiest = Self.poolsByLoad(snapshot)
        var best: (shard: String, hosts: String, snapshot: PlacementSnapshot, worst: Double)?
        for shard in busiest.prefix(candidates) {
            for hosts in busiest.suffix(candidates).reversed() where hosts != shard {
                var supposed = snapshot
                guard supposed.load(shardOf: shard, onHostsOf: hosts) else { continue }
                let worst = self.worst(of: supposed)
                if best.map({ worst < $0.worst }) ?? true { best = (shard, hosts, supposed, worst) }
            }
        }
        return best
    }

    /// The busiest replica's load under the plan that a new planner would make, averaged over the measured layers.
    private func worst(of snapshot: PlacementSnapshot) -> Double {
        var planner = PlacementPlanner(configuration: self.configuration)
        // Any instant does: a new planner remembers none.
        let layers = planner.plan(for: snapshot, now: .now).layers.filter(\.isMeasured)
        return layers.isEmpty ? 0 : layers.reduce(0) { $0 + $1.worstAfter } / Double(layers.count)
    }

    /// Names of the pools that take calls, the busiest first.
    private static func poolsByLoad(_ snapshot: PlacementSnapshot) -> [String] {
        let pools = snapshot.pools.keys.sorted()
        var loads = [Double](repeating: 0, count: pools.count)
        for layer in snapshot.layers.keys.sorted() {
            guard let draft = LayerDraft(layer, of: snapshot, pools: pools) else { continue }
            // The square makes one layer in which a pool is far too busy count more than many where it is a little.
            for (pool, load) in draft.balance.loads.enumerated() { loads[pool] += load * load }
        }
        return pools.indices.filter { (snapshot.pools[pools[$0]]?.replicas ?? 0) > 0 }
            .sorted { (loads[$1], $0) < (loads[$0], $1) }
            .map { pools[$0] }
    }
}

extension PlacementSnapshot {
    /// Assumes that the hosts of one pool also hold the experts of another.
    ///
    /// - Returns: Whether that changes anything.
    fileprivate mutating func load(shardOf shard: String, onHostsOf hosts: String) -> Bool {
        var isNews = false
        for (layer, state) in self.layers {
            let experts = state.primary.indices.filter { state.primary[$0] == shard }
            let held = self.pools[hosts]?.spare[layer] ?? []
            guard !held.isSuperset(of: experts) else { continue }
            self.pools[hosts]?.spare[layer] = held.union(experts)
            isNews = true
        }
        return isNews
    }
}
