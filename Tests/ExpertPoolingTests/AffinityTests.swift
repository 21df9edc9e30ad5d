// SPDX-License-Identifier: Apache-2.0

import SwitchyardTypes
import Testing

@testable import ExpertPooling

private typealias Group = PoolAssignment.Group

/// Groups with these numbers of rows, for experts 0, 1 and so on; an expert without rows is left out.
private func groups(_ rows: [Int]) -> [Group] {
    var start = 0
    var result: [Group] = []
    for (expert, count) in rows.enumerated() where count > 0 {
        result.append(Group(expert: expert, rows: start..<start + count))
        start += count
    }
    return result
}

private func seats(_ count: Int) -> [ExpertAffinity.Seat] {
    (0..<count).map { ExpertAffinity.Seat(slot: $0, identity: ExpertAffinity.identity("host-\($0)"), work: 0) }
}

@Suite("Expert affinity")
struct AffinityTests {
    @Test("the hash of a name is FNV-1a's")
    func identity() {
        // The test vectors of RFC 9923, appendix C.
        #expect(ExpertAffinity.identity("") == 0xCBF2_9CE4_8422_2325)
        #expect(ExpertAffinity.identity("a") == 0xAF63_DC4C_8601_EC8C)
        #expect(ExpertAffinity.identity("foobar") == 0x8594_4171_F739_67E8)
    }

    @Test("homes are level, and depend on the replicas alone, not on their order", arguments: 1...5)
    func homes(count: Int) {
        let names = (0..<count).map { ExpertAffinity.identity("host-\($0)") }
        let experts = Array(0..<16)
        var kinds: Set<[Int]> = []
        for block in 0..<6 {
            let layer = SparseLayer(stack: .decoder, block: block)
            let homes = ExpertAffinity.homes(of: experts, in: layer, replicas: names)
            let counts = (0..<count).map { replica in homes.count { $0 == replica } }
            #expect(counts.max() ?? 0 <= (16 + count - 1) / count)
            #expect(counts.reduce(0, +) == 16)
            let backwards = ExpertAffinity.homes(of: experts, in: layer, replicas: names.reversed())
            #expect(backwards.map { count - 1 - $0 } == homes)
            kinds.insert(homes)
        }
        // Another layer has other homes.
        if count > 1 { #expect(kinds.count > 1) }
    }

    @Test("every row goes to one replica, and none gets more than its bound allows", arguments: 0..<200)
    func coverage(seed: UInt64) {
        var random = SplitMix(state: seed)
        let count = Int.random(in: 1...5, using: &random)
        var seats = seats(count)
        for seat in seats.indices {
            seats[seat].work = Int.random(in: 0...3, using: &random) * ExpertWork.rowsPerRead
            if Int.random(in: 0..<6, using: &random) == 0 {
                seats[seat].slowness = Double.random(in: 1...8, using: &random)
            }
        }
        let before = seats
        let largest = [1, 4, 40, 400].randomElement(using: &random) ?? 1
        let all = groups((0..<24).map { _ in Int.random(in: 0...largest, using: &random) })
        let bound = Double.random(in: 1...2, using: &random)
        let division = ExpertAffinity.divide(all, of: decoderLayer, among: &seats, bound: bound) { $0 % count }
        #expect(division.kept + division.yielded == all.count)
        let total = before.reduce(0) { $0 + $1.work } + all.reduce(0) { $0 + ExpertWork.of(rows: $1.rows.count) }
        let speed = seats.reduce(0) { $0 + 1 / $1.slowness }
        let read = Double(ExpertWork.rowsPerRead)
        let limit = (bound * Double(total) / speed / read).rounded(.up) * read
        let isFast = seats.allSatisfy { $0.slowness == 1 }
        let largestWork = all.map { Double(ExpertWork.of(rows: $0.rows.count)) }.max() ?? 0
        for (seat, old) in zip(seats, before) {
            let added = seat.groups.reduce(0) { $0 + ExpertWork.of(rows: $1.rows.count) }
            #expect(seat.work == old.work + added)
            #expect(seat.groups.map(\.rows.lowerBound) == seat.groups.map(\.rows.lowerBound).sorted())
            // Where an expert has room nowhere it is levelled, and so is at most its own work above the bound.
            if isFast, added > 0 { #expect(Double(seat.work) <= max(limit, Double(old.work)) + largestWork) }
        }
        let rows = seats.flatMap { $0.groups.flatMap { Array($0.rows) } }
        #expect(rows.sorted() == all.flatMap { Array($0.rows) })
        for seat in seats {
            for group in seat.groups {
                #expect(all.contains { $0.expert == group.expert && $0.rows.clamped(to: group.rows) == group.rows })
            }
        }
    }

    @Test("experts with few rows are divided by reads: none goes elsewhere while its home has room")
    func reads() {
        var two = seats(2)
        let all = groups([9, 1, 1, 1, 1, 1, 1, 1])
        let division = ExpertAffinity.divide(all, of: decoderLayer, among: &two, bound: 1.25) { $0 % 2 }
        #expect(division == .init(kept: 8, yielded: 0))
        #expect(two.map { $0.groups.map(\.expert) } == [[0, 2, 4, 6], [1, 3, 5, 7]])
        // Six of eight prefer one replica: five stay, since 1.25 times the fair share of four reads is five.
        two = seats(2)
        let uneven = ExpertAffinity.divide(all, of: decoderLayer, among: &two, bound: 1.25) { $0 < 6 ? 0 : 1 }
        #expect(uneven == .init(kept: 7, yielded: 1))
        #expect(two.map(\.groups.count) == [5, 3])
    }

    @Test("a hot expert fills its home, others leave it, and only one that fits nowhere is read twice")
    func hot() {
        var two = seats(2)
        // Seven reads beside one expert with the work of seven.
        let all = groups([112, 1, 1, 1, 1, 1, 1, 1])
        _ = ExpertAffinity.divide(all, of: decoderLayer, among: &two, bound: 1.25) { _ in 0 }
        #expect(two[0].groups.first?.expert == 0)
        #expect(two[0].groups.first?.rows == 0..<112)
        #expect(two[1].groups.count >= 5)
        two = seats(2)
        let alone = ExpertAffinity.divide(groups([600]), of: decoderLayer, among: &two, bound: 1.25) { _ in 1 }
        #expect(alone == .init(kept: 0, yielded: 1))
        #expect(two.map { $0.groups.map(\.rows.count) } == [[300], [300]])
    }

    @Test("work in flight and slowness make a preference yield, to the same replica every time")
    func yields() {
        var busy = seats(3)
        busy[0].work = 10 * ExpertWork.rowsPerRead
        let one = groups([1])
        _ = ExpertAffinity.divide(one, of: decoderLayer, among: &busy, bound: 1.25) { _ in 0 }
        #expect(busy[0].groups.isEmpty)
        var slow = seats(3)
        slow[0].slowness = 3
        _ = ExpertAffinity.divide(one, of: decoderLayer, among: &slow, bound: 1.25) { _ in 0 }
        #expect(slow[0].groups.isEmpty)
        #expect(slow.map { $0.groups.isEmpty } == busy.map { $0.groups.isEmpty })
        // A replica that takes twice as long gets half as much.
        slow = seats(2)
        slow[0].slowness = 2
        let all = groups([Int](repeating: 1, count: 24))
        _ = ExpertAffinity.divide(all, of: decoderLayer, among: &slow, bound: 1) { $0 % 2 }
        #expect(slow.map(\.groups.count) == [8, 16])
    }
}

@Suite("Expert affinity of pools")
struct PoolAffinityTests {
    /// Pools of a gateway that holds eight experts at each of some hosts.
    private func gateway(
        _ ports: [Int],
        seed: UInt64 = 1,
        zone: String? = nil,
        _ change: (inout ExpertPoolsConfiguration) -> Void = { _ in }
    ) -> ExpertPools {
        var configuration = ExpertPoolsConfiguration.unaudited
        configuration.zone = zone
        change(&configuration)
        var table = PlacementTable()
        for layer in [encoderLayer, decoderLayer] { for expert in 0..<8 { table.place(expert, of: layer, on: "a") } }
        var pools = ExpertPools(
            configuration: configuration,
            fingerprint: 7,
            modelWidth: 16,
            placement: table,
            seed: seed
        )
        for port in ports { join(&pools, replica(port), self.host(port)) }
        return pools
    }

    private func host(_ port: Int) -> ReplicaDescription {
        var text = description(Set(0..<8), zone: port % 2 == 0 ? "even" : "odd")
        text.instance = "process-\(port)"
        return text
    }

    /// Where each expert's rows are sent in a layer that needs all eight.
    private func homes(
        _ pools: inout ExpertPools,
        rows: Int = 1,
        in layer: SparseLayer = decoderLayer,
        now: ContinuousClock.Instant = start
    ) -> [Int: Set<Int>] {
        let (calls, unplaced) = pools.assignments(of: (0..<8).map { ($0, rows) }, in: layer, now: now)
        #expect(unplaced.isEmpty)
        var layerCalls = LayerCalls(
            layer: layer,
            deadline: now.advanced(by: .seconds(1)),
            policy: .init(deadline: .seconds(1))
        )
        var homes: [Int: Set<Int>] = [:]
        for case .send(let attempt, to: let id) in layerCalls.begin(calls, pools: &pools, now: now) {
            for group in calls[attempt.call].groups { homes[group.expert, default: []].insert(id.port) }
        }
        _ = layerCalls.abandoned(pools: &pools, now: now)
        #expect(pools.checkInvariants() == nil)
        #expect(layerCalls.checkInvariants() == nil)
        return homes
    }

    @Test("gateways that know the hosts in another order, under other addresses, choose the same ones")
    func agreement() {
        var first = self.gateway([1, 2], seed: 1)
        var second = self.gateway([2, 1], seed: 99)
        let homes = self.homes(&first)
        #expect(homes.count == 8)
        #expect(homes.values.allSatisfy { $0.count == 1 })
        #expect(Set(homes.values) == [[1], [2]])
        #expect(homes.values.count { $0 == [1] } == 4)
        #expect(self.homes(&second) == homes)
        var third = self.gateway([])
        for port in [12, 11] { join(&third, replica(port), self.host(port - 10)) }
        #expect(self.homes(&third).mapValues { Set($0.map { $0 - 10 }) } == homes)
        // Nothing in flight is left behind, and the next layer of that kind is divided in the same way.
        #expect(self.homes(&first) == homes)
        #expect(first.counts["a"]?.keptExperts == 16)
        #expect(first.counts["a"]?.yieldedExperts == 0)
    }

    @Test("while a host is ejected its experts go elsewhere, and the others stay where they are")
    func ejection() {
        var pools = self.gateway([1, 2, 3])
        let before = self.homes(&pools)
        for _ in 0..<3 { _ = pools.fail(replica(2), .unavailable) }
        #expect(pools.state(replica(2))?.name == "ejected")
        let after = self.homes(&pools)
        for (expert, home) in before where home != [2] { #expect(after[expert] == home) }
        for (expert, home) in before where home == [2] { #expect(after[expert]?.isDisjoint(with: [2]) == true) }
        #expect(pools.counts["a"].map { $0.yieldedExperts > 0 } == true)
    }

    @Test("one replica, one zone and two choices make one call of a pool")
    func single() {
        var alone = self.gateway([1])
        #expect(alone.assignments(of: [(0, 1), (1, 1)], in: decoderLayer, now: start).calls.count == 1)
        var local = self.gateway([1, 2, 3], zone: "even")
        #expect(Set(self.homes(&local).values) == [[2]])
        var random = self.gateway([1, 2]) { $0.replicaChoice = .twoChoices }
        #expect(random.assignments(of: [(0, 1), (1, 1)], in: decoderLayer, now: start).calls.count == 1)
        #expect(random.counts["a"]?.keptExperts == 0)
    }

    @Test("a host that takes no calls for now is passed over, and one at its limit too")
    func busy() {
        var pools = self.gateway([1, 2])
        guard let slot = pools.slot(of: replica(1)) else {
            Issue.record("the replica is not known")
            return
        }
        pools.pushedBack(slot, until: seconds(1))
        #expect(Set(self.homes(&pools).values) == [[2]])
        #expect(Set(self.homes(&pools, now: seconds(1.5)).values) == [[1], [2]])
        var full = self.gateway([1, 2]) { $0.outstandingPerReplica = 1 }
        let first = full.choose()
        let rest = self.homes(&full)
        #expect(Set(rest.values).count == 1)
        if case .success(let id) = first { #expect(rest.values.allSatisfy { !$0.contains(id.port) }) }
    }

    @Test("a host that has become slow gets less until it is fast again, and is tried again after a second")
    func slowness() {
        var pools = self.gateway([1, 2])
        func answer(_ port: Int, _ milliseconds: Int, at time: ContinuousClock.Instant) {
            for _ in 0..<40 {
                let load = CallLoad(rows: 4, work: ExpertWork.of(rows: 4))
                guard let slot = pools.slot(of: replica(port)),
                    case .success = pools.startOne(of: [slot], load: load, now: time)
                else { continue }
                _ = pools.end(
                    replica(port),
                    .answered,
                    stack: .decoder,
                    rows: 4,
                    in: .milliseconds(milliseconds),
                    now: time
                )
            }
        }
        answer(1, 4, at: start)
        answer(2, 2, at: start)
        let slow = self.homes(&pools)
        #expect(slow.values.count { $0 == [1] } < 4)
        #expect(slow.values.count { $0 == [1] } > 0)
        // Nothing is known of late.
        #expect(self.homes(&pools, now: seconds(2)).values.count { $0 == [1] } == 4)
        answer(1, 2, at: seconds(3))
        answer(2, 2, at: seconds(3))
        #expect(self.homes(&pools, now: seconds(3)).values.count { $0 == [1] } == 4)
    }

    @Test("a call whose preferred replica fails is made again at another")
    func retry() {
        var pools = self.gateway([1, 2])
        let (calls, _) = pools.assignments(of: (0..<8).map { ($0, 1) }, in: decoderLayer, now: start)
        var layer = LayerCalls(layer: decoderLayer, deadline: seconds(1), policy: .init(deadline: .seconds(1)))
        let sends = layer.begin(calls, pools: &pools, now: start)
        #expect(sends.count == 2)
        guard case .send(let attempt, to: let id) = sends.first else {
            Issue.record("nothing was sent")
            return
        }
        let again = layer.failed(attempt, .unavailable, pools: &pools, now: seconds(0.001))
        guard case .send(_, to: let other) = again.first else {
            Issue.record("the call was not made again: \(again)")
            return
        }
        #expect(other != id)
    }
}
