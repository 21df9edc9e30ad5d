// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

/// Gives hot experts additional pools that already hold them, so that a layer's busiest replica has less to do.
///
/// **Model.** The layers of a step run one after another, and each waits for its slowest pool. So every layer is
/// planned separately, and the plan lowers the load of its busiest replica: the part of the layer's work that it
/// takes, which is reading weights where an expert gets few rows at a time (``PlacementSnapshot/Layer/workPerSecond``), or
/// of its rows, where no more is known. An expert's work is assumed to be divided evenly over its pools, and a pool's evenly
/// over its replicas that take calls (the dispatch, ``PlacementTable/assignments(of:in:replicas:)``, levels better than that).
/// An expert may get a pool only if every such replica holds it.
///
/// **Algorithm.** Greedy, for each layer:
///
/// 1. Take the busiest pool. Of all its experts and all pools that hold them too, take the pair that leaves the layer's
///    highest load least. The receiving pool must stay below the present highest load, and the busiest pool must lose at
///    least `minimumStep` of its load.
/// 2. Repeat. As soon as the additions since the last keep have lowered the highest load by `minimumGain` together, they are
///    kept as a group (two pools that are equally busy must both be relieved before either addition shows).
/// 3. Stop where no such pair is left or the layer has `extrasPerLayer`; additions that are no whole group are forgotten.
///
/// **Bound.** The highest load never rises, and falls by the factor `1 - minimumGain` with every group; it cannot fall
/// below ``PlacementPlan/Layer/floor``, so there are at most `ln(before / floor) / -ln(1 - minimumGain)` groups, and the
/// floor is part of every plan. Greedy is not optimal: a move that pays only after another one that costs is not found, and
/// with few spare holdings no bound on the distance from the best plan exists, since choosing holders of divided work is a
/// makespan problem (R. L. Graham, Bounds on Multiprocessing Timing Anomalies, 1969, https://doi.org/10.1137/0117039). The
/// tests compare small cases with a search of all plans.
///
/// **Hysteresis.** Additions are made for at least `minimumGain`. An extra in force is released when one of two things has
/// held without a break: for `holdTime`, its expert's share of the layer was below `releaseShare` of what it was when the
/// extra came into force, and the highest load rises by no more than `releaseGain` without it, which is less than
/// `minimumGain`; or for `burdenTime`, the highest load would have been lower by `minimumGain` without it. An expert that was
/// released is not added in the same plan. Nothing but a lost holder changes a plan within `settleTime` of the last change. The loads
/// are the experts', not the pools', so a plan does not change the loads that it was made from.
public struct PlacementPlanner: Sendable {
    private struct Key: Hashable {
        var expert: ExpertID
        var pool: String
    }

    private struct Memory {
        var shareWhenAdded: Double
        /// Since when the expert's share has been below the threshold.
        var coolSince: ContinuousClock.Instant?
        /// Since when the highest load would have been much lower without the extra.
        var burdenSince: ContinuousClock.Instant?
    }

    /// When an expert gets another pool, and when it loses it again.
    public let configuration: PlacementPlannerConfiguration

    private var memory: [Key: Memory] = [:]
    private var latestExtras: [SparseLayer: [Int: [String]]]?
    private var changedAt: ContinuousClock.Instant?

    /// Creates a planner without history.
    ///
    /// - Parameter configuration: When an expert gets another pool, and when it loses it again.
    public init(configuration: PlacementPlannerConfiguration = .defaults) {
        self.configuration = configuration
    }

    /// Whether the placement should change, and how.
    ///
    /// Call it every few seconds; the extras in force are taken from the snapshot, so a plan that was not applied is
    /// simply proposed again.
    ///
    /// - Parameters:
    ///   - snapshot: The cluster now.
    ///   - now: The current time.
    /// - Returns: The plan to put in force, or nil if the current one stays.
    public mutating func change(
        for snapshot: PlacementSnapshot,
        now: ContinuousClock.Instant
    ) -> PlacementPlan? {
        let plan = self.plan(for: snapshot, now: now)
        return plan.isChange ? plan : nil
    }

    /// The plan for a cluster, changed or not.
    ///
    /// - Parameters:
    ///   - snapshot: The cluster now.
    ///   - now: The current time.
    /// - Returns: The plan with its expected gain.
    public mutating func plan(for snapshot: PlacementSnapshot, now: ContinuousClock.Instant) -> PlacementPlan {
        if let latest = self.latestExtras, latest != snapshot.extras { self.changedAt = now }
        self.latestExtras = snapshot.extras
        let settles = self.changedAt.map { now < $0.advanced(by: self.configuration.settleTime) } ?? false
        var plan = PlacementPlan()
        var memory: [Key: Memory] = [:]
        let pools = snapshot.pools.keys.sorted()
        for layer in snapshot.layers.keys.sorted() {
            guard var draft = LayerDraft(layer, of: snapshot, pools: pools) else { continue }
            let before = draft.balance
            draft.removeLost()
            let isMeasured = (snapshot.layers[layer]?.observedRows ?? 0) >= self.configuration.minimumRows
            memory.merge(self.remembered(draft, now: now)) { $1 }
            if isMeasured, !settles {
                self.release(&draft, memory, now: now)
                draft.addGroups(self.configuration)
            }
            plan.add(draft, before: before, isMeasured: isMeasured)
        }
        self.memory = memory
        return plan
    }

    // MARK: - Inside

    /// The planner's memory of a layer's extras: the share when each came into force, and since when it could be
    /// released.
    private func remembered(_ draft: LayerDraft, now: ContinuousClock.Instant) -> [Key: Memory] {
        var memory: [Key: Memory] = [:]
        let relieved = draft.balance.worst.load * (1 - self.configuration.minimumGain)
        for (expert, homes) in draft.balance.homes.enumerated() where homes.count > 1 {
            let share = draft.balance.shares[expert]
            for pool in homes.dropFirst() {
                let key = Key(expert: ExpertID(layer: draft.layer, index: expert), pool: draft.pools[pool])
                var entry = self.memory[key] ?? Memory(shareWhenAdded: share)
                let isCool = share < entry.shareWhenAdded * self.configuration.releaseShare
                entry.coolSince = isCool ? entry.coolSince ?? now : nil
                var without = draft.balance
                without.remove(expert, from: pool)
                entry.burdenSince = without.worst.load <= relieved ? entry.burdenSince ?? now : nil
                memory[key] = entry
            }
        }
        return memory
    }

    private func release(_ draft: inout LayerDraft, _ memory: [Key: Memory], now: ContinuousClock.Instant) {
        let worst = draft.balance.worst.load
        func held(_ since: ContinuousClock.Instant?, for time: Duration) -> Duration? {
            since.map { $0.duration(to: now) }.flatMap { $0 >= time ? $0 : nil }
        }
        for expert in draft.balance.homes.indices {
            for pool in draft.balance.homes[expert].dropFirst() {
                let entry = memory[Key(expert: ExpertID(layer: draft.layer, index: expert), pool: draft.pools[pool])]
                guard let entry else { continue }
                if let time = held(entry.coolSince, for: self.configuration.holdTime) {
                    draft.release(
                        expert,
                        from: pool,
                        ifWorstStaysBelow: worst * (1 + self.configuration.releaseGain),
                        because: .cooled(shareBefore: entry.shareWhenAdded, for: time)
                    )
                } else if let time = held(entry.burdenSince, for: self.configuration.burdenTime) {
                    draft.release(expert, from: pool, ifWorstStaysBelow: worst, because: .burden(for: time))
                }
            }
        }
    }
}
