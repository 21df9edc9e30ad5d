// SPDX-License-Identifier: Apache-2.0

import ExpertPooling
import Testing

private let start = ContinuousClock.now
private let layer = ExpertLayer(isDecoder: false, block: 1)

private func seconds(_ value: Double) -> ContinuousClock.Instant {
    start.advanced(by: .milliseconds(Int64(value * 1000)))
}

private func replica(_ port: Int, pool: String = "a") -> ReplicaID {
    ReplicaID(pool: pool, host: "h", port: port)
}

private func description(_ experts: Set<Int> = [0, 1], fingerprint: UInt64 = 7) -> ReplicaDescription {
    ReplicaDescription(fingerprint: fingerprint, experts: [layer: experts], modelWidth: 16)
}

private func machine(ports: [Int] = [1, 2], placement: Bool = true) -> ExpertPools {
    var table = PlacementTable()
    table.place(0, of: layer, on: "a")
    table.place(1, of: layer, on: "a")
    var pools = ExpertPools(fingerprint: 7, modelWidth: 16, placement: placement ? table : nil)
    for port in ports {
        pools.added(replica(port))
        #expect(pools.connected(replica(port)) == [.describe(replica(port))])
        #expect(pools.described(replica(port), description()) == [.joined(replica(port))])
    }
    return pools
}

@Suite("Expert pools")
struct ExpertPoolsTests {
    @Test("a replica is verified before it is used")
    func verification() {
        var pools = machine(ports: [])
        var generator = SystemRandomNumberGenerator()
        pools.added(replica(1))
        #expect(pools.startCall(in: "a", using: &generator) == .failure(.noneServing))
        _ = pools.connected(replica(1))
        #expect(pools.startCall(in: "a", using: &generator) == .failure(.noneServing))
        #expect(!pools.isComplete(layers: [layer], expertCount: 2))
        _ = pools.described(replica(1), description())
        #expect(pools.startCall(in: "a", using: &generator) == .success(replica(1)))
        #expect(pools.isComplete(layers: [layer], expertCount: 2))
        #expect(!pools.isComplete(layers: [layer], expertCount: 3))
        #expect(pools.reports[0].outstanding == 1)
    }

    @Test(
        "a replica that does not fit is refused, with the reason",
        arguments: [
            (description(fingerprint: 8), "0000000000000008"),
            (description([0]), "lacks experts 1 of layer encoder 1"),
            (ReplicaDescription(fingerprint: 7, experts: [layer: [0, 1]], modelWidth: 8), "8 wide"),
        ]
    )
    func refusal(description: ReplicaDescription, part: String) {
        var pools = machine(ports: [])
        var generator = SystemRandomNumberGenerator()
        pools.added(replica(1))
        _ = pools.connected(replica(1))
        guard case .refused(replica(1), let reason)? = pools.described(replica(1), description).first else {
            Issue.record("the replica was not refused")
            return
        }
        #expect(reason.contains(part), "\(reason)")
        #expect(pools.startCall(in: "a", using: &generator) == .failure(.noneServing))
        // Another process may come up at that address.
        pools.disconnected(replica(1))
        #expect(pools.connected(replica(1)) == [.describe(replica(1))])
    }

    @Test("placement is learned from the replicas where no file gives it")
    func learnedPlacement() {
        var pools = ExpertPools(fingerprint: 7, modelWidth: 16, placement: nil)
        for (port, pool, experts) in [(1, "a", Set([0])), (2, "b", Set([1, 2]))] {
            let id = replica(port, pool: pool)
            pools.added(id)
            _ = pools.connected(id)
            _ = pools.described(id, description(experts))
        }
        #expect(pools.placement.pool(of: 0, in: layer) == "a")
        #expect(pools.placement.pool(of: 2, in: layer) == "b")
        #expect(pools.isComplete(layers: [layer], expertCount: 3))
    }

    @Test("the less loaded of two is chosen, and nobody gets more calls than may be out")
    func choice() {
        var pools = machine()
        var generator = SystemRandomNumberGenerator()
        var taken: [ReplicaID: Int] = [:]
        for _ in 0..<128 {
            guard case .success(let id) = pools.startCall(in: "a", using: &generator) else {
                Issue.record("a call found no replica")
                return
            }
            taken[id, default: 0] += 1
        }
        #expect(taken == [replica(1): 64, replica(2): 64])
        #expect(pools.startCall(in: "a", using: &generator) == .failure(.allBusy))
        pools.callCancelled(replica(2))
        #expect(pools.startCall(in: "a", using: &generator) == .success(replica(2)))
        let excluded = pools.startCall(in: "a", excluding: [replica(1), replica(2)], using: &generator)
        #expect(excluded == .failure(.noneServing))
    }

    @Test("three failures in a row eject, for longer each time, until a probe is answered")
    func ejection() {
        var pools = machine()
        #expect(pools.callFailed(replica(1), .unavailable, now: start).isEmpty)
        pools.callSucceeded(replica(1), rows: 3, time: .milliseconds(1))
        #expect(pools.callFailed(replica(1), .unavailable, now: start).isEmpty)
        #expect(pools.callFailed(replica(1), .badReply, now: start).isEmpty)
        let actions = pools.callFailed(replica(1), .deadline, now: start)
        #expect(actions == [.ejected(replica(1), for: .milliseconds(500), after: .deadline)])
        #expect(pools.nextTimer == seconds(0.5))
        #expect(pools.timerFired(now: seconds(0.4)).isEmpty)
        #expect(pools.timerFired(now: seconds(0.5)) == [.describe(replica(1))])
        pools.describeFailed(replica(1), now: seconds(0.6))
        #expect(pools.reports[0].state == .ejected(until: seconds(0.6).advanced(by: .seconds(2))))
        #expect(pools.timerFired(now: seconds(2.6)) == [.describe(replica(1))])
        #expect(pools.described(replica(1), description()) == [.joined(replica(1))])
        #expect(pools.reports[0].state == .serving)
    }

    @Test("the last replica is kept for errors, and left alone for missed deadlines")
    func lastReplica() {
        var pools = machine(ports: [1])
        for _ in 0..<10 { #expect(pools.callFailed(replica(1), .unavailable, now: start).isEmpty) }
        #expect(pools.isServing("a"))
        #expect(!pools.callFailed(replica(1), .deadline, now: start).isEmpty)
        #expect(!pools.isServing("a"))
    }

    @Test("shedding load ejects nobody")
    func overload() {
        var pools = machine()
        for _ in 0..<100 { #expect(pools.callFailed(replica(1), .overloaded, now: start).isEmpty) }
        #expect(pools.reports[0].state == .serving)
    }

    @Test("a question that fails is asked again")
    func describeRetry() {
        var pools = machine(ports: [])
        pools.added(replica(1))
        _ = pools.connected(replica(1))
        pools.describeFailed(replica(1), now: start)
        #expect(pools.nextTimer == seconds(0.5))
        #expect(pools.timerFired(now: seconds(0.5)) == [.describe(replica(1))])
        #expect(pools.nextTimer == nil)
    }

    @Test("late news of a replica that has left does no harm")
    func lateNews() {
        var pools = machine(ports: [1])
        pools.removed(replica(1))
        pools.callSucceeded(replica(1), rows: 1, time: .zero)
        #expect(pools.callFailed(replica(1), .deadline, now: start).isEmpty)
        #expect(pools.described(replica(1), description()).isEmpty)
        #expect(pools.connected(replica(1)).isEmpty)
        #expect(pools.reports.isEmpty)
    }

    @Test("an ejection is forgotten after many successes in a row, and not before")
    func forgiveness() {
        var pools = machine()
        func eject(at time: Double, for back: Duration) {
            var actions: [PoolAction] = []
            for _ in 0..<3 { actions += pools.callFailed(replica(1), .badReply, now: seconds(time)) }
            #expect(actions == [.ejected(replica(1), for: back, after: .badReply)])
            #expect(pools.timerFired(now: seconds(time + 5)) == [.describe(replica(1))])
            _ = pools.described(replica(1), description())
        }
        eject(at: 0, for: .milliseconds(500))
        for _ in 0..<99 { pools.callSucceeded(replica(1), rows: 1, time: .milliseconds(1)) }
        eject(at: 10, for: .seconds(1))
        for _ in 0..<100 { pools.callSucceeded(replica(1), rows: 1, time: .milliseconds(1)) }
        eject(at: 20, for: .milliseconds(500))
    }

    @Test("when the last serving replica disconnects, the ejected ones are probed at once")
    func lastServingReplicaDisconnects() {
        var pools = machine(ports: [1, 2, 3])
        for _ in 0..<3 { _ = pools.callFailed(replica(1), .unavailable, now: start) }
        #expect(pools.reports[0].state == .ejected(until: seconds(0.5)))
        pools.disconnected(replica(3))
        #expect(pools.nextTimer == seconds(0.5))
        pools.disconnected(replica(2))
        #expect(pools.nextTimer == start)
        #expect(pools.timerFired(now: start) == [.describe(replica(1))])
        #expect(pools.reports[0].state == .probing)
        #expect(pools.described(replica(1), description()) == [.joined(replica(1))])
    }

    @Test("a replica that left and came back is not given more calls than may be out")
    func leavingWithCallsOut() {
        var pools = machine(ports: [1])
        var generator = SystemRandomNumberGenerator()
        for _ in 0..<64 { _ = pools.startCall(in: "a", using: &generator) }
        pools.removed(replica(1))
        #expect(pools.reports.isEmpty)
        #expect(pools.connected(replica(1)).isEmpty)
        #expect(pools.startCall(in: "a", using: &generator) == .failure(.noneServing))
        pools.added(replica(1))
        _ = pools.connected(replica(1))
        _ = pools.described(replica(1), description())
        #expect(pools.startCall(in: "a", using: &generator) == .failure(.allBusy))
        pools.callCancelled(replica(1))
        #expect(pools.startCall(in: "a", using: &generator) == .success(replica(1)))
        pools.removed(replica(1))
        for _ in 0..<64 { pools.callCancelled(replica(1)) }
        pools.added(replica(1))
        #expect(pools.reports[0].outstanding == 0)
    }

    @Test("a learned placement changes with the only replica of its pool, and not beside another that serves")
    func relearnedPlacement() {
        var pools = machine(ports: [1, 2], placement: false)
        pools.disconnected(replica(2))
        _ = pools.connected(replica(2))
        guard case .refused(_, let reason)? = pools.described(replica(2), description([0])).first else {
            Issue.record("a replica that lacks an expert joined beside one that has it")
            return
        }
        #expect(reason.contains("lacks experts 1"))
        // Another pool also has expert 1, and gets it when the first one comes back without it.
        let other = replica(3, pool: "b")
        pools.added(other)
        _ = pools.connected(other)
        #expect(pools.described(other, description([1])) == [.joined(other)])
        #expect(pools.placement.pool(of: 1, in: layer) == "a")
        pools.disconnected(replica(1))
        _ = pools.connected(replica(1))
        #expect(pools.described(replica(1), description([0])) == [.joined(replica(1))])
        #expect(pools.placement.pool(of: 0, in: layer) == "a")
        #expect(pools.placement.pool(of: 1, in: layer) == "b")
    }
}
