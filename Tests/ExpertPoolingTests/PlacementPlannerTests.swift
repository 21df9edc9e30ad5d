// SPDX-License-Identifier: Apache-2.0

import ExpertPooling
import SwitchyardTypes
import Testing

private let planned = SparseLayer(stack: .decoder, block: 1)

/// Pools of one replica with two experts each, named p0 and up, of which every pool may hold all.
private func cluster(_ rates: [Double], spare: Bool = true, replicas: [Int]? = nil) -> PlacementSnapshot {
    var snapshot = PlacementSnapshot()
    let primary = rates.indices.map { "p\($0 / 2)" }
    snapshot.layers[planned] = .init(primary: primary, rowsPerSecond: rates, observedRows: 100_000)
    for pool in 0..<(rates.count / 2) {
        let others = Set(rates.indices.filter { $0 / 2 != pool })
        snapshot.pools["p\(pool)"] = .init(replicas: replicas?[pool] ?? 1, spare: spare ? [planned: others] : [:])
    }
    return snapshot
}

@Suite("Placement planner")
struct PlacementPlannerTests {
    private let start = ContinuousClock.now

    private func after(_ seconds: Int) -> ContinuousClock.Instant { self.start.advanced(by: .seconds(seconds)) }

    @Test("a hot expert gets the least busy pool that holds it")
    func hotExpert() throws {
        var planner = PlacementPlanner()
        let snapshot = cluster([60, 5, 10, 5, 5, 5, 10, 0])
        let plan = planner.plan(for: snapshot, now: self.start)
        let first = try #require(plan.changes.first)
        #expect(first.expert == 0)
        #expect(first.before == ["p0"])
        #expect(first.after.first == "p0")
        #expect(first.after.dropFirst().first == "p2" || first.after.dropFirst().first == "p3")
        #expect(first.reasons.first == .relieves(pool: "p0"))
        let result = try #require(plan.layers.first)
        #expect(result.worstPool == "p0")
        #expect(abs(result.worstBefore - 0.65) < 1e-9)
        #expect(result.worstAfter <= 0.65 * 0.9)
        #expect(result.worstAfter >= result.floor - 1e-9)
        #expect(result.balanceAfter < result.balanceBefore)
        #expect(plan.extras[planned]?[0] == Array(first.after.dropFirst()))
    }

    @Test("pools with replicas count one replica's load")
    func replicas() {
        var planner = PlacementPlanner()
        // p0 takes 60 % on three replicas, 20 % each; p1 takes 40 % on one.
        let snapshot = cluster([30, 30, 20, 20], replicas: [3, 1])
        let plan = planner.plan(for: snapshot, now: self.start)
        #expect(plan.layers.first?.worstPool == "p1")
        #expect(plan.changes.allSatisfy { $0.before == ["p1"] && $0.after == ["p1", "p0"] })
        #expect(plan.isChange)
    }

    @Test("two equally busy pools are both relieved, since either alone gains nothing")
    func ties() {
        var planner = PlacementPlanner()
        let plan = planner.plan(for: cluster([40, 2, 40, 2, 4, 4, 4, 4]), now: self.start)
        #expect(plan.changes.count == 2)
        #expect((plan.layers.first?.worstAfter ?? 1) < 0.3)
    }

    @Test("even loads, too few rows, nothing spare, no rows and a pool that is down change nothing")
    func nothingToDo() {
        var planner = PlacementPlanner()
        var few = cluster([60, 5, 10, 5, 5, 5, 10, 0])
        few.layers[planned]?.observedRows = 10
        var down = cluster([60, 5, 10, 5])
        down.pools["p1"]?.replicas = 0
        var odd = cluster([.nan, -3, .infinity, 0])
        odd.layers[planned]?.primary[0] = nil
        let snapshots = [
            cluster([10, 10, 10, 10]), few, cluster([60, 5, 10, 5], spare: false), cluster([0, 0, 0, 0]), down, odd,
            PlacementSnapshot(),
        ]
        for snapshot in snapshots {
            let change = planner.change(for: snapshot, now: self.start)
            #expect(change == nil)
        }
        let plan = planner.plan(for: few, now: self.start)
        #expect(plan.layers.first?.isMeasured == false)
    }

    /// Expert 0 alone may go elsewhere, to p3, whose own experts take nothing.
    private func pair(_ first: Double) -> PlacementSnapshot {
        var snapshot = cluster([first, 10, 10, 10, 10, 10, 0, 0], spare: false)
        snapshot.pools["p3"]?.spare = [planned: [0]]
        return snapshot
    }

    @Test("an extra is kept while its expert cools for a short time, and released when it stays cool")
    func release() throws {
        var planner = PlacementPlanner()
        var snapshot = self.pair(60)
        let first = planner.change(for: snapshot, now: self.start)
        let plan = try #require(first)
        #expect(plan.extras == [planned: [0: ["p3"]]])
        snapshot.extras = plan.extras
        for second in 1...30 {
            let change = planner.change(for: snapshot, now: self.after(second))
            #expect(change == nil)
        }
        snapshot.layers = self.pair(10.5).layers
        for second in 31...60 {
            let change = planner.change(for: snapshot, now: self.after(second))
            #expect(change == nil)
        }
        // A short burst restarts the time.
        snapshot.layers = self.pair(60).layers
        let burst = planner.change(for: snapshot, now: self.after(61))
        #expect(burst == nil)
        snapshot.layers = self.pair(10.5).layers
        for second in 62...121 {
            let change = planner.change(for: snapshot, now: self.after(second))
            #expect(change == nil)
        }
        let released = planner.change(for: snapshot, now: self.after(122))
        let change = try #require(released)
        #expect(change.extras.isEmpty)
        #expect(change.changes.first?.after == ["p0"])
        guard case .cooled(let share, let time) = change.changes.first?.reasons.first else {
            Issue.record("\(change.changes)")
            return
        }
        #expect(abs(share - 60.0 / 110) < 1e-9)
        #expect(time >= .seconds(60))
    }

    @Test("an extra that makes its own pool the busiest is released after a while")
    func burden() {
        var planner = PlacementPlanner()
        var snapshot = cluster([20, 10, 30, 20], spare: false)
        snapshot.pools["p1"]?.spare = [planned: [0]]
        snapshot.extras = [planned: [0: ["p1"]]]
        for second in 0..<300 {
            let change = planner.change(for: snapshot, now: self.after(second))
            #expect(change == nil)
        }
        let change = planner.change(for: snapshot, now: self.after(300))
        #expect(change?.extras.isEmpty == true)
        #expect(change?.changes.first?.reasons == [.burden(for: .seconds(300))])
    }

    @Test("a pool that no longer holds an expert loses it at once, even while the plan settles")
    func lost() throws {
        var planner = PlacementPlanner()
        var snapshot = cluster([60, 5, 10, 5, 5, 5, 10, 0])
        let foundPlan = planner.change(for: snapshot, now: self.start)
        let plan = try #require(foundPlan)
        snapshot.extras = plan.extras
        let settled = planner.change(for: snapshot, now: self.after(1))
        #expect(settled == nil)
        let pool = try #require(plan.extras[planned]?[0]?.first)
        snapshot.pools[pool]?.spare = [:]
        let foundChange = planner.change(for: snapshot, now: self.after(2))
        let change = try #require(foundChange)
        #expect(change.extras[planned]?[0]?.contains(pool) != true)
        #expect(change.changes.first?.reasons.contains(.notHeld(pool: pool)) == true)
    }

    @Test("noise around a constant popularity settles after a few changes and then changes nothing", arguments: [2, 4])
    func noise(seed: UInt64) {
        var generator = SplitMix64(seed: seed)
        let popularity = (1...32).map { 1 / Double($0) }
        var planner = PlacementPlanner()
        var load = ExpertLoad(halfLife: .seconds(30))
        var counters = [UInt64](repeating: 0, count: 32)
        var snapshot = cluster(popularity.map { _ in 0 })
        var changes: [Int] = []
        var seen: [Int: Int] = [:]
        for second in 0..<3600 {
            let now = self.after(second)
            for expert in 0..<32 {
                // Bursts of a second: a quarter of the time nothing, sometimes threefold.
                let burst = [0.0, 0.5, 1, 3][Int.random(in: 0..<4, using: &generator)]
                counters[expert] += UInt64(200 * popularity[expert] * burst)
            }
            load.counted(counters, in: planned, now: now)
            guard second % 10 == 0 else { continue }
            snapshot.layers[planned]?.rowsPerSecond = load.rowsPerSecond(in: planned, now: now)
            snapshot.layers[planned]?.observedRows = load.observedRows(in: planned)
            if let plan = planner.change(for: snapshot, now: now) {
                changes.append(second)
                for change in plan.changes { seen[change.expert, default: 0] += 1 }
                snapshot.extras = plan.extras
            }
        }
        #expect(!changes.isEmpty)
        #expect(changes.count <= 8, "changed at \(changes)")
        #expect(changes.filter { $0 > 1800 }.count <= 1, "changed at \(changes)")
        #expect(seen.values.allSatisfy { $0 <= 3 }, "\(seen)")
    }

    @Test("the same snapshot gives the same plan, whatever the earlier plans")
    func deterministic() {
        let snapshot = Self.random(seed: 9, pools: 16, experts: 64, spareFraction: 0.3)
        var planner = PlacementPlanner()
        let first = planner.plan(for: snapshot, now: self.start)
        let second = planner.plan(for: snapshot, now: self.after(1))
        var other = PlacementPlanner()
        let third = other.plan(for: snapshot, now: self.after(2))
        #expect(first == second)
        #expect(first == third)
        #expect(first.isChange)
    }

    @Test("greedy comes near the best of all plans in small cases, and never below the floor")
    func optimum() throws {
        var ratios: [Double] = []
        for seed in 1...40 {
            let snapshot = Self.random(seed: UInt64(seed), pools: 3, experts: 6, spareFraction: 0.6)
            var planner = PlacementPlanner()
            let plan = planner.plan(for: snapshot, now: self.start)
            let result = try #require(plan.layers.first)
            let best = Self.best(of: snapshot)
            #expect(result.worstAfter <= result.worstBefore + 1e-9)
            #expect(result.floor <= best + 1e-9)
            #expect(best <= result.worstAfter + 1e-9)
            ratios.append(result.worstAfter / best)
        }
        let mean = ratios.reduce(0, +) / Double(ratios.count)
        let worst = ratios.max() ?? 9
        #expect(mean < 1.15, "mean \(mean)")
        #expect(worst < 1.6, "worst \(worst)")
    }

    @Test("advice names the busiest pool's shard and hosts with room")
    func advice() throws {
        let planner = PlacementPlanner()
        let advice = planner.advice(for: cluster([60, 5, 10, 5, 5, 5, 10, 0], spare: false))
        let first = try #require(advice.first)
        #expect(first.shardOf == "p0")
        #expect(first.hostsOf == "p2" || first.hostsOf == "p3")
        #expect(first.worstAfter < first.worstBefore * 0.9)
        let even = planner.advice(for: cluster([10, 10, 10, 10], spare: false))
        #expect(even.isEmpty)
    }

    @Test("planning thousands of experts on a hundred pools is fast")
    func large() {
        let snapshot = Self.random(seed: 4, pools: 128, experts: 2048, spareFraction: 0.05)
        var planner = PlacementPlanner()
        let clock = ContinuousClock()
        let time = clock.measure {
            let plan = planner.plan(for: snapshot, now: self.start)
            #expect(plan.layers.count == 1)
        }
        #expect(time < .seconds(10))
    }

    // MARK: - Made-up clusters

    static func random(seed: UInt64, pools: Int, experts: Int, spareFraction: Double) -> PlacementSnapshot {
        var generator = SplitMix64(seed: seed)
        var snapshot = PlacementSnapshot()
        let primary = (0..<experts).map { "p\($0 % pools)" }
        let rates = (0..<experts).map { _ in 1 / Double.random(in: 0.02...1, using: &generator) }
        snapshot.layers[planned] = .init(primary: primary, rowsPerSecond: rates, observedRows: 1e6)
        for pool in 0..<pools {
            let spare = (0..<experts)
                .filter {
                    $0 % pools != pool && Double.random(in: 0..<1, using: &generator) < spareFraction
                }
            snapshot.pools["p\(pool)"] = .init(replicas: 1, spare: [planned: Set(spare)])
        }
        return snapshot
    }

    /// The lowest possible load of the busiest pool, by trying all choices of extras.
    static func best(of snapshot: PlacementSnapshot) -> Double {
        guard let state = snapshot.layers[planned] else { return 0 }
        let names = snapshot.pools.keys.sorted()
        let total = state.rowsPerSecond.reduce(0, +)
        let options: [[[Int]]] = state.primary.enumerated()
            .map { expert, primary in
                let own = names.firstIndex { $0 == primary } ?? 0
                let others = names.indices.filter {
                    snapshot.pools[names[$0]]?.spare[planned]?.contains(expert) == true
                }
                return (0..<(1 << others.count))
                    .map { mask in [own] + others.indices.filter { mask & (1 << $0) != 0 }.map { others[$0] } }
            }
        func search(_ expert: Int, _ loads: [Double]) -> Double {
            guard expert < options.count else { return loads.max() ?? 0 }
            let share = state.rowsPerSecond[expert] / total
            return options[expert]
                .map { homes in
                    var next = loads
                    for home in homes { next[home] += share / Double(homes.count) }
                    return search(expert + 1, next)
                }
                .min() ?? 0
        }
        return search(0, names.map { _ in 0 })
    }
}

/// SplitMix64, so that a failing case can be repeated.
private struct SplitMix64: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { self.state = seed }

    mutating func next() -> UInt64 {
        self.state &+= 0x9E37_79B9_7F4A_7C15
        var z = self.state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}
