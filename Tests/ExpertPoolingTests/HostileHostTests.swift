// SPDX-License-Identifier: Apache-2.0

import SwitchyardTypes
import Testing

@testable import ExpertPooling

/// A kind of hostile host, and how many whole deadlines it may cost in two minutes.
struct HostileKind: Sendable, CustomTestStringConvertible {
    let testDescription: String
    let manners: Manners
    /// Beside a healthy host, and alone.
    let most: (beside: Int, alone: Int)

    init(_ name: String, most: (beside: Int, alone: Int), _ change: (inout Manners) -> Void) {
        var manners = Manners()
        change(&manners)
        self.testDescription = name
        self.manners = manners
        self.most = most
    }

    /// Three misses eject, then each back-off costs one: 0.5, 1, 2, 4, 8, 16, 30, 30 s, and 10 s at most where it is alone.
    private static let silent = (beside: 11, alone: 16)

    static let all: [HostileKind] = [
        HostileKind("answers describe calls and nothing else", most: Self.silent) { $0.answers = .none },
        HostileKind("GOAWAY soon after connecting, then silence", most: Self.silent) {
            $0.answers = .none
            $0.connection = .milliseconds(50)
            $0.failsCallsWithConnection = false
        },
        HostileKind("GOAWAY every second, and silence", most: Self.silent) {
            $0.answers = .none
            $0.connection = .seconds(1)
            $0.failsCallsWithConnection = false
        },
        HostileKind("GOAWAY every five seconds, and silence", most: Self.silent) {
            $0.answers = .none
            $0.connection = .seconds(5)
            $0.failsCallsWithConnection = false
        },
        HostileKind("restarts every five seconds and answers no call", most: Self.silent) {
            $0.answers = .none
            $0.connection = .seconds(5)
            $0.restarts = true
        },
        HostileKind("restarts every second, and keeps its calls open", most: Self.silent) {
            $0.answers = .none
            $0.connection = .seconds(1)
            $0.failsCallsWithConnection = false
            $0.restarts = true
        },
        // A call that it takes along when it leaves is a miss too.
        HostileKind("leaves the pool every second and answers no call", most: (beside: 12, alone: 16)) {
            $0.answers = .none
            $0.connection = .seconds(1)
            $0.failsCallsWithConnection = false
            $0.leaves = true
        },
        HostileKind("answers just after the deadline", most: Self.silent) {
            $0.answers = .good(after: .milliseconds(2001))
        },
        HostileKind("never describes itself", most: (0, 0)) { $0.describes = nil },
        HostileKind("describes itself slowly, and answers", most: (0, 0)) { $0.describes = .milliseconds(900) },
        HostileKind("breaks each call", most: (0, 0)) { $0.answers = .failure(.unavailable) },
        HostileKind("refuses each call", most: (0, 0)) { $0.answers = .failure(.refused) },
        HostileKind("sheds each call", most: (0, 0)) { $0.answers = .failure(.overloaded) },
        HostileKind("answers with rubbish", most: (0, 0)) { $0.answers = .failure(.badReply) },
        HostileKind("loses its connection every second", most: (0, 0)) { $0.connection = .seconds(1) },
        HostileKind("loses its connection at once, for ever", most: (0, 0)) { $0.connection = .zero },
    ]
}

@Suite("Hostile hosts")
struct HostileHostTests {
    private static let ill = replica(1)
    private static let well = replica(2)

    @Test("a hostile host costs few whole deadlines, and back-offs grow", arguments: HostileKind.all)
    func alone(kind: HostileKind) {
        var run = HostileRun([Self.ill: kind.manners])
        run.run(for: .seconds(120))
        #expect(run.broken == nil)
        #expect(run.misses.count <= kind.most.alone, "\(run.misses.map { start.duration(to: $0) })")
        // In the second minute no more than one in ten seconds.
        let late = run.misses.filter { $0 > seconds(60) }.count
        #expect(late <= 6)
    }

    @Test(
        "beside a healthy host it costs fewer still, and no row but those of its missed deadlines",
        arguments: HostileKind.all
    )
    func beside(kind: HostileKind) {
        var run = HostileRun([Self.ill: kind.manners, Self.well: .healthy])
        run.run(for: .seconds(120))
        #expect(run.broken == nil)
        #expect(run.misses.count <= kind.most.beside, "\(run.misses.map { start.duration(to: $0) })")
        // The budget for retries is never spent: what fails at once is asked of the other host.
        #expect(run.dropped <= run.misses.count)
        #expect(run.answered > 1000)
        let late = run.misses.filter { $0 > seconds(60) }.count
        #expect(late <= 3)
    }

    @Test(
        "once it is well it serves again within half a minute, or ten seconds where it is alone",
        arguments: HostileKind.all
    )
    func heals(kind: HostileKind) {
        for isAlone in [true, false] {
            var hosts = [Self.ill: kind.manners]
            if !isAlone { hosts[Self.well] = .healthy }
            var run = HostileRun(hosts)
            run.run(for: .seconds(60))
            run.manners[Self.ill] = .healthy
            let limit: Duration = isAlone ? .seconds(13) : .seconds(33)
            run.run(for: limit)
            let back = run.served[Self.ill]?.last { $0 > seconds(60) }
            #expect(
                back != nil,
                "\(isAlone ? "alone" : "beside another"): \(String(describing: run.pools.state(Self.ill)))"
            )
            #expect(run.pools.state(Self.ill) == .ready)
            run.run(for: .seconds(10))
            // Its past is forgotten after a hundred answers.
            #expect(run.pools.slot(of: Self.ill).map { run.pools.replicas[$0].ejections } == 0)
        }
    }

    @Test("a lost connection ends no ejection, and a describe call on the next one does not either")
    func ejectionOutlivesConnections() {
        var pools = machine(ports: [1, 2])
        for _ in 0..<3 { _ = pools.fail(Self.ill, .unavailable) }
        #expect(pools.state(Self.ill) == .ejected(until: seconds(0.5)))
        for time in [0.1, 0.2, 0.3] {
            pools.disconnected(Self.ill, now: seconds(time))
            #expect(pools.state(Self.ill) == .disconnected)
            #expect(pools.connected(Self.ill) == [.describe(Self.ill)])
            #expect(pools.described(Self.ill, description(), now: seconds(time)).isEmpty)
            #expect(pools.state(Self.ill) == .ejected(until: seconds(0.5)))
        }
        #expect(pools.timerFired(now: seconds(0.5)) == [.describe(Self.ill)])
        #expect(pools.described(Self.ill, description(), now: seconds(0.5)) == [.joined(Self.ill)])
    }

    @Test("a connection that is lost during a probe counts as a probe without an answer")
    func lostProbe() {
        var pools = machine(ports: [1, 2])
        for _ in 0..<3 { _ = pools.fail(Self.ill, .unavailable) }
        #expect(pools.timerFired(now: seconds(0.5)) == [.describe(Self.ill)])
        pools.disconnected(Self.ill, now: seconds(0.6))
        _ = pools.connected(Self.ill)
        #expect(pools.described(Self.ill, description(), now: seconds(0.7)).isEmpty)
        #expect(pools.state(Self.ill) == .ejected(until: seconds(1.6)))
    }

    @Test(
        "another process starts anew, but for missed deadlines; its back-off is short unless it restarts again and again"
    )
    func otherProcess() {
        func process(_ name: String) -> ReplicaDescription {
            var text = description()
            text.instance = name
            return text
        }
        var pools = machine(ports: [])
        join(&pools, Self.ill, process("one"))
        join(&pools, Self.well)
        // Long ejections of the first process.
        for turn in 0..<6 {
            let time = Double(turn) * 40
            for _ in 0..<3 { _ = pools.fail(Self.ill, .unavailable, now: seconds(time)) }
            _ = pools.timerFired(now: seconds(time + 35))
            guard turn < 5 else { break }
            #expect(pools.described(Self.ill, process("one"), now: seconds(time + 35)) == [.joined(Self.ill)])
        }
        #expect(pools.state(Self.ill) == .probing)
        var now = 235.0
        for (restart, wait) in [1.0, 4.0, 16.0, 30.0].enumerated() {
            pools.disconnected(Self.ill, now: seconds(now))
            _ = pools.connected(Self.ill)
            let actions = pools.described(Self.ill, process("next \(restart)"), now: seconds(now))
            #expect(actions == [.joined(Self.ill)], "after \(restart) restarts")
            #expect(pools.fail(Self.ill, .unavailable, now: seconds(now)).isEmpty)
            _ = pools.fail(Self.ill, .unavailable, now: seconds(now))
            #expect(pools.state(Self.ill)?.name == "ejected")
            // The next process is let in after its own back-off, not after its predecessor's thirty seconds.
            pools.disconnected(Self.ill, now: seconds(now))
            _ = pools.connected(Self.ill)
            let early = pools.described(Self.ill, process("then \(restart)"), now: seconds(now + 0.1))
            #expect(early.isEmpty)
            guard case .ejected(let until)? = pools.state(Self.ill) else { return }
            #expect(abs(seconds(now).duration(to: until).inSeconds - wait) < 1e-3)
            _ = pools.timerFired(now: until)
            now = start.duration(to: until).inSeconds
            _ = pools.described(Self.ill, process("then \(restart)"), now: until)
        }
    }

    @Test("sheds eject a host only if it answers nothing between them, and never more than half of a pool")
    func sheds() {
        var pools = machine(ports: [1, 2, 3])
        for _ in 0..<40 {
            for _ in 0..<19 { #expect(pools.fail(Self.ill, .overloaded).isEmpty) }
            _ = pools.succeed(Self.ill)
        }
        for _ in 0..<19 { _ = pools.fail(Self.ill, .overloaded) }
        #expect(pools.fail(Self.ill, .overloaded).count == 1)
        #expect(pools.state(Self.ill) == .ejected(until: seconds(0.5)))
        for port in 2...3 {
            for _ in 0..<100 { #expect(pools.fail(replica(port), .overloaded).isEmpty) }
        }
    }

    @Test("describe calls without an answer are repeated less and less often")
    func describeBackOff() {
        var pools = machine(ports: [])
        pools.added(Self.ill)
        _ = pools.connected(Self.ill)
        var now = 0.0
        for wait in [0.5, 1, 2, 2, 2] {
            pools.describeFailed(Self.ill, "no answer", now: seconds(now))
            #expect(pools.reports.first?.trouble == "no answer")
            now += wait
            #expect(pools.nextTimer == seconds(now))
            #expect(pools.timerFired(now: seconds(now)) == [.describe(Self.ill)])
        }
        #expect(pools.described(Self.ill, description(), now: seconds(now)) == [.joined(Self.ill)])
        #expect(pools.reports.first?.trouble == nil)
    }

    @Test("a thousand departed replicas are remembered, not more, and for half a minute")
    func departed() {
        var pools = machine(ports: [])
        for port in 1...1100 {
            join(&pools, replica(port))
            _ = pools.fail(replica(port), .deadline)
            pools.removed(replica(port), now: start)
        }
        #expect(pools.departed.count == 1024)
        join(&pools, replica(2000))
        pools.removed(replica(2000), now: seconds(31))
        #expect(pools.departed.isEmpty)
    }
}
