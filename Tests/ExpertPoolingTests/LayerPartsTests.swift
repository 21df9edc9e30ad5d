// SPDX-License-Identifier: Apache-2.0

import SwitchyardTypes
import Testing

@testable import ExpertPooling

/// Answers that lack some of their call's eight rows.
@Suite("Answers in part")
struct LayerPartsTests {
    private struct Bench {
        var pools: ExpertPools
        var calls: LayerCalls
        /// Replicas that the call was sent to, in order.
        var sent: [ReplicaID] = []
        /// The pool's actions so far.
        var pooled: [PoolAction] = []

        init(ports: [Int]) {
            self.pools = machine(ports: ports)
            let policy = self.pools.configuration.policy(of: decoderLayer)
            self.calls = LayerCalls(layer: decoderLayer, deadline: seconds(1), policy: policy)
            let rows = PoolAssignment(pool: "a", groups: [.init(expert: 0, rows: 0..<8)])
            _ = self.keep(self.calls.begin([rows], pools: &self.pools, now: start))
        }

        /// Sorts actions, and returns those that are neither sends nor the pools'.
        mutating func keep(_ actions: [LayerAction]) -> [LayerAction] {
            actions.filter { action in
                switch action {
                case .send(_, to: let id): self.sent.append(id)
                case .pool(let action): self.pooled.append(action)
                case .cancel, .drop, .recompute, .accept, .caught, .dispute, .prove: return true
                }
                return false
            }
        }

        mutating func part(_ number: Int, missing: Int) -> [LayerAction] {
            let attempt = AttemptID(call: 0, number: number)
            return self.keep(
                self.calls.answeredInPart(attempt, missing: missing, pools: &self.pools, now: seconds(0.01))
            )
        }

        mutating func whole(_ number: Int) -> [LayerAction] {
            self.keep(
                self.calls.answered(AttemptID(call: 0, number: number), pools: &self.pools, now: seconds(0.02))
            )
        }

        var isOver: Bool { self.calls.isComplete && self.pools.reports.allSatisfy { $0.outstanding == 0 } }
        var dropped: UInt64? { self.pools.counts["a"]?.droppedRows }
        var badReplies: [ReplicaID] {
            self.pools.reports.filter { $0.attempts[.failed(.badReply)] > 0 }.map(\.id)
        }
    }

    @Test("without another replica only the missing rows are dropped, and the last host is not ejected")
    func alone() {
        var bench = Bench(ports: [1])
        #expect(bench.part(0, missing: 3) == [.drop(call: 0, .badReply)])
        #expect(bench.isOver)
        #expect(bench.dropped == 3)
        #expect(bench.pools.state(replica(1)) == .ready)
        #expect(bench.badReplies == [replica(1)])
    }

    @Test("another replica that has the rows convicts the first one")
    func convicted() {
        var bench = Bench(ports: [1, 2])
        #expect(bench.part(0, missing: 3).isEmpty)
        #expect(bench.sent.count == 2)
        #expect(bench.sent[0] != bench.sent[1])
        // Not judged yet.
        #expect(bench.pooled.isEmpty)
        #expect(bench.whole(1).isEmpty)
        #expect(bench.isOver)
        #expect(bench.dropped == 0)
        #expect(bench.badReplies == [bench.sent[0]])
        #expect(bench.pools.state(bench.sent[0])?.name == "ejected")
        #expect(bench.pools.state(bench.sent[1]) == .ready)
    }

    @Test("two replicas that lack the same rows are both good, and no third is asked")
    func confirmed() {
        var bench = Bench(ports: [1, 2, 3])
        #expect(bench.part(0, missing: 3).isEmpty)
        #expect(bench.part(1, missing: 3) == [.drop(call: 0, .badReply)])
        #expect(bench.sent.count == 2)
        #expect(bench.isOver)
        #expect(bench.dropped == 3)
        #expect(bench.badReplies.isEmpty)
        #expect(bench.pooled.isEmpty)
    }

    @Test("answers that lack different rows make a whole one together, and their hosts have failed")
    func pieced() {
        var bench = Bench(ports: [1, 2, 3])
        #expect(bench.part(0, missing: 3).isEmpty)
        #expect(bench.part(1, missing: 0).isEmpty)
        #expect(bench.isOver)
        #expect(bench.dropped == 0)
        #expect(Set(bench.badReplies) == Set(bench.sent))
        #expect(bench.pools.readyCount(of: "a") == 1)
    }

    @Test("a second replica that fails in another way costs the missing rows alone")
    func secondFails() {
        var bench = Bench(ports: [1, 2])
        #expect(bench.part(0, missing: 3).isEmpty)
        let attempt = AttemptID(call: 0, number: 1)
        let end = bench.keep(bench.calls.failed(attempt, .refused, pools: &bench.pools, now: seconds(0.02)))
        #expect(end == [.drop(call: 0, .badReply)])
        #expect(bench.isOver)
        #expect(bench.dropped == 3)
    }

    @Test("the deadline costs the missing rows alone")
    func deadline() {
        var bench = Bench(ports: [1, 2])
        #expect(bench.part(0, missing: 3).isEmpty)
        let end = bench.keep(bench.calls.timerFired(pools: &bench.pools, now: seconds(1)))
        #expect(end == [.cancel(AttemptID(call: 0, number: 1)), .drop(call: 0, .badReply)])
        #expect(bench.isOver)
        #expect(bench.dropped == 3)
    }

    @Test("an abandoned layer judges no replica")
    func abandoned() {
        var bench = Bench(ports: [1, 2])
        #expect(bench.part(0, missing: 3).isEmpty)
        let end = bench.keep(bench.calls.abandoned(pools: &bench.pools, now: seconds(0.02)))
        #expect(end == [.cancel(AttemptID(call: 0, number: 1))])
        #expect(bench.isOver)
        #expect(bench.badReplies.isEmpty)
        #expect(bench.pooled.isEmpty)
    }
}
