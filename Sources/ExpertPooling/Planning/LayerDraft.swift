// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

/// One layer of a plan in progress.
struct LayerDraft {
    let layer: SparseLayer
    /// Names of the pools, in order; ``LayerBalance`` knows them by index.
    let pools: [String]
    private(set) var balance: LayerBalance
    private(set) var reasons: [Int: [PlacementPlan.Reason]] = [:]
    private var released: Set<Int> = []

    /// Starts with the current placement.
    ///
    /// - Returns: Nil if the snapshot does not know the layer.
    init?(_ layer: SparseLayer, of snapshot: PlacementSnapshot, pools: [String]) {
        guard let state = snapshot.layers[layer] else { return nil }
        let indices = Dictionary(uniqueKeysWithValues: pools.enumerated().map { ($1, $0) })
        let experts = state.primary.count
        var spare = [[Int]](repeating: [], count: experts)
        for (index, name) in pools.enumerated() {
            guard let pool = snapshot.pools[name], pool.replicas > 0 else { continue }
            for expert in pool.spare[layer] ?? [] where expert >= 0 && expert < experts { spare[expert].append(index) }
        }
        var homes = [[Int]](repeating: [], count: experts)
        for (expert, primary) in state.primary.enumerated() {
            guard let primary, let own = indices[primary] else { continue }
            homes[expert] = [own]
            for extra in snapshot.extras[layer]?[expert] ?? [] {
                if let pool = indices[extra], !homes[expert].contains(pool) { homes[expert].append(pool) }
            }
        }
        let known = state.workPerSecond.isEmpty ? state.rowsPerSecond : state.workPerSecond
        let rates = (0..<experts)
            .map { expert in
                let rate = expert < known.count ? known[expert] : 0
                return rate.isFinite ? max(rate, 0) : 0
            }
        let total = rates.reduce(0, +)
        self.layer = layer
        self.pools = pools
        self.balance = LayerBalance(
            replicas: pools.map { snapshot.pools[$0]?.replicas ?? 0 },
            shares: rates.map { total > 0 ? $0 / total : 0 },
            spare: spare,
            homes: homes
        )
    }

    /// Removes experts from pools that no longer hold them.
    mutating func removeLost() {
        for expert in self.balance.homes.indices {
            for pool in self.balance.homes[expert].dropFirst() where !self.balance.spare[expert].contains(pool) {
                self.balance.remove(expert, from: pool)
                self.reasons[expert, default: []].append(.notHeld(pool: self.pools[pool]))
            }
        }
    }

    /// Removes an expert from a pool, unless that overloads another one.
    mutating func release(
        _ expert: Int,
        from pool: Int,
        ifWorstStaysBelow limit: Double,
        because reason: PlacementPlan.Reason
    ) {
        var trial = self.balance
        trial.remove(expert, from: pool)
        guard trial.worst.load <= limit * LayerBalance.slack else { return }
        self.balance = trial
        self.released.insert(expert)
        self.reasons[expert, default: []].append(reason)
    }

    /// Adds pools for hot experts as long as whole groups of them pay.
    mutating func addGroups(_ configuration: PlacementPlannerConfiguration) {
        var trial = self.balance
        var group: [LayerBalance.Addition] = []
        var extras = trial.homes.reduce(0) { $0 + max($1.count - 1, 0) }
        while extras < configuration.extrasPerLayer,
            let addition = trial.bestAddition(
                step: configuration.minimumStep,
                limit: configuration.extrasPerExpert + 1,
                excluding: self.released
            )
        {
            trial.add(addition.expert, to: addition.pool)
            group.append(addition)
            extras += 1
            guard trial.worst.load <= self.balance.worst.load * (1 - configuration.minimumGain) else { continue }
            self.balance = trial
            for addition in group {
                self.reasons[addition.expert, default: []].append(.relieves(pool: self.pools[addition.relieved]))
            }
            group = []
        }
    }
}

extension PlacementPlan {
    /// Adds a finished layer.
    mutating func add(_ draft: LayerDraft, before: LayerBalance, isMeasured: Bool) {
        let after = draft.balance
        for expert in after.homes.indices {
            let extras = after.homes[expert].dropFirst().map { draft.pools[$0] }
            if !extras.isEmpty { self.extras[draft.layer, default: [:]][expert] = extras }
            guard after.homes[expert] != before.homes[expert] else { continue }
            self.changes.append(
                Change(
                    layer: draft.layer,
                    expert: expert,
                    share: after.shares[expert],
                    before: before.homes[expert].map { draft.pools[$0] },
                    after: after.homes[expert].map { draft.pools[$0] },
                    reasons: draft.reasons[expert] ?? []
                )
            )
        }
        let worst = before.worst
        self.layers.append(
            Layer(
                layer: draft.layer,
                isMeasured: isMeasured,
                worstPool: draft.pools.indices.contains(worst.pool) ? draft.pools[worst.pool] : "",
                worstBefore: worst.load,
                worstAfter: after.worst.load,
                balanceBefore: before.mean > 0 ? worst.load / before.mean : 1,
                balanceAfter: after.mean > 0 ? after.worst.load / after.mean : 1,
                floor: after.floor
            )
        )
    }
}
