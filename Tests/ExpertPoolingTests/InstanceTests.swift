// SPDX-License-Identifier: Apache-2.0

import SwitchyardTypes
import Testing

@testable import ExpertPooling

private func process(_ name: String, experts: Set<Int> = [0, 1]) -> ReplicaDescription {
    var text = description(experts)
    text.instance = name
    return text
}

@Suite("Several addresses of one process")
struct InstanceTests {
    private let first = replica(1)
    private let second = replica(2)
    private let other = replica(3)

    /// Pools with the addresses 1 and 2 of one process, and another host.
    private func pools(isAlone: Bool = false) -> ExpertPools {
        var pools = machine(ports: [])
        join(&pools, self.first, process("p"))
        self.meet(&pools, self.second, process("p"), spareOf: self.first)
        if !isAlone { join(&pools, self.other, process("q")) }
        return pools
    }

    private func meet(
        _ pools: inout ExpertPools,
        _ id: ReplicaID,
        _ text: ReplicaDescription,
        spareOf known: ReplicaID,
        now: ContinuousClock.Instant = start
    ) {
        pools.added(id)
        #expect(pools.connected(id) == [.describe(id)])
        #expect(pools.described(id, text, now: now) == [.spare(id, of: known)])
        #expect(pools.state(id) == .spare(of: known))
        #expect(pools.checkInvariants() == nil)
    }

    @Test("two addresses of a process are one replica: counted once, chosen once, without double weight")
    func countedOnce() {
        var pools = self.pools()
        #expect(pools.readyCount(of: "a") == 2)
        var taken: [ReplicaID: Int] = [:]
        for _ in 0..<100 {
            if case .success(let id) = pools.choose() { taken[id, default: 0] += 1 }
        }
        #expect(taken == [self.first: 50, self.other: 50])
        #expect(pools.choose(excluding: [self.first, self.other]) == .failure(.allTried))
    }

    @Test("a process that has proved itself under one address is not quarantined under the other")
    func cleared() throws {
        var configuration = ExpertPoolsConfiguration.unaudited
        configuration.proofsToServe = 1
        var pools = machine(ports: [], configuration: configuration)
        join(&pools, self.first, process("p"))
        self.meet(&pools, self.second, process("p"), spareOf: self.first)
        join(&pools, self.other, process("q"))
        let slot = try #require(pools.slot(of: self.first))
        #expect(pools.quarantine(slot, now: start) == [.quarantined(self.first)])
        let due = try #require(pools.nextTimer)
        #expect(pools.timerFired(now: due) == [.proveEvidence(self.first)])
        #expect(pools.proofEnded(self.first, .right, now: due) == [.cleared(self.first), .describe(self.first)])
        #expect(pools.checkInvariants() == nil)
        // The other address takes over once it has answered a probe.
        #expect(pools.timerFired(now: due) == [.describe(self.second)])
        #expect(pools.described(self.second, process("p"), now: due) == [.joined(self.second)])
        #expect(pools.described(self.first, process("p"), now: due) == [.spare(self.first, of: self.second)])
        #expect(pools.checkInvariants() == nil)
    }

    @Test("an address takes over what another of its process was caught with, and starts its proofs anew")
    func caughtUnderAnotherAddress() throws {
        var pools = self.pools()
        let slot = try #require(pools.slot(of: self.first))
        _ = pools.quarantine(slot, now: start)
        let due = try #require(pools.nextTimer)
        #expect(pools.timerFired(now: due) == [.proveEvidence(self.first)])
        pools.disconnected(self.first, now: due)
        #expect(pools.state(self.second) == .quarantined)
        #expect(pools.checkInvariants() == nil)
        let again = try #require(pools.nextTimer)
        #expect(pools.timerFired(now: again) == [.proveEvidence(self.second)])
    }

    @Test("a hedge or a retry never goes to another address of the process that has the call")
    func noHedgeToItself() {
        var pools = self.pools(isAlone: true)
        var calls = LayerCalls(layer: encoderLayer, deadline: seconds(5), policy: pools.configuration.encoder)
        let assignment = PoolAssignment(pool: "a", groups: [.init(expert: 0, rows: 0..<1)])
        var sent: [ReplicaID] = []
        for case .send(_, to: let id) in calls.begin([assignment], pools: &pools, now: start) { sent.append(id) }
        for step in 1...40 {
            for case .send(_, to: let id) in calls.timerFired(pools: &pools, now: seconds(Double(step) / 10)) {
                sent.append(id)
            }
        }
        #expect(sent == [self.first])
    }

    @Test("when the connection through one address is lost, the other one takes its place at once")
    func failover() {
        var pools = self.pools(isAlone: true)
        pools.disconnected(self.first, now: start)
        #expect(pools.state(self.second) == .ready)
        #expect(pools.choose() == .success(self.second))
        // Back again it is the spare one.
        self.meet(&pools, self.first, process("p"), spareOf: self.second)
        pools.removed(self.second, now: start)
        #expect(pools.state(self.first) == .ready)
        #expect(pools.checkInvariants() == nil)
    }

    @Test("a third address is promoted after the second, and names the one that has the calls")
    func threeAddresses() {
        var pools = self.pools()
        self.meet(&pools, replica(4), process("p"), spareOf: self.first)
        pools.disconnected(self.first, now: start)
        #expect(pools.state(self.second) == .ready)
        #expect(pools.state(replica(4)) == .spare(of: self.second))
        pools.disconnected(self.second, now: start)
        #expect(pools.state(replica(4)) == .ready)
        #expect(pools.readyCount(of: "a") == 2)
        #expect(pools.checkInvariants() == nil)
    }

    @Test("an ejection is the process's: its other address does not serve in its place, nor after a lost connection")
    func ejectionIsInherited() {
        var pools = self.pools()
        for _ in 0..<3 { _ = pools.fail(self.first, .deadline) }
        #expect(pools.state(self.first) == .ejected(until: seconds(0.5)))
        #expect(pools.state(self.second) == .spare(of: self.first))
        pools.disconnected(self.first, now: seconds(0.1))
        #expect(pools.state(self.second) == .ejected(until: seconds(0.5)))
        #expect(pools.timerFired(now: seconds(0.5)) == [.describe(self.second)])
        #expect(pools.described(self.second, process("p"), now: seconds(0.5)) == [.joined(self.second)])
        // It is on trial there, too.
        let actions = pools.fail(self.second, .deadline, now: seconds(3))
        #expect(actions == [.ejected(self.second, for: .seconds(1), .failed(.deadline))])
    }

    @Test("when a probe has no answer the other address is probed: a dead path does not keep a process out")
    func deadPath() {
        var pools = self.pools()
        for _ in 0..<3 { _ = pools.fail(self.first, .deadline) }
        #expect(pools.timerFired(now: seconds(0.5)) == [.describe(self.first)])
        pools.describeFailed(self.first, now: seconds(1.5))
        #expect(pools.state(self.second)?.name == "ejected")
        #expect(pools.timerFired(now: seconds(1.5)) == [.describe(self.second)])
        #expect(pools.checkInvariants() == nil)
        #expect(pools.described(self.second, process("p"), now: seconds(1.6)) == [.joined(self.second)])
        // The dead path is asked now and then, and found to be another address of what serves.
        #expect(pools.timerFired(now: seconds(3.5)) == [.describe(self.first)])
        #expect(pools.described(self.first, process("p"), now: seconds(3.6)) == [.spare(self.first, of: self.second)])
        #expect(pools.checkInvariants() == nil)
    }

    @Test("neither address answers: both wait, and the one that answers first serves")
    func bothDead() {
        var pools = self.pools(isAlone: true)
        for _ in 0..<3 { _ = pools.fail(self.first, .deadline) }
        _ = pools.timerFired(now: seconds(0.5))
        pools.describeFailed(self.first, now: seconds(1.5))
        _ = pools.timerFired(now: seconds(1.5))
        pools.describeFailed(self.second, now: seconds(2.5))
        #expect(pools.state(self.first) == .unverified)
        #expect(pools.state(self.second)?.name == "ejected")
        #expect(pools.timerFired(now: seconds(3.5)) == [.describe(self.first)])
        #expect(pools.described(self.first, process("p"), now: seconds(3.6)) == [.spare(self.first, of: self.second)])
        let probe = pools.nextTimer ?? seconds(100)
        #expect(probe <= seconds(5))
        #expect(pools.timerFired(now: probe) == [.describe(self.second)])
        #expect(pools.described(self.second, process("p"), now: probe) == [.joined(self.second)])
        #expect(pools.checkInvariants() == nil)
    }

    @Test("a draining process drains at all its addresses")
    func draining() {
        var pools = self.pools()
        #expect(pools.draining(self.first, now: start) == [.draining(self.first)])
        for _ in 0..<4 { #expect(pools.choose() == .success(self.other)) }
        pools.disconnected(self.first, now: start)
        #expect(pools.state(self.second) == .draining)
        #expect(pools.checkInvariants() == nil)
    }

    @Test("behind one address another process may answer: what was its spare address is a replica then")
    func addressChangesHands() {
        var pools = self.pools(isAlone: true)
        for _ in 0..<3 { _ = pools.fail(self.first, .deadline) }
        _ = pools.timerFired(now: seconds(0.5))
        #expect(pools.described(self.first, process("r"), now: seconds(0.6)) == [.joined(self.first)])
        #expect(pools.state(self.second)?.name == "ejected")
        #expect(pools.checkInvariants() == nil)
        #expect(pools.timerFired(now: seconds(0.7)) == [.describe(self.second)])
        #expect(pools.described(self.second, process("p"), now: seconds(0.7)) == [.joined(self.second)])
        #expect(pools.readyCount(of: "a") == 2)
    }

    @Test("hosts that give no id, and processes in two pools, are replicas each")
    func apart() {
        var pools = machine(ports: [1, 2])
        #expect(pools.readyCount(of: "a") == 2)
        join(&pools, replica(3), process("p"))
        join(&pools, replica(3, pool: "b"), process("p"))
        #expect(pools.readyCount(of: "a") == 3)
        #expect(pools.readyCount(of: "b") == 1)
        #expect(pools.checkInvariants() == nil)
    }

    @Test("spare addresses do not make a pool look half empty, so a slow process is still ejected")
    func slowness() {
        var pools = self.pools()
        self.meet(&pools, replica(4), process("q"), spareOf: self.other)
        var actions: [PoolAction] = []
        for _ in 0..<40 {
            actions += pools.succeed(self.first, in: .milliseconds(1))
            actions += pools.succeed(self.other, in: .milliseconds(40))
        }
        #expect(actions == [.ejected(self.other, for: .milliseconds(500), .slow)])
        #expect(pools.state(replica(4)) == .spare(of: self.other))
    }
}

@Suite("Learned placement")
struct LearnedPlacementTests {
    private func experts(_ pools: ExpertPools, _ pool: String = "a") -> Set<Int> {
        pools.placement.experts(of: pool)[encoderLayer] ?? []
    }

    @Test("an expert is placed on a pool only while each of its ready replicas holds it")
    func onlyWhatAllHold() {
        var pools = machine(ports: [], placement: false)
        join(&pools, replica(1), description([0, 1]))
        join(&pools, replica(2), description([0, 1, 2]))
        #expect(self.experts(pools) == [0, 1])
        #expect(!pools.isComplete(layers: [encoderLayer], expertCount: 3))
        #expect(pools.checkInvariants() == nil)
        // Alone, the one that holds it is asked for it.
        pools.disconnected(replica(1), now: start)
        #expect(self.experts(pools) == [0, 1, 2])
        #expect(pools.isComplete(layers: [encoderLayer], expertCount: 3))
        // Now the other one lacks an expert.
        #expect(pools.connected(replica(1)) == [.describe(replica(1))])
        let actions = pools.described(replica(1), description([0, 1]), now: start)
        guard case .mismatched(_, let reason)? = actions.first else {
            Issue.record("a replica that lacks an expert joined: \(actions)")
            return
        }
        #expect(reason.contains("lacks experts 2"))
        #expect(pools.checkInvariants() == nil)
    }

    @Test("an expert that one replica of a pool holds goes to the pool in which all hold it")
    func elsewhere() {
        var pools = machine(ports: [], placement: false)
        join(&pools, replica(1), description([0, 1]))
        join(&pools, replica(2), description([0, 1, 2, 3]))
        join(&pools, replica(3, pool: "b"), description([2, 3]))
        #expect(self.experts(pools) == [0, 1])
        #expect(self.experts(pools, "b") == [2, 3])
        pools.disconnected(replica(1), now: start)
        #expect(self.experts(pools) == [0, 1])
        #expect(pools.checkInvariants() == nil)
    }

    @Test(
        "whatever hosts hold and whenever they come and go, a pool is asked only for what each ready one holds",
        arguments: 1...20
    )
    func property(seed: UInt64) {
        var random = SplitMix(state: seed)
        var pools = machine(ports: [], placement: false)
        let ids = (0..<6).map { replica($0, pool: "pool \($0 % 2)") }
        for id in ids { pools.added(id) }
        for step in 0..<400 {
            guard let id = ids.randomElement(using: &random) else { return }
            switch Int.random(in: 0..<6, using: &random) {
            case 0: pools.disconnected(id, now: seconds(Double(step)))
            case 1: _ = pools.draining(id, now: seconds(Double(step)))
            case 2: for _ in 0..<3 { _ = pools.fail(id, .deadline, now: seconds(Double(step))) }
            default:
                _ = pools.connected(id)
                let held = Set((0..<5).filter { _ in Bool.random(using: &random) })
                _ = pools.timerFired(now: seconds(Double(step)))
                _ = pools.described(id, description(held), now: seconds(Double(step)))
            }
            if let broken = pools.checkInvariants() {
                Issue.record("step \(step): \(broken)")
                return
            }
        }
    }
}
