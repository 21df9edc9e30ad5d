// SPDX-License-Identifier: Apache-2.0

import SwitchyardTypes
import Testing

@testable import ExpertPooling

@Suite("Expert pools")
struct ExpertPoolsTests {
    @Test("a replica is verified before it is used")
    func verification() {
        var pools = machine(ports: [])
        pools.added(replica(1))
        #expect(pools.choose() == .failure(.noneReady))
        _ = pools.connected(replica(1))
        #expect(pools.choose() == .failure(.noneReady))
        #expect(!pools.isComplete(layers: [encoderLayer], expertCount: 2))
        _ = pools.described(replica(1), description(), now: start)
        #expect(pools.choose() == .success(replica(1)))
        #expect(pools.isComplete(layers: [encoderLayer], expertCount: 2))
        #expect(!pools.isComplete(layers: [encoderLayer], expertCount: 3))
        #expect(pools.reports[0].outstanding == 1)
    }

    @Test(
        "a replica that does not fit is mismatched, with the reason",
        arguments: [
            (description(fingerprint: 8), "0000000000000008"),
            (description([0]), "lacks experts 1 of layer encoder 1"),
            (ReplicaDescription(fingerprint: 7, experts: [encoderLayer: [0, 1]], modelWidth: 8), "8 wide"),
        ]
    )
    func refusal(description: ReplicaDescription, part: String) {
        var pools = machine(ports: [])
        pools.added(replica(1))
        _ = pools.connected(replica(1))
        guard case .mismatched(replica(1), let reason)? = pools.described(replica(1), description, now: start).first
        else {
            Issue.record("the replica is not mismatched")
            return
        }
        #expect(reason.contains(part), "\(reason)")
        #expect(pools.choose() == .failure(.noneReady))
        // Another process may come up at that address.
        pools.disconnected(replica(1), now: start)
        #expect(pools.connected(replica(1)) == [.describe(replica(1))])
    }

    @Test("placement is learned from the replicas if no file gives it")
    func learnedPlacement() {
        var pools = ExpertPools(fingerprint: 7, modelWidth: 16, placement: nil)
        for (port, pool, experts) in [(1, "a", Set([0])), (2, "b", Set([1, 2]))] {
            let id = replica(port, pool: pool)
            pools.added(id)
            _ = pools.connected(id)
            _ = pools.described(id, description(experts), now: start)
        }
        #expect(pools.placement.pool(of: 0, in: encoderLayer) == "a")
        #expect(pools.placement.pool(of: 2, in: encoderLayer) == "b")
        #expect(pools.isComplete(layers: [encoderLayer], expertCount: 3))
    }

    @Test("the less loaded of two is chosen, and no replica exceeds its limit of calls in flight")
    func choice() {
        var pools = machine()
        var taken: [ReplicaID: Int] = [:]
        for _ in 0..<128 {
            guard case .success(let id) = pools.choose() else {
                Issue.record("a call found no replica")
                return
            }
            taken[id, default: 0] += 1
        }
        #expect(taken == [replica(1): 64, replica(2): 64])
        #expect(pools.choose() == .failure(.allBusy(until: nil)))
        pools.cancel(replica(2))
        #expect(pools.choose() == .success(replica(2)))
        let excluded = pools.choose(excluding: [replica(1), replica(2)])
        #expect(excluded == .failure(.allTried))
    }

    @Test("three failures in a row eject, for longer each time, until a probe is answered")
    func ejection() {
        var pools = machine()
        #expect(pools.fail(replica(1), .unavailable).isEmpty)
        _ = pools.succeed(replica(1))
        #expect(pools.fail(replica(1), .unavailable).isEmpty)
        #expect(pools.fail(replica(1), .refused).isEmpty)
        let actions = pools.fail(replica(1), .deadline)
        #expect(actions == [.ejected(replica(1), for: .milliseconds(500), .failed(.deadline))])
        #expect(pools.nextTimer == seconds(0.5))
        #expect(pools.timerFired(now: seconds(0.4)).isEmpty)
        #expect(pools.timerFired(now: seconds(0.5)) == [.describe(replica(1))])
        pools.describeFailed(replica(1), now: seconds(0.6))
        #expect(pools.reports[0].state == .ejected(until: seconds(0.6).advanced(by: .seconds(1))))
        #expect(pools.timerFired(now: seconds(1.6)) == [.describe(replica(1))])
        #expect(pools.described(replica(1), description(), now: start) == [.joined(replica(1))])
        #expect(pools.reports[0].state == .ready)
    }

    @Test("the last replica is kept after errors and ejected after missed deadlines")
    func lastReplica() {
        var pools = machine(ports: [1])
        for _ in 0..<10 { #expect(pools.fail(replica(1), .unavailable).isEmpty) }
        #expect(pools.isReady("a"))
        #expect(!pools.fail(replica(1), .deadline).isEmpty)
        #expect(!pools.isReady("a"))
    }

    @Test("shedding load ejects no replica that answers now and then, nor the last one")
    func overload() {
        var pools = machine()
        for turn in 0..<100 {
            #expect(pools.fail(replica(1), .overloaded).isEmpty)
            if turn % 15 == 14 { #expect(pools.succeed(replica(1)).isEmpty) }
        }
        #expect(pools.reports[0].state == .ready)
        var alone = machine(ports: [1])
        for _ in 0..<100 { #expect(alone.fail(replica(1), .overloaded).isEmpty) }
        #expect(alone.isReady("a"))
    }

    @Test("a failed describe call is repeated")
    func describeRetry() {
        var pools = machine(ports: [])
        pools.added(replica(1))
        _ = pools.connected(replica(1))
        pools.describeFailed(replica(1), now: start)
        #expect(pools.nextTimer == seconds(0.5))
        #expect(pools.timerFired(now: seconds(0.5)) == [.describe(replica(1))])
        #expect(pools.nextTimer == nil)
    }

    @Test("late events of a replica that has left do no harm")
    func lateNews() {
        var pools = machine(ports: [1])
        pools.removed(replica(1), now: start)
        _ = pools.succeed(replica(1))
        #expect(pools.fail(replica(1), .deadline).isEmpty)
        #expect(pools.described(replica(1), description(), now: start).isEmpty)
        #expect(pools.connected(replica(1)).isEmpty)
        #expect(pools.reports.isEmpty)
    }

    @Test("an ejection is forgotten after many successes in a row, and not before")
    func forgiveness() {
        var pools = machine()
        func eject(at time: Double, for back: Duration) {
            var actions: [PoolAction] = []
            for _ in 0..<3 { actions += pools.fail(replica(1), .unavailable, now: seconds(time)) }
            #expect(actions == [.ejected(replica(1), for: back, .failed(.unavailable))])
            #expect(pools.timerFired(now: seconds(time + 5)) == [.describe(replica(1))])
            _ = pools.described(replica(1), description(), now: start)
        }
        eject(at: 0, for: .milliseconds(500))
        for _ in 0..<99 { _ = pools.succeed(replica(1)) }
        eject(at: 10, for: .seconds(1))
        for _ in 0..<100 { _ = pools.succeed(replica(1)) }
        eject(at: 20, for: .milliseconds(500))
    }

    @Test("when the last ready replica disconnects, the ejected ones are probed at once")
    func lastReadyReplicaDisconnects() {
        var pools = machine(ports: [1, 2, 3])
        for _ in 0..<3 { _ = pools.fail(replica(1), .unavailable) }
        #expect(pools.reports[0].state == .ejected(until: seconds(0.5)))
        pools.disconnected(replica(3), now: start)
        #expect(pools.nextTimer == seconds(0.5))
        pools.disconnected(replica(2), now: start)
        #expect(pools.nextTimer == start)
        #expect(pools.timerFired(now: start) == [.describe(replica(1))])
        #expect(pools.reports[0].state == .probing)
        #expect(pools.described(replica(1), description(), now: start) == [.joined(replica(1))])
    }

    @Test("a replica that left and came back does not exceed its limit of calls in flight")
    func leavingWithCallsOut() {
        var pools = machine(ports: [1])
        for _ in 0..<64 { _ = pools.choose() }
        pools.removed(replica(1), now: start)
        #expect(pools.reports.isEmpty)
        #expect(pools.connected(replica(1)).isEmpty)
        #expect(pools.choose() == .failure(.noneReady))
        pools.added(replica(1))
        _ = pools.connected(replica(1))
        _ = pools.described(replica(1), description(), now: start)
        #expect(pools.choose() == .failure(.allBusy(until: nil)))
        pools.cancel(replica(1))
        #expect(pools.choose() == .success(replica(1)))
        pools.removed(replica(1), now: start)
        for _ in 0..<64 { pools.cancel(replica(1)) }
        pools.added(replica(1))
        #expect(pools.reports[0].outstanding == 0)
    }

    @Test("a learned placement changes with the only replica of its pool, not if another one serves")
    func relearnedPlacement() {
        var pools = machine(ports: [1, 2], placement: false)
        pools.disconnected(replica(2), now: start)
        _ = pools.connected(replica(2))
        guard case .mismatched(_, let reason)? = pools.described(replica(2), description([0]), now: start).first else {
            Issue.record("a replica that lacks an expert joined beside one that has it")
            return
        }
        #expect(reason.contains("lacks experts 1"))
        // Another pool also has expert 1, and gets it when the first one comes back without it.
        let other = replica(3, pool: "b")
        pools.added(other)
        _ = pools.connected(other)
        #expect(pools.described(other, description([1]), now: start) == [.joined(other)])
        #expect(pools.placement.pool(of: 1, in: encoderLayer) == "a")
        pools.disconnected(replica(1), now: start)
        _ = pools.connected(replica(1))
        #expect(pools.described(replica(1), description([0]), now: start) == [.joined(replica(1))])
        #expect(pools.placement.pool(of: 0, in: encoderLayer) == "a")
        #expect(pools.placement.pool(of: 1, in: encoderLayer) == "b")
    }

    @Test("a bad reply ejects at once, unless no other replica serves")
    func badReply() {
        var pools = machine()
        let actions = pools.fail(replica(1), .badReply)
        #expect(actions == [.ejected(replica(1), for: .milliseconds(500), .failed(.badReply))])
        #expect(pools.fail(replica(2), .badReply).isEmpty)
        #expect(pools.state(replica(2)) == .ready)
    }

    @Test("after an ejection a replica is on trial: two failures in a row eject it again")
    func trial() {
        var pools = machine()
        for _ in 0..<3 { _ = pools.fail(replica(1), .unavailable) }
        #expect(pools.timerFired(now: seconds(1)) == [.describe(replica(1))])
        _ = pools.described(replica(1), description(), now: seconds(1))
        #expect(pools.fail(replica(1), .unavailable, now: seconds(1)).isEmpty)
        let actions = pools.fail(replica(1), .unavailable, now: seconds(1))
        #expect(actions == [.ejected(replica(1), for: .seconds(1), .failed(.unavailable))])
    }

    @Test("a replica that is slower than its sibling is ejected; at most half of a pool is")
    func slowness() {
        var pools = machine(ports: [1, 2, 3, 4, 5])
        var actions: [PoolAction] = []
        for _ in 0..<40 {
            actions += pools.succeed(replica(1), in: .microseconds(950))
            for port in 2...4 { actions += pools.succeed(replica(port), in: .milliseconds(40)) }
            // Three times as slow, but by too little to matter.
            actions += pools.succeed(replica(5), in: .microseconds(2900))
        }
        #expect(
            actions == [
                .ejected(replica(2), for: .milliseconds(500), .slow),
                .ejected(replica(3), for: .milliseconds(500), .slow),
            ]
        )
        #expect(pools.state(replica(4)) == .ready)
        #expect(pools.state(replica(5)) == .ready)
    }

    @Test("one stall does not make a replica slow")
    func stall() {
        var pools = machine()
        for turn in 0..<200 {
            let actions = pools.succeed(replica(1), in: .milliseconds(turn == 100 ? 900 : 2))
            #expect(actions.isEmpty)
            #expect(pools.succeed(replica(2), in: .milliseconds(2)).isEmpty)
        }
    }

    @Test("a draining replica gets no more calls, and may come back")
    func draining() {
        var pools = machine()
        #expect(pools.draining(replica(1), now: start) == [.draining(replica(1))])
        #expect(pools.draining(replica(1), now: start).isEmpty)
        for _ in 0..<10 { #expect(pools.choose() == .success(replica(2))) }
        pools.disconnected(replica(1), now: start)
        #expect(pools.connected(replica(1)) == [.describe(replica(1))])
        #expect(pools.described(replica(1), description(), now: start) == [.joined(replica(1))])
    }

    @Test("replicas in the gateway's zone are preferred while one of them is free")
    func zones() {
        var configuration = ExpertPoolsConfiguration.unaudited
        configuration.zone = "north"
        configuration.outstandingPerReplica = 2
        var pools = machine(ports: [], configuration: configuration)
        join(&pools, replica(1), description(zone: "south"))
        join(&pools, replica(2), description(zone: "north"))
        join(&pools, replica(3), description())
        #expect(pools.choose() == .success(replica(2)))
        #expect(pools.choose() == .success(replica(2)))
        for _ in 0..<4 {
            let chosen = pools.choose()
            #expect(chosen == .success(replica(1)) || chosen == .success(replica(3)))
        }
        pools.cancel(replica(2))
        #expect(pools.choose() == .success(replica(2)))
    }

    @Test("a replica that pushes back gets no calls for that time, even if it is the only one")
    func pushback() throws {
        var pools = machine()
        let slot = try #require(pools.slot(of: replica(1)))
        pools.pushedBack(slot, until: seconds(0.2))
        for _ in 0..<10 { #expect(pools.choose(now: seconds(0.1)) == .success(replica(2))) }
        let other = try #require(pools.slot(of: replica(2)))
        pools.pushedBack(other, until: seconds(0.3))
        #expect(pools.choose(now: seconds(0.1)) == .failure(.allBusy(until: seconds(0.2))))
        #expect(pools.choose(now: seconds(0.2)) == .success(replica(1)))
    }

    @Test("missed deadlines count over connections: a host that ends each connection and never answers is ejected")
    func missesOverConnections() {
        var pools = machine(ports: [1])
        for miss in 1...3 {
            #expect(pools.choose() == .success(replica(1)))
            let actions = pools.fail(replica(1), .deadline)
            #expect(actions.isEmpty == (miss < 3))
            #expect(pools.state(replica(1))?.name == (miss < 3 ? "ready" : "ejected"))
            guard miss < 3 else { return }
            pools.disconnected(replica(1), now: start)
            join(&pools, replica(1))
        }
    }

    @Test("an answer ends the count of missed deadlines, on any connection")
    func answerEndsMisses() {
        var pools = machine(ports: [1])
        for _ in 0..<6 {
            _ = pools.choose()
            #expect(pools.fail(replica(1), .deadline).isEmpty)
            pools.disconnected(replica(1), now: start)
            join(&pools, replica(1))
            _ = pools.choose()
            #expect(pools.succeed(replica(1)).isEmpty)
        }
    }

    @Test("replicas of one pool store weights in one type, unless mixing is allowed")
    func weightTypes() {
        var text = description()
        text.weightType = .float32
        var other = description()
        other.weightType = .bfloat16
        for isAllowed in [false, true] {
            var configuration = ExpertPoolsConfiguration.unaudited
            configuration.allowsMixedWeightTypes = isAllowed
            var pools = machine(ports: [], configuration: configuration)
            join(&pools, replica(1), text)
            pools.added(replica(2))
            _ = pools.connected(replica(2))
            let actions = pools.described(replica(2), other, now: start)
            #expect((actions == [.joined(replica(2))]) == isAllowed)
            // Once it is alone, it may be of any type.
            pools.disconnected(replica(1), now: start)
            pools.disconnected(replica(2), now: start)
            _ = pools.connected(replica(2))
            #expect(pools.described(replica(2), other, now: start) == [.joined(replica(2))])
        }
    }

    @Test("rows in a type that the replica does not accept are never sent")
    func rowTypes() {
        var text = description()
        text.rowTypes = [.bfloat16]
        var pools = machine(ports: [])
        pools.added(replica(1))
        _ = pools.connected(replica(1))
        guard case .mismatched(_, let reason)? = pools.described(replica(1), text, now: start).first else {
            Issue.record("it is not mismatched")
            return
        }
        #expect(reason.contains("accepts token rows in bfloat16, but this gateway sends float32"))
    }

    @Test("an expert is placed on an additional pool only while every ready replica of that pool holds it")
    func extras() {
        var table = PlacementTable()
        table.place(0, of: encoderLayer, on: "a")
        table.place(1, of: encoderLayer, on: "b")
        var pools = ExpertPools(fingerprint: 7, modelWidth: 16, placement: table, seed: 1)
        join(&pools, replica(1), description([0]))
        join(&pools, replica(2, pool: "b"), description([0, 1]))
        pools.setExtras([encoderLayer: [0: ["b"]]])
        #expect(pools.placement.extras == [encoderLayer: [0: ["b"]]])
        #expect(pools.spareExperts()["b"]?[encoderLayer] == [0])
        // One with less joins: what it lacks is no longer placed there.
        join(&pools, replica(3, pool: "b"), description([1]))
        #expect(pools.placement.extras.isEmpty)
        pools.disconnected(replica(3, pool: "b"), now: start)
        #expect(pools.placement.extras == [encoderLayer: [0: ["b"]]])
        // The expert's own pool is gone: the other one computes it.
        pools.disconnected(replica(1), now: start)
        let (calls, unplaced) = pools.assignments(
            of: [(expert: 0, rows: 3), (expert: 1, rows: 2)],
            in: encoderLayer,
            now: start
        )
        #expect(unplaced.isEmpty)
        #expect(calls.map(\.pool) == ["b"])
        #expect(calls.first?.rowCount == 5)
    }
}
