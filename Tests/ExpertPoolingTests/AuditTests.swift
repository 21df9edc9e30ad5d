// SPDX-License-Identifier: Apache-2.0

import SwitchyardTypes
import Testing

@testable import ExpertPooling

/// One layer's machine whose calls are all audited, with its pools.
private struct Bench {
    var pools: ExpertPools
    var calls: LayerCalls

    init(
        _ pools: ExpertPools,
        deadline: Double = 1,
        recomputes: RecomputePolicy = .never
    ) {
        self.pools = pools
        self.calls = LayerCalls(
            layer: decoderLayer,
            deadline: seconds(deadline),
            policy: pools.configuration.policy(of: decoderLayer),
            recomputes: recomputes
        )
    }

    mutating func begin(at time: Double = 0) -> [LayerAction] {
        let assignment = PoolAssignment(pool: "a", groups: [.init(expert: 0, rows: 0..<3)])
        return self.calls.begin([assignment], pools: &self.pools, now: seconds(time))
    }

    mutating func heard(_ number: Int, _ opinion: Int, conflicting: Int = 0, at time: Double) -> [LayerAction] {
        defer { self.check() }
        return self.calls.heard(
            attempt(number),
            opinion: opinion,
            conflicting: conflicting,
            pools: &self.pools,
            now: seconds(time)
        )
    }

    mutating func recomputed(_ opinion: Int?, conflicting: Int = 0, at time: Double) -> [LayerAction] {
        defer { self.check() }
        return self.calls.recomputed(
            0,
            opinion: opinion,
            conflicting: conflicting,
            pools: &self.pools,
            now: seconds(time)
        )
    }

    mutating func failed(_ number: Int, _ failure: CallFailure, at time: Double) -> [LayerAction] {
        defer { self.check() }
        return self.calls.failed(attempt(number), failure, pools: &self.pools, now: seconds(time))
    }

    mutating func timer(at time: Double) -> [LayerAction] {
        defer { self.check() }
        return self.calls.timerFired(pools: &self.pools, now: seconds(time))
    }

    func check() {
        #expect(self.pools.checkInvariants() == nil)
        #expect(self.calls.checkInvariants() == nil)
    }

    var outstanding: [Int] { self.pools.reports.map(\.outstanding) }
    var states: [String] { self.pools.reports.map(\.state.name) }
    func count(_ result: AuditResult) -> UInt64 { self.pools.counts["a"]?.audits[result] ?? 0 }
}

private func attempt(_ number: Int) -> AttemptID { AttemptID(call: 0, number: number) }

private func audited(ports: [Int], fraction: Double = 1, proofs: Int = 2) -> ExpertPools {
    var configuration = ExpertPoolsConfiguration.unaudited
    configuration.auditFraction = fraction
    configuration.proofsToServe = proofs
    return machine(ports: ports, configuration: configuration)
}

/// The replicas that calls are sent to, in order.
private func targets(_ actions: [LayerAction]) -> [ReplicaID] {
    actions.compactMap { if case .send(_, to: let id) = $0 { id } else { nil } }
}

@Suite("Audited calls")
struct AuditTests {
    @Test("a call goes to two replicas at once, and equal answers end it")
    func agreed() {
        var bench = Bench(audited(ports: [1, 2]))
        let sends = targets(bench.begin())
        #expect(Set(sends) == [replica(1), replica(2)])
        #expect(bench.heard(0, 0, at: 0.001).isEmpty)
        #expect(!bench.calls.isComplete)
        #expect(bench.heard(1, 0, at: 0.002) == [.accept(call: 0, opinion: 0)])
        #expect(bench.calls.isComplete)
        #expect(bench.outstanding == [0, 0])
        #expect(bench.count(.agreed) == 1)
        #expect(bench.pools.counts["a"]?.audits.rows == 3)
        #expect(bench.pools.reports.map(\.succeeded) == [1, 1])
    }

    @Test(
        "a third replica finds the one that lies, which is quarantined at once, and the true answer goes on",
        arguments: [0, 1]
    )
    func caughtByReplica(liar: Int) {
        var bench = Bench(audited(ports: [1, 2, 3]))
        let sends = targets(bench.begin())
        let wrong = sends[liar]
        // Opinion 0 is the first answer's.
        #expect(bench.heard(0, 0, at: 0.001).isEmpty)
        let third = bench.heard(1, 1, conflicting: 2, at: 0.002)
        #expect(targets(third).count == 1)
        let truth = 1 - liar
        let verdict = bench.heard(2, truth, conflicting: 2, at: 0.003)
        #expect(verdict.prefix(2) == [.accept(call: 0, opinion: truth), .caught(call: 0, wrong)])
        #expect(verdict.contains(.pool(.quarantined(wrong))))
        #expect(bench.calls.isComplete)
        #expect(bench.outstanding == [0, 0, 0])
        #expect(bench.pools.reports.first { $0.id == wrong }?.state == .quarantined)
        #expect(bench.pools.reports.first { $0.id == wrong }?.attempts[.failed(.wrongReply)] == 1)
        #expect(bench.count(.caught) == 1)
    }

    @Test("where replicas differ, the runner's own opinion is asked for before a third replica's")
    func caughtByRunner() {
        var bench = Bench(audited(ports: [1, 2, 3]), recomputes: .inConflicts)
        let sends = targets(bench.begin())
        _ = bench.heard(0, 0, at: 0.001)
        #expect(bench.heard(1, 1, conflicting: 1, at: 0.002) == [.recompute(call: 0)])
        let verdict = bench.recomputed(1, conflicting: 1, at: 0.003)
        #expect(verdict.contains(.accept(call: 0, opinion: 1)))
        #expect(verdict.contains(.pool(.quarantined(sends[0]))))
    }

    @Test("two replicas that lie alike are both caught by the runner")
    func bothLie() {
        var bench = Bench(audited(ports: [1]), recomputes: .always)
        #expect(bench.begin().contains(.recompute(call: 0)))
        _ = bench.heard(0, 0, at: 0.001)
        let verdict = bench.recomputed(1, conflicting: 3, at: 0.002)
        #expect(verdict.contains(.accept(call: 0, opinion: 1)))
        #expect(bench.states == ["quarantined"])
    }

    @Test("a pool with one replica is audited by the runner, which may be first or last", arguments: [true, false])
    func oneReplica(runnerFirst: Bool) {
        var bench = Bench(audited(ports: [1]), recomputes: .always)
        let first = bench.begin()
        #expect(first.count == 2 && first.contains(.recompute(call: 0)))
        var end: [LayerAction]
        if runnerFirst {
            #expect(bench.recomputed(0, at: 0.001).isEmpty)
            end = bench.heard(0, 0, at: 0.002)
        } else {
            #expect(bench.heard(0, 0, at: 0.001).isEmpty)
            end = bench.recomputed(0, at: 0.002)
        }
        #expect(end == [.accept(call: 0, opinion: 0)])
        #expect(bench.count(.agreed) == 1)
        #expect(bench.pools.counts["a"]?.audits.recomputed == 1)
    }

    @Test("a host that dies in an audited call is replaced by what the runner computed")
    func deadHost() {
        var bench = Bench(audited(ports: [1]), recomputes: .always)
        _ = bench.begin()
        #expect(bench.failed(0, .unavailable, at: 0.001).isEmpty)
        #expect(bench.recomputed(0, at: 0.002) == [.accept(call: 0, opinion: 0)])
        #expect(bench.count(.unfinished) == 1)
    }

    @Test("without a second opinion the call goes on, and that is counted")
    func unwitnessed() {
        var bench = Bench(audited(ports: [1]))
        #expect(targets(bench.begin()) == [replica(1)])
        #expect(!bench.calls.isAudited(0))
        #expect(bench.count(.unwitnessed) == 1)
        #expect(bench.calls.answered(attempt(0), pools: &bench.pools, now: seconds(0.001)).isEmpty)
        #expect(bench.calls.isComplete)
    }

    @Test(
        "two replicas that differ without a third opinion lose the rows on which they do, and all later calls are audited"
    )
    func disputed() {
        var pools = audited(ports: [1, 2], fraction: 0.000_001)
        pools.auditRandom = PoolRandom(seed: 1)
        pools.pools[0].isDisputed = true
        var bench = Bench(pools)
        #expect(targets(bench.begin()).count == 2)
        bench.pools.pools[0].isDisputed = false
        _ = bench.heard(0, 0, at: 0.001)
        let end = bench.heard(1, 1, conflicting: 2, at: 0.002)
        #expect(
            end == [.pool(.disputed(pool: "a")), .dispute(call: 0), .drop(call: 0, .badReply)]
        )
        #expect(bench.pools.counts["a"]?.droppedRows == 2)
        #expect(bench.states == ["ready", "ready"])
        #expect(bench.outstanding == [0, 0])
        #expect(bench.pools.disputedPools == ["a"])
        var next = Bench(bench.pools)
        #expect(targets(next.begin()).count == 2)
        // One of the two leaves: the other has no replica to differ from.
        next.pools.disconnected(replica(1), now: seconds(0.1))
        #expect(next.pools.disputedPools.isEmpty)
    }

    @Test("a witness that does not answer in time is not waited for; a conflict is, until the deadline")
    func patience() throws {
        var bench = Bench(audited(ports: [1, 2]))
        _ = bench.begin()
        _ = bench.heard(0, 0, at: 0.001)
        let until = try #require(bench.calls.nextTimer)
        #expect(until < seconds(1))
        #expect(
            bench.calls.timerFired(pools: &bench.pools, now: until) == [
                .accept(call: 0, opinion: 0), .cancel(attempt(1)),
            ]
        )
        #expect(bench.count(.unfinished) == 1)
        #expect(bench.outstanding == [0, 0])

        var other = Bench(audited(ports: [1, 2, 3]))
        _ = other.begin()
        _ = other.heard(0, 0, at: 0.001)
        _ = other.heard(1, 1, conflicting: 1, at: 0.002)
        #expect(other.timer(at: 0.9).isEmpty)
        let end = other.timer(at: 1)
        #expect(end.contains(.dispute(call: 0)) && end.contains(.cancel(attempt(2))))
        #expect(other.calls.isComplete)
    }

    @Test("a witness that fails is replaced by another")
    func failedWitness() {
        var bench = Bench(audited(ports: [1, 2, 3]))
        _ = bench.begin()
        _ = bench.heard(0, 0, at: 0.001)
        let next = bench.failed(1, .unavailable, at: 0.002)
        #expect(targets(next).count == 1)
        #expect(bench.heard(2, 0, at: 0.003) == [.accept(call: 0, opinion: 0)])
        #expect(bench.count(.agreed) == 1)
    }

    @Test("an answer with rows missing ends an audit without a comparison, and the whole answer is used")
    func partial() {
        var bench = Bench(audited(ports: [1, 2]))
        _ = bench.begin()
        _ = bench.heard(0, 0, at: 0.001)
        let end = bench.calls.answeredInPart(attempt(1), missing: 1, pools: &bench.pools, now: seconds(0.002))
        #expect(end.first == .accept(call: 0, opinion: 0))
        #expect(bench.calls.isComplete)
        #expect(bench.outstanding == [0, 0])
    }

    @Test("an answer of a replica that was caught since it was asked is not used")
    func staleAnswer() {
        var pools = audited(ports: [1, 2], fraction: 0)
        var calls = LayerCalls(
            layer: decoderLayer,
            deadline: seconds(1),
            policy: pools.configuration.policy(of: decoderLayer)
        )
        let assignment = PoolAssignment(pool: "a", groups: [.init(expert: 0, rows: 0..<3)])
        let sends = targets(calls.begin([assignment], pools: &pools, now: start))
        guard let slot = pools.slot(of: sends[0]) else { return }
        #expect(pools.quarantine(slot, now: start) == [.quarantined(sends[0])])
        let again = calls.answered(attempt(0), pools: &pools, now: seconds(0.001))
        #expect(targets(again).count == 1 && targets(again) != sends)
        #expect(calls.isOpen(0))
    }

    @Test("replicas that keep weights in other types do not witness for each other")
    func otherType() {
        var configuration = ExpertPoolsConfiguration.unaudited
        configuration.auditFraction = 1
        configuration.allowsMixedWeightTypes = true
        var pools = machine(ports: [], configuration: configuration)
        for (port, type) in [(1, DType.float32), (2, .int8)] {
            var text = description()
            text.weightType = type
            join(&pools, replica(port), text)
        }
        var bench = Bench(pools)
        #expect(targets(bench.begin()).count == 1)
        #expect(bench.count(.unwitnessed) == 1)
    }
}
