// SPDX-License-Identifier: Apache-2.0

import ExpertPooling
import Testing

private let layer = ExpertLayer(isDecoder: false, block: 1)

/// The documented exits of ``ReplicaState``, by name.
private let exits: [String: Set<String>] = [
    "connecting": ["describing"],
    "describing": ["serving", "refused", "connecting"],
    "serving": ["ejected", "connecting"],
    "ejected": ["probing", "connecting"],
    "probing": ["serving", "ejected", "refused", "connecting"],
    "refused": ["connecting"],
]

private func name(_ state: ReplicaState) -> String {
    switch state {
    case .connecting: "connecting"
    case .describing: "describing"
    case .serving: "serving"
    case .ejected: "ejected"
    case .probing: "probing"
    case .refused: "refused"
    }
}

/// A cluster of nine hosts in three pools that misbehave at random, and what must hold whatever they do.
private struct Simulation {
    var generator: SplitMix
    var pools: ExpertPools
    let ids: [ReplicaID]
    var now = ContinuousClock.now
    var calls: [(call: PoolCall, on: ReplicaID)] = []
    /// Questions that the machine asked and that have no answer yet.
    var questions: [ReplicaID] = []
    var seen: Set<String> = []
    var answered = 0
    var dropped = 0

    init(seed: UInt64) {
        self.generator = SplitMix(state: seed)
        var table = PlacementTable()
        var configuration = ExpertPoolsConfiguration.defaults
        configuration.outstandingPerReplica = 4
        configuration.successesToForgive = 5
        for pool in 0..<3 { table.place(pool, of: layer, on: "pool-\(pool)") }
        self.pools = ExpertPools(configuration: configuration, fingerprint: 1, modelWidth: 4, placement: table)
        self.ids = (0..<9).map { ReplicaID(pool: "pool-\($0 % 3)", host: "h", port: 1 + $0) }
        for id in self.ids { self.pools.added(id) }
    }

    mutating func step() {
        self.now = self.now.advanced(by: .milliseconds(Int.random(in: 0...40, using: &self.generator)))
        guard let id = self.ids.randomElement(using: &self.generator) else { return }
        switch Int.random(in: 0..<20, using: &self.generator) {
        case 0..<2:
            self.ask(self.pools.connected(id))
        case 2:
            self.pools.disconnected(id)
            self.questions.removeAll { $0 == id }
        case 3..<6:
            guard let asked = self.questions.randomElement(using: &self.generator) else { return }
            self.questions.removeAll { $0 == asked }
            self.answer(asked)
        case 6:
            self.ask(self.pools.timerFired(now: self.now))
        case 7..<13:
            var call = PoolCall(pool: id.pool, deadline: self.now.advanced(by: .milliseconds(100)))
            self.follow(self.pools.start(&call, now: self.now, using: &self.generator), of: call)
        default:
            guard let index = self.calls.indices.randomElement(using: &self.generator) else { return }
            self.finish(self.calls.remove(at: index))
        }
    }

    private mutating func ask(_ actions: [PoolAction]) {
        for action in actions {
            if case .describe(let id) = action {
                #expect(!self.questions.contains(id), "\(id) was asked twice at once")
                self.questions.append(id)
            }
        }
    }

    private mutating func answer(_ id: ReplicaID) {
        let expert = Int(id.pool.dropFirst("pool-".count)) ?? 0
        let right = ReplicaDescription(fingerprint: 1, experts: [layer: [expert]], modelWidth: 4)
        let wrong = ReplicaDescription(fingerprint: 2, experts: [layer: [expert]], modelWidth: 4)
        switch Int.random(in: 0..<8, using: &self.generator) {
        case 0: #expect(name(self.state(id)) != "refused" && !self.pools.described(id, wrong).isEmpty)
        case 1: self.pools.describeFailed(id, now: self.now)
        default: #expect(self.pools.described(id, right) == [.joined(id)])
        }
    }

    private mutating func finish(_ out: (call: PoolCall, on: ReplicaID)) {
        var call = out.call
        // One host in three fails most of the time.
        let failsOften = out.on.port % 3 == 1
        switch Int.random(in: 0..<(failsOften ? 10 : 40), using: &self.generator) {
        case 0..<8:
            let kinds: [CallFailure] = [.deadline, .unavailable, .overloaded, .badReply, .refused]
            let failure = kinds[Int.random(in: 0..<kinds.count, using: &self.generator)]
            let served = self.serving(out.on.pool)
            let result = self.pools.attemptFailed(
                of: &call,
                on: out.on,
                failure,
                now: self.now,
                using: &self.generator
            )
            if case .ejected(let id, _, _)? = result.actions.first {
                #expect(id == out.on)
                #expect(failure == .deadline || served.count > 1, "the last serving replica was ejected for an error")
                #expect(failure != .overloaded)
            }
            #expect(result.decision != .send(to: out.on), "the call was tried on the same replica")
            self.follow(result.decision, of: call)
        case 8:
            self.pools.callCancelled(out.on)
            self.dropped += 1
        default:
            self.pools.callSucceeded(out.on, rows: 1, time: .milliseconds(1))
            self.answered += 1
        }
    }

    private mutating func follow(_ decision: CallDecision, of call: PoolCall) {
        switch decision {
        case .send(let id):
            #expect(id.pool == call.pool)
            #expect(self.state(id) == .serving)
            #expect(call.tried.last == id)
            #expect(call.tried.count <= self.pools.configuration.attemptsPerCall)
            self.calls.append((call, id))
        case .drop:
            self.dropped += 1
        }
    }

    func serving(_ pool: String) -> [ReplicaID] {
        self.pools.reports.filter { $0.id.pool == pool && $0.state == .serving }.map(\.id)
    }

    func state(_ id: ReplicaID) -> ReplicaState {
        self.pools.reports.first { $0.id == id }?.state ?? .connecting
    }
}

@Suite("Expert pools, simulated")
struct ExpertPoolsSimulationTests {
    @Test("calls stay within bounds and replicas keep to their states", arguments: [1, 2, 3])
    func simulation(seed: UInt64) {
        var simulation = Simulation(seed: seed)
        var before = simulation.pools.reports
        for _ in 0..<10_000 {
            simulation.step()
            let after = simulation.pools.reports
            for (old, new) in zip(before, after) where name(old.state) != name(new.state) {
                #expect(
                    exits[name(old.state)]?.contains(name(new.state)) == true,
                    "\(new.id) went from \(old.state) to \(new.state)"
                )
                simulation.seen.insert(name(new.state))
            }
            for report in after {
                let out = simulation.calls.count { $0.on == report.id }
                // One expectation for each replica and event would take most of the test's time.
                guard report.outstanding == out, out <= 4 else {
                    Issue.record("\(report.id) has \(out) calls out, but is counted with \(report.outstanding)")
                    return
                }
            }
            before = after
        }
        #expect(simulation.seen == Set(exits.keys))
        #expect(simulation.answered > 500)
        #expect(simulation.dropped > 100)
    }

    @Test("two random choices spread the calls: no replica of many gets far more than its share")
    func spread() {
        var generator = SplitMix(state: 3)
        var pools = ExpertPools(fingerprint: 1, modelWidth: 4, placement: nil)
        for port in 1...8 {
            let id = ReplicaID(pool: "a", host: "h", port: port)
            pools.added(id)
            _ = pools.connected(id)
            _ = pools.described(id, ReplicaDescription(fingerprint: 1, experts: [layer: [0]], modelWidth: 4))
        }
        for _ in 0..<256 { _ = pools.startCall(in: "a", using: &generator) }
        let outstanding = pools.reports.map(\.outstanding)
        #expect(outstanding.reduce(0, +) == 256)
        #expect((outstanding.max() ?? 0) - (outstanding.min() ?? 0) <= 8, "\(outstanding)")
    }
}

/// SplitMix64, so that a failing simulation can be repeated.
private struct SplitMix: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        self.state &+= 0x9E37_79B9_7F4A_7C15
        var z = self.state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}
