// SPDX-License-Identifier: Apache-2.0

import RPCCore
import SwitchyardTypes
import Testing

@testable import ExpertPooling

/// One layer's machine with its pools.
private struct Bench {
    var pools: ExpertPools
    var calls: LayerCalls

    init(
        _ pools: ExpertPools,
        rows: Int = 3,
        in layer: SparseLayer = decoderLayer,
        deadline: Double = 1,
        policy: LayerPolicy? = nil
    ) {
        self.pools = pools
        let policy = policy ?? pools.configuration.policy(of: layer)
        self.calls = LayerCalls(layer: layer, deadline: seconds(deadline), policy: policy)
        self.rows = rows
    }

    private let rows: Int

    mutating func begin(at time: Double = 0, pools names: [String] = ["a"]) -> [LayerAction] {
        defer { self.check() }
        let assignments = names.map { name in
            PoolAssignment(pool: name, groups: [.init(expert: 0, rows: 0..<self.rows)])
        }
        return self.calls.begin(assignments, pools: &self.pools, now: seconds(time))
    }

    mutating func answered(_ attempt: AttemptID, at time: Double) -> [LayerAction] {
        defer { self.check() }
        return self.calls.answered(attempt, pools: &self.pools, now: seconds(time))
    }

    mutating func failed(
        _ attempt: AttemptID,
        _ failure: CallFailure,
        at time: Double,
        pushback: Duration? = nil
    ) -> [LayerAction] {
        defer { self.check() }
        return self.calls.failed(attempt, failure, pushback: pushback, pools: &self.pools, now: seconds(time))
    }

    mutating func timer(at time: Double) -> [LayerAction] {
        defer { self.check() }
        return self.calls.timerFired(pools: &self.pools, now: seconds(time))
    }

    mutating func abandon(at time: Double) -> [LayerAction] {
        defer { self.check() }
        return self.calls.abandoned(pools: &self.pools, now: seconds(time))
    }

    /// Every machine keeps its rules after every event.
    func check() {
        #expect(self.pools.checkInvariants() == nil)
        #expect(self.calls.checkInvariants() == nil)
    }

    var outstanding: [Int] { self.pools.reports.map(\.outstanding) }
}

private func first(_ call: Int = 0) -> AttemptID { AttemptID(call: call, number: 0) }
private func second(_ call: Int = 0) -> AttemptID { AttemptID(call: call, number: 1) }

/// The replica that the only action sends to.
private func target(_ actions: [LayerAction]) -> ReplicaID? {
    guard actions.count == 1, case .send(_, to: let id)? = actions.first else { return nil }
    return id
}

/// Pools that have seen calls of one millisecond.
private func experienced(ports: [Int] = [1, 2], configuration: ExpertPoolsConfiguration = .unaudited) -> ExpertPools {
    var pools = machine(ports: ports, configuration: configuration)
    for _ in 0..<40 {
        for port in ports {
            _ = pools.end(replica(port), .answered, stack: .decoder, rows: 3)
        }
    }
    return pools
}

@Suite("A layer's calls")
struct LayerCallsTests {
    @Test("one call per pool, answered once")
    func answer() {
        var bench = Bench(machine())
        let actions = bench.begin()
        #expect(target(actions) != nil)
        #expect(bench.outstanding.reduce(0, +) == 1)
        #expect(bench.calls.isOut(first()))
        #expect(bench.answered(first(), at: 0.01).isEmpty)
        #expect(bench.calls.isComplete)
        #expect(bench.calls.nextTimer == nil)
        #expect(bench.outstanding == [0, 0])
        // What comes later changes nothing.
        #expect(bench.answered(first(), at: 0.02).isEmpty)
        #expect(bench.failed(first(), .badReply, at: 0.02).isEmpty)
        #expect(bench.pools.counts["a"]?.calls == 1)
    }

    @Test("a machine that is restarted is the one that would be made for the layer")
    func restart() {
        var bench = Bench(machine())
        _ = bench.begin(pools: ["a", "a", "a"])
        _ = bench.failed(first(1), .badReply, at: 0.01)
        _ = bench.abandon(at: 0.02)
        let policy = bench.pools.configuration.policy(of: encoderLayer)
        bench.calls.restart(layer: encoderLayer, deadline: seconds(3), policy: policy, recomputes: .always)
        let made = LayerCalls(layer: encoderLayer, deadline: seconds(3), policy: policy, recomputes: .always)
        #expect("\(bench.calls)" == "\(made)")
        bench.check()
        #expect(target(bench.begin(at: 1)) != nil)
    }

    @Test("a failed call is retried on the other replica at once", arguments: CallFailure.allCases)
    func retry(failure: CallFailure) throws {
        var bench = Bench(machine())
        let one = try #require(target(bench.begin()))
        let next = bench.failed(first(), failure, at: 0.01).filter { if case .pool = $0 { false } else { true } }
        let other = try #require(target(next))
        #expect(other != one)
        #expect(bench.answered(second(), at: 0.02).isEmpty)
        #expect(bench.calls.isComplete)
        #expect(bench.pools.counts["a"]?.retries == 1)
    }

    @Test("without another replica the call is retried on the same one, after a growing pause, if that may help")
    func sameReplica() {
        var bench = Bench(machine(ports: [1]))
        #expect(target(bench.begin()) == replica(1))
        #expect(bench.failed(first(), .overloaded, at: 0.01).isEmpty)
        #expect(bench.calls.nextTimer == seconds(0.015))
        #expect(bench.timer(at: 0.012).isEmpty)
        #expect(target(bench.timer(at: 0.015)) == replica(1))
        #expect(bench.failed(second(), .overloaded, at: 0.016).isEmpty)
        #expect(bench.calls.nextTimer == seconds(0.026))
        #expect(target(bench.timer(at: 0.026)) == replica(1))
        let end = bench.failed(AttemptID(call: 0, number: 2), .overloaded, at: 0.03)
        #expect(end == [.drop(call: 0, .overloaded)])
        #expect(bench.calls.isComplete)
    }

    @Test("a bad reply from the only replica is not retried")
    func badReplyAlone() {
        var bench = Bench(machine(ports: [1]))
        _ = bench.begin()
        #expect(bench.failed(first(), .badReply, at: 0.01) == [.drop(call: 0, .badReply)])
    }

    @Test("pushback is obeyed")
    func pushback() {
        var bench = Bench(machine(ports: [1]))
        _ = bench.begin()
        #expect(bench.failed(first(), .overloaded, at: 0.01, pushback: .milliseconds(200)).isEmpty)
        #expect(bench.timer(at: 0.015).isEmpty)
        #expect(bench.calls.nextTimer == seconds(0.21))
        #expect(target(bench.timer(at: 0.21)) == replica(1))
    }

    @Test("pushback lasts until the layer's deadline at most: a host that asks for a minute is asked again")
    func longPushback() {
        var bench = Bench(machine(ports: [1]))
        _ = bench.begin()
        #expect(bench.failed(first(), .overloaded, at: 0.01, pushback: .seconds(60)).isEmpty)
        #expect(bench.timer(at: 0.02).isEmpty)
        #expect(bench.calls.nextTimer == seconds(1))
        #expect(bench.timer(at: 1) == [.drop(call: 0, .overloaded)])
        #expect(bench.pools.choose(now: seconds(1)) == .success(replica(1)))
    }

    @Test("a silent call is hedged at the 95th percentile; the first answer counts and the other attempt is cancelled")
    func hedge() throws {
        var bench = Bench(experienced())
        let one = try #require(target(bench.begin()))
        let hedgeAt = try #require(bench.calls.nextTimer)
        let delay = start.duration(to: hedgeAt)
        #expect(delay >= .milliseconds(1) && delay < .microseconds(1100))
        #expect(bench.timer(at: 0.0005).isEmpty)
        let other = try #require(target(bench.timer(at: 0.002)))
        #expect(other != one)
        #expect(bench.outstanding == [1, 1])
        #expect(bench.calls.nextTimer == bench.calls.deadline)
        #expect(bench.answered(second(), at: 0.003) == [.cancel(first())])
        #expect(bench.calls.isComplete)
        #expect(bench.outstanding == [0, 0])
        let counts = try #require(bench.pools.counts["a"])
        #expect((counts.hedges, counts.hedgesWon, counts.retries) == (1, 1, 0))
    }

    @Test("a hedge that loses is cancelled without blame")
    func hedgeLoses() {
        var bench = Bench(experienced())
        _ = bench.begin()
        _ = bench.timer(at: 0.002)
        #expect(bench.answered(first(), at: 0.003) == [.cancel(second())])
        #expect(bench.pools.counts["a"]?.hedgesWon == 0)
        #expect(bench.pools.reports.allSatisfy { $0.failed == 0 && $0.state == .ready })
    }

    @Test("a hedge takes over when the first attempt fails, and vice versa", arguments: [first(), second()])
    func hedgeTakesOver(loser: AttemptID) {
        var bench = Bench(experienced())
        _ = bench.begin()
        _ = bench.timer(at: 0.002)
        #expect(bench.failed(loser, .unavailable, at: 0.003).isEmpty)
        let winner = loser == first() ? second() : first()
        #expect(bench.answered(winner, at: 0.004).isEmpty)
        #expect(bench.calls.isComplete)
    }

    @Test("hedges stay within their budget, and without one there are none")
    func budget() {
        var configuration = ExpertPoolsConfiguration.unaudited
        configuration.hedgeBurst = 2
        configuration.overtakesToEject = .max
        configuration.slownessToEject = 0
        var bench = Bench(experienced(configuration: configuration))
        for _ in 0..<200 {
            bench = Bench(bench.pools)
            _ = bench.begin()
            _ = bench.timer(at: 0.999)
            _ = bench.answered(first(), at: 0.9)
        }
        let hedges = bench.pools.counts["a"]?.hedges ?? 0
        #expect(hedges >= 10 && hedges <= 12)
        configuration.hedgeFraction = 0
        bench = Bench(experienced(configuration: configuration))
        _ = bench.begin()
        #expect(bench.timer(at: 0.02).isEmpty)
    }

    @Test("a silent call is hedged on an ejected replica if no other is ready, or as soon as one is")
    func hedgeWithoutOthers() throws {
        var pools = experienced()
        _ = pools.fail(replica(2), .badReply)
        var bench = Bench(pools)
        #expect(target(bench.begin()) == replica(1))
        #expect(target(bench.timer(at: 0.002)) == replica(2))

        pools = experienced()
        pools.disconnected(replica(2), now: start)
        bench = Bench(pools)
        #expect(target(bench.begin()) == replica(1))
        #expect(bench.timer(at: 0.002).isEmpty)
        let again = try #require(bench.calls.nextTimer)
        #expect(again > seconds(0.002) && again <= seconds(0.01))
        _ = bench.pools.connected(replica(2))
        _ = bench.pools.described(replica(2), description(), now: seconds(0.003))
        #expect(target(bench.timer(at: 0.01)) == replica(2))
    }

    @Test("a replica that is overtaken again and again is ejected")
    func overtaken() {
        var pools = experienced()
        var ejections: [LayerAction] = []
        for _ in 0..<20 {
            var bench = Bench(pools)
            let isStalled = target(bench.begin()) == replica(1)
            if isStalled {
                _ = bench.timer(at: 0.002)
                ejections += bench.answered(second(), at: 0.003).filter { if case .pool = $0 { true } else { false } }
            } else {
                _ = bench.answered(first(), at: 0.001)
            }
            pools = bench.pools
        }
        #expect(ejections == [.pool(.ejected(replica(1), for: .milliseconds(500), .overtaken))])
        #expect(pools.counts["a"]?.hedges == 5)
    }

    @Test("at the deadline calls in flight are cancelled and dropped")
    func deadline() {
        var bench = Bench(machine())
        _ = bench.begin()
        _ = bench.timer(at: 0.2)
        #expect(bench.outstanding == [1, 1])
        let actions = bench.timer(at: 1)
        #expect(actions == [.cancel(first()), .cancel(second()), .drop(call: 0, .timeout)])
        #expect(bench.outstanding == [0, 0])
        #expect(bench.pools.reports.map(\.failed) == [1, 1])
        #expect(bench.pools.counts["a"]?.droppedRows == 3)
    }

    @Test("an attempt made right before the deadline is not blamed for it")
    func lateAttempt() throws {
        var bench = Bench(experienced(), deadline: 0.1)
        let one = try #require(target(bench.begin()))
        _ = bench.failed(first(), .unavailable, at: 0.0999)
        _ = bench.timer(at: 0.1)
        let failures = bench.pools.reports.map { ($0.id, $0.failed) }
        for (id, failed) in failures { #expect(failed == (id == one ? 1 : 0)) }
    }

    @Test("nothing is sent when the deadline has passed")
    func deadlinePassed() {
        var bench = Bench(machine(), deadline: 0)
        #expect(bench.begin() == [.drop(call: 0, .timeout)])
        bench = Bench(machine(), deadline: 0.1)
        _ = bench.begin()
        #expect(bench.failed(first(), .unavailable, at: 0.1) == [.drop(call: 0, .unavailable)])
    }

    @Test("a pool without a replica drops at once; calls wait for one that has just lost its last")
    func patience() {
        var bench = Bench(machine(ports: []))
        #expect(bench.begin() == [.drop(call: 0, .unavailable)])

        var pools = machine(ports: [1])
        pools.disconnected(replica(1), now: start)
        bench = Bench(pools, in: encoderLayer)
        #expect(bench.begin(at: 0.1).isEmpty)
        #expect(bench.timer(at: 0.2).isEmpty)
        _ = bench.pools.connected(replica(1))
        _ = bench.pools.described(replica(1), description(), now: seconds(0.3))
        #expect(target(bench.timer(at: 0.3)) == replica(1))

        bench = Bench(pools, in: encoderLayer)
        #expect(bench.begin(at: 0.1).isEmpty)
        #expect(bench.timer(at: 0.5) == [.drop(call: 0, .unavailable)])
        // Long after the loss no call waits any more.
        bench = Bench(pools, in: encoderLayer, deadline: 9)
        #expect(bench.begin(at: 5) == [.drop(call: 0, .unavailable)])
        bench = Bench(pools)
        #expect(bench.begin(at: 0.1) == [.drop(call: 0, .unavailable)])
    }

    @Test("an ejected replica is used when none is ready, unless it stalled")
    func lastResort() {
        var pools = machine()
        _ = pools.fail(replica(1), .badReply)
        pools.disconnected(replica(2), now: start)
        var bench = Bench(pools)
        #expect(target(bench.begin()) == replica(1))
        pools = machine()
        for _ in 0..<3 { _ = pools.fail(replica(1), .deadline) }
        pools.disconnected(replica(2), now: start)
        bench = Bench(pools)
        #expect(bench.begin(at: 0.5) == [.drop(call: 0, .unavailable)])
    }

    @Test("a call waits for a busy replica, and is dropped as overloaded at the deadline")
    func busy() {
        var configuration = ExpertPoolsConfiguration.unaudited
        configuration.outstandingPerReplica = 1
        var bench = Bench(machine(ports: [1], configuration: configuration))
        #expect(target(bench.begin(pools: ["a", "a"])) == replica(1))
        #expect(bench.timer(at: 0.01).isEmpty)
        _ = bench.answered(first(), at: 0.011)
        #expect(target(bench.timer(at: 0.02)) == replica(1))
        bench = Bench(machine(ports: [1], configuration: configuration))
        _ = bench.begin(pools: ["a", "a"])
        #expect(bench.timer(at: 1) == [.cancel(first()), .drop(call: 0, .timeout), .drop(call: 1, .overloaded)])
    }

    @Test("retries stop when failures have used half of the tokens")
    func throttle() {
        var configuration = ExpertPoolsConfiguration.unaudited
        configuration.failuresToEject = .max
        configuration.badRepliesToEject = .max
        var pools = machine(configuration: configuration)
        var retries = 0
        for _ in 0..<100 {
            var bench = Bench(pools)
            _ = bench.begin()
            if target(bench.failed(first(), .refused, at: 0.01)) != nil {
                retries += 1
                _ = bench.failed(second(), .refused, at: 0.02)
            }
            pools = bench.pools
        }
        // Each of the first calls took two tokens of fifty.
        #expect(retries == 25)
    }

    @Test("an abandoned layer leaves nothing in flight and blames no replica")
    func abandoned() {
        var bench = Bench(experienced())
        _ = bench.begin()
        _ = bench.timer(at: 0.002)
        let actions = bench.abandon(at: 0.003)
        #expect(actions == [.cancel(first()), .cancel(second())])
        #expect(bench.calls.isComplete)
        #expect(bench.outstanding == [0, 0])
        #expect(bench.pools.reports.allSatisfy { $0.failed == 0 && $0.attempts[.cancelled] == 1 })
    }

    @Test("every attempt is counted once, with how it ended, and its rows are in flight until then")
    func attemptCounts() throws {
        var bench = Bench(experienced())
        let before = bench.pools.reports.map(\.attempts)
        func counted(_ outcome: AttemptOutcome) -> [UInt64] {
            zip(bench.pools.reports, before).map { $0.attempts[outcome] - $1[outcome] }.sorted()
        }
        // A hedge that wins: one answer, one attempt overtaken.
        _ = bench.begin()
        #expect(bench.pools.reports.map(\.outstandingRows).sorted() == [0, 3])
        _ = bench.timer(at: 0.002)
        #expect(bench.pools.reports.map(\.outstandingRows) == [3, 3])
        _ = bench.answered(second(), at: 0.003)
        #expect(bench.pools.reports.map(\.outstandingRows) == [0, 0])
        #expect(counted(.answered) == [0, 1])
        #expect(counted(.overtaken) == [0, 1])
        // A hedge that loses.
        bench = Bench(bench.pools)
        _ = bench.begin()
        _ = bench.timer(at: 0.002)
        _ = bench.answered(first(), at: 0.003)
        #expect(counted(.answered).reduce(0, +) == 2)
        #expect(counted(.cancelled) == [0, 1])
        // A failure, and an attempt made too late for the deadline.
        bench = Bench(bench.pools, deadline: 0.1)
        _ = bench.begin()
        _ = bench.failed(first(), .unavailable, at: 0.0999)
        _ = bench.timer(at: 0.1)
        #expect(counted(.failed(.unavailable)) == [0, 1])
        #expect(counted(.outOfTime) == [0, 1])
        // No client waits any more, before the deadline and after it.
        for time in [0.003, 2] {
            bench = Bench(bench.pools)
            _ = bench.begin()
            _ = bench.abandon(at: time)
        }
        #expect(counted(.cancelled).reduce(0, +) == 2)
        #expect(counted(.outOfTime).reduce(0, +) == 2)
        let all = zip(bench.pools.reports, before).map { $0.attempts.total { _ in true } - $1.total { _ in true } }
        #expect(all.reduce(0, +) == 8)
        #expect(bench.pools.reports.map(\.outstandingRows) == [0, 0])
    }

    @Test("a replica that is removed and added again keeps its attempts and rows in flight until they end")
    func namedAgain() {
        var bench = Bench(machine(ports: [1]))
        _ = bench.begin()
        bench.pools.removed(replica(1), now: start)
        bench.pools.added(replica(1))
        #expect(bench.outstanding == [1])
        #expect(bench.pools.reports.map(\.outstandingRows) == [3])
        #expect(bench.answered(first(), at: 0.01).isEmpty)
        #expect(bench.outstanding == [0])
        #expect(bench.pools.reports.map(\.outstandingRows) == [0])
    }

    @Test("an adaptive deadline follows the 99th percentile of similar calls within its bounds")
    func adaptiveDeadline() {
        var configuration = ExpertPoolsConfiguration.unaudited
        configuration.decoder.adaptive = AdaptiveDeadline(multiple: 4, shortest: .milliseconds(2))
        configuration.layerDeadlines[encoderLayer] = .milliseconds(700)
        var pools = experienced(configuration: configuration)
        func wait(_ rows: Int, in layer: SparseLayer = decoderLayer) -> Duration {
            let assignment = PoolAssignment(pool: "a", groups: [.init(expert: 0, rows: 0..<rows)])
            return start.duration(to: pools.layerDeadline(of: layer, [assignment], now: start))
        }
        let usual = wait(3)
        #expect(usual >= .milliseconds(4) && usual < .microseconds(4400))
        // Calls as large as these have not been seen.
        #expect(wait(100) == .seconds(2))
        #expect(wait(3, in: encoderLayer) == .milliseconds(700))
        // Abandoned calls count with the time that they had, so the deadline grows with a slow pool.
        for _ in 0..<300 {
            _ = pools.end(replica(1), .failed(.deadline), stack: .decoder, rows: 3, in: .milliseconds(50))
        }
        #expect(wait(3) >= .milliseconds(200) && wait(3) < .milliseconds(220))
    }

    @Test(
        "statuses are told apart",
        arguments: [
            (Status.Code.deadlineExceeded, CallFailure.deadline), (.unavailable, .unavailable),
            (.resourceExhausted, .overloaded), (.failedPrecondition, .refused), (.internal, .refused),
        ]
    )
    func statuses(code: Status.Code, failure: CallFailure) {
        #expect(CallFailure(code) == failure)
    }
}

@Suite("Times of calls")
struct LatencyDigestTests {
    @Test("percentiles are at most a bucket too high, and follow recent calls")
    func percentiles() throws {
        var digest = LatencyDigest()
        #expect(digest.percentile(0.5, minimumCount: 1) == nil)
        for value in 1...1000 { digest.add(.microseconds(value * 100)) }
        // Half of the weight lies within the last 256 calls, so the median is above theirs.
        let median = try #require(digest.percentile(0.5, minimumCount: 20)).inSeconds
        #expect(median > 0.074 && median < 0.088)
        let high = try #require(digest.percentile(0.99, minimumCount: 20)).inSeconds
        #expect(high >= 0.099 && high < 0.11)
        for _ in 0..<100_000 { digest.add(.milliseconds(2)) }
        let now = try #require(digest.percentile(0.99, minimumCount: 20)).inSeconds
        #expect(now >= 0.002 && now < 0.0022)
    }

    @Test("times outside the histogram's range are clamped")
    func extremes() throws {
        var digest = LatencyDigest()
        digest.add(.zero)
        #expect(try #require(digest.percentile(1, minimumCount: 1)) <= .microseconds(8))
        digest.add(.seconds(3600))
        #expect(try #require(digest.percentile(1, minimumCount: 1)) >= .seconds(60))
    }
}

@Suite("Placement on several pools")
struct SharedPlacementTests {
    @Test(
        "rows are divided like water between vessels",
        arguments: [
            (10, [(0.0, 1.0), (0.0, 1.0)], [5, 5]), (10, [(0, 1), (20, 1)], [10, 0]),
            (30, [(0, 1), (20, 1)], [25, 5]),
            (9, [(0, 1), (0, 2)], [3, 6]), (7, [(5, 1)], [7]), (1, [(0, 1), (0, 1), (0, 1)], [1, 0, 0]),
        ] as [(Int, [(Double, Double)], [Int])]
    )
    func shares(rows: Int, pools: [(Double, Double)], expected: [Int]) {
        let shares = PlacementTable.shares(of: rows, over: pools.map { (level: $0.0, replicas: $0.1) })
        #expect(shares == expected)
    }

    @Test(
        "every row goes to one pool that holds its expert, groups stay in order, whatever the extras",
        arguments: 0..<20
    )
    func coverage(seed: UInt64) {
        var random = SplitMix(state: seed)
        var table = PlacementTable()
        for expert in 0..<16 { table.place(expert, of: encoderLayer, on: "pool-\(expert % 4)") }
        var extras: [Int: [String]] = [:]
        for expert in 0..<16 where Bool.random(using: &random) {
            extras[expert] = (0..<4).filter { $0 != expert % 4 && Bool.random(using: &random) }.map { "pool-\($0)" }
        }
        table.setExtras([encoderLayer: extras])
        let groups = (0..<16).map { (expert: $0, rows: Int.random(in: 0..<200, using: &random)) }
        let total = groups.reduce(0) { $0 + $1.rows }
        let (calls, unplaced) = table.assignments(of: groups, in: encoderLayer)
        #expect(unplaced.isEmpty)
        var seen: [Int] = []
        for call in calls {
            var experts: [Int] = []
            for group in call.groups {
                experts.append(group.expert)
                seen += Array(group.rows)
                let pools = ["pool-\(group.expert % 4)"] + (extras[group.expert] ?? [])
                #expect(pools.contains(call.pool))
            }
            #expect(experts == experts.sorted())
            #expect(Set(experts).count == experts.count)
        }
        #expect(seen.sorted() == Array(0..<total))
    }

    @Test("a hot expert's rows level the pools")
    func level() {
        var table = PlacementTable()
        for expert in 0..<4 { table.place(expert, of: encoderLayer, on: "pool-\(expert)") }
        table.setExtras([encoderLayer: [0: ["pool-1", "pool-2", "pool-3"]]])
        let groups = [(expert: 0, rows: 900), (expert: 1, rows: 100), (expert: 2, rows: 100), (expert: 3, rows: 100)]
        let (calls, _) = table.assignments(of: groups, in: encoderLayer)
        #expect(calls.map(\.rowCount) == [300, 300, 300, 300])
        // A pool without a replica gets nothing of it.
        let (left, _) = table.assignments(of: groups, in: encoderLayer) { $0 == "pool-3" ? 0 : 1 }
        #expect(left.map(\.rowCount) == [367, 367, 366, 100] || left.map(\.rowCount).reduce(0, +) == 1200)
        #expect(left.last?.rowCount == 100)
    }
}
