// SPDX-License-Identifier: Apache-2.0

import SwitchyardTypes
import Testing

@testable import ExpertPooling

/// How two replicas of a pool may be at odds: the second is refused while the first one serves.
struct Odds: Sendable, CustomTestStringConvertible {
    let testDescription: String
    let first: ReplicaDescription
    let second: ReplicaDescription
    /// Whether the gateway was given its placement.
    let isPlacementGiven: Bool

    static let all: [Odds] = [
        Odds(
            testDescription: "weight types",
            first: stored(.float32),
            second: stored(.bfloat16),
            isPlacementGiven: true
        ),
        Odds(
            testDescription: "weight types, learned placement",
            first: stored(.bfloat16),
            second: stored(.float32),
            isPlacementGiven: false
        ),
        Odds(
            testDescription: "fewer experts, learned placement",
            first: description([0, 1]),
            second: description([0]),
            isPlacementGiven: false
        ),
        Odds(
            testDescription: "other experts, learned placement",
            first: description([0, 1]),
            second: description([2, 3]),
            isPlacementGiven: false
        ),
    ]
}

private func stored(_ type: DType) -> ReplicaDescription {
    var text = description()
    text.weightType = type
    return text
}

/// The ways in which a replica stops serving.
enum Departure: CaseIterable, Sendable {
    case disconnected, removed, draining, ejected
}

@Suite("Refused replicas are judged again")
struct RefusedReplicaTests {
    /// Pools in which the first replica serves and the second is refused for its sake.
    private func pools(_ odds: Odds) -> ExpertPools {
        var pools = machine(ports: [], placement: odds.isPlacementGiven)
        join(&pools, replica(1), odds.first)
        self.connect(&pools, 2)
        self.refuse(&pools, 2, odds.second)
        return pools
    }

    private func connect(_ pools: inout ExpertPools, _ port: Int) {
        pools.added(replica(port))
        #expect(pools.connected(replica(port)) == [.describe(replica(port))])
    }

    private func refuse(_ pools: inout ExpertPools, _ port: Int, _ text: ReplicaDescription) {
        let actions = pools.described(replica(port), text, now: start)
        guard case .mismatched(replica(port), _)? = actions.first, actions.count == 1 else {
            Issue.record("\(port) is not refused: \(actions)")
            return
        }
        #expect(pools.checkInvariants() == nil)
    }

    private func leave(_ pools: inout ExpertPools, _ port: Int, _ departure: Departure) {
        switch departure {
        case .disconnected: pools.disconnected(replica(port), now: start)
        case .removed: pools.removed(replica(port), now: start)
        case .draining: #expect(pools.draining(replica(port), now: start) == [.draining(replica(port))])
        case .ejected:
            // Missed deadlines eject even a pool's last replica.
            for _ in 0..<pools.configuration.failuresToEject {
                _ = pools.choose()
                _ = pools.fail(replica(port), .deadline)
            }
            #expect(pools.state(replica(port))?.name == "ejected")
        }
        #expect(pools.checkInvariants() == nil)
    }

    /// Answers the question that a replica is asked again.
    private func admit(_ pools: inout ExpertPools, _ port: Int, _ text: ReplicaDescription) {
        #expect(pools.state(replica(port)) == .unverified)
        #expect(pools.nextTimer.map { $0 <= start } == true)
        #expect(pools.timerFired(now: start).contains(.describe(replica(port))))
        #expect(pools.described(replica(port), text, now: start) == [.joined(replica(port))])
        #expect(pools.checkInvariants() == nil)
    }

    @Test("once the sibling no longer serves, the refused one does", arguments: Odds.all, Departure.allCases)
    func siblingLeaves(odds: Odds, departure: Departure) {
        var pools = self.pools(odds)
        self.leave(&pools, 1, departure)
        self.admit(&pools, 2, odds.second)
        #expect(pools.readyCount(of: "a") == 1)
    }

    @Test("both leave and come back in the other order: the first to come back serves", arguments: Odds.all)
    func otherOrder(odds: Odds) {
        var pools = self.pools(odds)
        self.leave(&pools, 2, .disconnected)
        self.leave(&pools, 1, .disconnected)
        self.connect(&pools, 2)
        #expect(pools.described(replica(2), odds.second, now: start) == [.joined(replica(2))])
        self.connect(&pools, 1)
        if odds.testDescription.hasPrefix("fewer") {
            // It holds all that its sibling holds.
            #expect(pools.described(replica(1), odds.first, now: start) == [.joined(replica(1))])
        } else {
            self.refuse(&pools, 1, odds.first)
            self.leave(&pools, 2, .disconnected)
            self.admit(&pools, 1, odds.first)
        }
        #expect(pools.checkInvariants() == nil)
    }

    @Test("the sibling comes back with the refused one's weight type: both serve")
    func siblingChanges() {
        var pools = self.pools(Odds.all[0])
        self.leave(&pools, 1, .disconnected)
        self.connect(&pools, 1)
        #expect(pools.described(replica(1), stored(.bfloat16), now: start) == [.joined(replica(1))])
        self.admit(&pools, 2, stored(.bfloat16))
        #expect(pools.readyCount(of: "a") == 2)
    }

    @Test("a reason names a sibling that serves: when that one leaves, the reason names another")
    func otherSibling() {
        var pools = self.pools(Odds.all[0])
        join(&pools, replica(3), stored(.float32))
        self.leave(&pools, 1, .removed)
        #expect(pools.state(replica(2)) == .unverified)
        #expect(pools.timerFired(now: start) == [.describe(replica(2))])
        self.refuse(&pools, 2, stored(.bfloat16))
        guard case .mismatched(let reason)? = pools.state(replica(2)) else { return }
        #expect(reason.contains("h:3"))
        #expect(!reason.contains("h:1"))
    }

    @Test("two refused replicas at odds with each other: one of them serves, the other is refused for its sake")
    func threeTypes() {
        var pools = self.pools(Odds.all[0])
        self.connect(&pools, 3)
        self.refuse(&pools, 3, stored(.int8))
        self.leave(&pools, 1, .disconnected)
        #expect(pools.timerFired(now: start) == [.describe(replica(2)), .describe(replica(3))])
        #expect(pools.described(replica(3), stored(.int8), now: start) == [.joined(replica(3))])
        self.refuse(&pools, 2, stored(.bfloat16))
        #expect(pools.readyCount(of: "a") == 1)
    }

    @Test("what no sibling can change stays refused, and is not asked again and again")
    func lasting() {
        var row = description()
        row.rowTypes = [.bfloat16]
        for wrong in [description(fingerprint: 8), description([0]), row] {
            var pools = machine(ports: [1])
            self.connect(&pools, 2)
            self.refuse(&pools, 2, wrong)
            let before = pools.state(replica(2))
            self.leave(&pools, 1, .disconnected)
            #expect(pools.state(replica(2)) == before)
            #expect(pools.nextTimer == nil)
        }
    }

    @Test("a placement that is learned again readmits a replica of another pool")
    func placementChanges() {
        var pools = machine(ports: [], placement: false)
        join(&pools, replica(1), description([0, 1]))
        join(&pools, replica(2, pool: "b"), description([2, 3]))
        pools.added(replica(3, pool: "b"))
        #expect(pools.connected(replica(3, pool: "b")) == [.describe(replica(3, pool: "b"))])
        let refusal = pools.described(replica(3, pool: "b"), description([2]), now: start)
        guard case .mismatched? = refusal.first else {
            Issue.record("not refused: \(refusal)")
            return
        }
        // Its sibling comes back with as little as it has.
        pools.disconnected(replica(2, pool: "b"), now: start)
        #expect(pools.connected(replica(2, pool: "b")) == [.describe(replica(2, pool: "b"))])
        #expect(
            pools.described(replica(2, pool: "b"), description([2]), now: start) == [.joined(replica(2, pool: "b"))]
        )
        #expect(pools.timerFired(now: start) == [.describe(replica(3, pool: "b"))])
        #expect(
            pools.described(replica(3, pool: "b"), description([2]), now: start) == [.joined(replica(3, pool: "b"))]
        )
        #expect(pools.checkInvariants() == nil)
    }

    @Test(
        "weight types that flap: a pool with a connected host has one that serves, and all that serve are alike",
        arguments: 1...20
    )
    func flappingTypes(seed: UInt64) {
        var random = SplitMix(state: seed)
        var pools = machine(ports: [])
        let ids = (1...3).map { replica($0) }
        var types: [ReplicaID: DType] = [:]
        var up: Set<ReplicaID> = []
        for id in ids { pools.added(id) }
        for step in 0..<300 {
            let now = seconds(Double(step))
            guard let id = ids.randomElement(using: &random) else { return }
            if up.contains(id) {
                pools.disconnected(id, now: now)
                up.remove(id)
            } else {
                types[id] = [DType.float32, .bfloat16, .int8].randomElement(using: &random)
                _ = pools.connected(id)
                up.insert(id)
            }
            #expect(pools.checkInvariants() == nil)
            guard Bool.random(using: &random) else { continue }
            // Now every question is answered: verdicts come to rest.
            for _ in 0..<6 {
                _ = pools.timerFired(now: now)
                for id in ids.shuffled(using: &random) where pools.state(id) == .unverified {
                    _ = pools.described(id, stored(types[id] ?? .float32), now: now)
                    #expect(pools.checkInvariants() == nil)
                }
            }
            let ready = ids.filter { pools.state($0) == .ready }
            #expect(ready.isEmpty == up.isEmpty, "step \(step): \(up) are connected, \(ready) serve")
            #expect(Set(ready.map { types[$0] }).count <= 1)
            // The others are refused for another type, not for one that serves.
            for id in up where pools.state(id) != .ready {
                #expect(pools.state(id)?.name == "mismatched")
                #expect(!ready.contains { types[$0] == types[id] })
            }
        }
    }
}
