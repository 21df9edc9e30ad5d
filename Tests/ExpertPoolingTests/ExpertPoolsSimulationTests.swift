// SPDX-License-Identifier: Apache-2.0

import SwitchyardTypes
import Testing

@testable import ExpertPooling

/// The documented exits of ``ReplicaState``, by name.
private let exits: [String: Set<String>] = [
    "disconnected": ["unverified"],
    "unverified": ["ready", "ejected", "spare", "mismatched", "quarantined", "disconnected"],
    "ready": ["ejected", "draining", "quarantined", "disconnected"],
    "ejected": ["probing", "quarantined", "disconnected"],
    "probing": ["ready", "ejected", "unverified", "spare", "mismatched", "quarantined", "disconnected"],
    "draining": ["disconnected"],
    "mismatched": ["unverified", "disconnected"],
    "spare": ["ready", "ejected", "draining", "quarantined", "disconnected"],
    "quarantined": ["unverified", "disconnected"],
]

private func name(_ state: ReplicaState) -> String {
    switch state {
    case .disconnected: "disconnected"
    case .unverified: "unverified"
    case .ready: "ready"
    case .ejected: "ejected"
    case .probing: "probing"
    case .draining: "draining"
    case .mismatched: "mismatched"
    case .spare: "spare"
    case .quarantined: "quarantined"
    }
}

/// A cluster of twelve addresses in three pools, of hosts that misbehave at random, and the invariants that must hold.
///
/// The last address of each pool leads to the same process as its first.
private struct Simulation {
    struct Layer {
        var calls: LayerCalls
        /// Attempts in flight, with their replica.
        var out: [AttemptID: ReplicaID] = [:]
        /// Answers to audited calls that are being compared.
        var heard: [AttemptID: ReplicaID] = [:]
        /// The answers to audited calls, by call: whether each is true, in the order of their numbers.
        var opinions: [Int: [Bool]] = [:]
        /// Calls that the gateway computes itself.
        var asked: [Int] = []
        var ended: Set<Int> = []
        /// Replicas to which each call was sent.
        var tried: [Int: Set<ReplicaID>] = [:]
    }

    var random: SplitMix
    var pools: ExpertPools
    let ids: [ReplicaID]
    var now = ContinuousClock.now
    var layers: [Layer] = []
    /// Caught replicas that were sent a call to prove themselves.
    var proofs: [ReplicaID] = []
    var caught = 0
    /// Describe calls without an answer yet.
    var questions: [ReplicaID] = []
    /// How each host's process stores weights; the next one at its address may do otherwise.
    var types: [ReplicaID: DType] = [:]
    /// Starts of each host's process.
    var starts: [Int: Int] = [:]
    /// Hosts refused for the sake of a sibling.
    var refused = 0
    var seen: Set<String> = []
    var answered = 0
    var dropped = 0

    init(seed: UInt64) {
        self.random = SplitMix(state: seed)
        var table = PlacementTable()
        var configuration = ExpertPoolsConfiguration.unaudited
        configuration.outstandingPerReplica = 4
        configuration.successesToForgive = 5
        configuration.auditFraction = 0.6
        configuration.proofsToServe = 2
        for pool in 0..<3 { table.place(pool, of: encoderLayer, on: "pool-\(pool)") }
        self.pools = ExpertPools(
            configuration: configuration,
            fingerprint: 1,
            modelWidth: 4,
            placement: table,
            seed: seed
        )
        self.ids = (0..<12).map { ReplicaID(pool: "pool-\($0 % 3)", host: "h", port: 1 + $0) }
        for id in self.ids { self.pools.added(id) }
    }

    mutating func step() {
        self.now = self.now.advanced(by: .milliseconds(Int.random(in: 0...15, using: &self.random)))
        guard let id = self.ids.randomElement(using: &self.random) else { return }
        switch Int.random(in: 0..<40, using: &self.random) {
        case 0..<4:
            self.follow(self.pools.connected(id))
        case 4:
            self.pools.disconnected(id, now: self.now)
            self.questions.removeAll { $0 == id }
            // Another process, or the same one; with two addresses the other one keeps its connection meanwhile.
            if id.port > 3, id.port < 10 {
                self.starts[id.port, default: 0] += Int.random(in: 0...1, using: &self.random)
                self.types[id] = Int.random(in: 0..<3, using: &self.random) == 0 ? .bfloat16 : .float32
            }
        case 5:
            if Int.random(in: 0..<4, using: &self.random) == 0 { self.follow(self.pools.draining(id, now: self.now)) }
        case 6..<12:
            guard let asked = self.questions.randomElement(using: &self.random) else { return }
            self.questions.removeAll { $0 == asked }
            self.answer(asked)
        case 12, 13:
            self.follow(self.pools.timerFired(now: self.now))
        case 14..<18:
            self.begin()
        case 18:
            guard let id = self.proofs.randomElement(using: &self.random) else { return }
            self.proofs.removeAll { $0 == id }
            let result: ExpertPools.ProofResult =
                [.right, .right, .right, .right, .wrong, .failed]
                .randomElement(using: &self.random) ?? .right
            self.follow(self.pools.proofEnded(id, result, now: self.now))
        default:
            guard let index = self.layers.indices.randomElement(using: &self.random) else { return }
            if Bool.random(using: &self.random) { self.finishOne(index) } else { self.tick(index) }
        }
    }

    private mutating func follow(_ actions: [PoolAction]) {
        for action in actions {
            switch action {
            case .describe(let id):
                #expect(!self.questions.contains(id), "\(id) was asked twice at once")
                self.questions.append(id)
            case .proveEvidence(let id): self.proofs.append(id)
            default: break
            }
        }
    }

    private mutating func answer(_ id: ReplicaID) {
        let expert = Int(id.pool.dropFirst("pool-".count)) ?? 0
        let type = self.types[id] ?? .float32
        let siblings = self.ready(id.pool).filter { $0 != id }
        let isAlike = siblings.allSatisfy { self.types[$0] ?? .float32 == type }
        var right = ReplicaDescription(fingerprint: 1, experts: [encoderLayer: [expert]], modelWidth: 4)
        right.weightType = type
        let host = id.port > 9 ? id.port - 9 : id.port
        right.instance = "\(host)-\(self.starts[host] ?? 0)"
        let wrong = ReplicaDescription(fingerprint: 2, experts: [encoderLayer: [expert]], modelWidth: 4)
        switch Int.random(in: 0..<8, using: &self.random) {
        case 0: #expect(!self.pools.described(id, wrong, now: self.now).isEmpty)
        case 1: self.pools.describeFailed(id, now: self.now)
        default:
            let actions = self.pools.described(id, right, now: self.now)
            guard isAlike else {
                guard case .mismatched(id, _)? = actions.first else {
                    Issue.record("\(id) is not refused beside others: \(actions)")
                    return
                }
                self.refused += 1
                return
            }
            switch self.state(id) {
            case .ready: #expect(actions == [.joined(id)])
            case .spare(let first): #expect(actions == [.spare(id, of: first)])
            case .ejected(let until): #expect(actions.isEmpty && until > self.now)
            case .quarantined: #expect(actions.isEmpty)
            default: Issue.record("\(id) is \(self.state(id)) after it has described itself")
            }
        }
    }

    private mutating func begin() {
        guard self.layers.count < 8 else { return }
        let assignments = (0..<3)
            .map { pool in
                PoolAssignment(pool: "pool-\(pool)", groups: [.init(expert: pool, rows: pool..<(pool + 1))])
            }
        let deadline = self.now.advanced(by: .milliseconds(100))
        let policy = LayerPolicy(deadline: .milliseconds(100), attempts: 3, patience: .milliseconds(20))
        let recomputes: RecomputePolicy = [.never, .inConflicts, .always].randomElement(using: &self.random) ?? .never
        var entry = Layer(
            calls: LayerCalls(layer: encoderLayer, deadline: deadline, policy: policy, recomputes: recomputes)
        )
        let actions = entry.calls.begin(assignments, pools: &self.pools, now: self.now)
        self.apply(actions, to: &entry)
        self.layers.append(entry)
        self.retire()
    }

    /// The gateway has computed a call itself, or a host answers.
    private mutating func finishOne(_ index: Int) {
        var entry = self.layers[index]
        guard let call = entry.asked.popLast() else { return self.finishAttempt(index) }
        let number = Int.random(in: 0..<4, using: &self.random) == 0 ? nil : self.number(of: true, call, &entry)
        let actions = entry.calls.recomputed(call, opinion: number, conflicting: 1, pools: &self.pools, now: self.now)
        self.apply(actions, to: &entry)
        self.layers[index] = entry
        self.retire()
    }

    /// The number of an opinion on a call.
    private func number(of opinion: Bool, _ call: Int, _ entry: inout Layer) -> Int {
        if let known = entry.opinions[call]?.firstIndex(of: opinion) { return known }
        entry.opinions[call, default: []].append(opinion)
        return (entry.opinions[call]?.count ?? 1) - 1
    }

    private mutating func finishAttempt(_ index: Int) {
        guard
            let (attempt, replica) = self.layers[index].out
                .min(by: { ($0.key.call, $0.key.number) < ($1.key.call, $1.key.number) })
        else { return }
        var entry = self.layers[index]
        entry.out[attempt] = nil
        // One host in three fails most of the time.
        let failsOften = replica.port % 3 == 1
        let ready = self.ready(replica.pool)
        var actions: [LayerAction]
        if Int.random(in: 0..<(failsOften ? 10 : 40), using: &self.random) < 8 {
            let failure = CallFailure.allCases[Int.random(in: 0..<5, using: &self.random)]
            actions = entry.calls.failed(attempt, failure, pools: &self.pools, now: self.now)
            for case .pool(.ejected(let id, _, _)) in actions {
                #expect(id == replica)
                #expect(failure == .deadline || ready.count > 1, "the last ready replica was ejected for an error")
                #expect(failure != .overloaded)
            }
        } else {
            if entry.calls.isAudited(attempt.call) {
                // One host of each pool lies at times.
                let isTrue = !(4...6).contains(replica.port) || Bool.random(using: &self.random)
                let number = self.number(of: isTrue, attempt.call, &entry)
                // The answer of one that has been caught meanwhile is not kept.
                if !replica.isCaught(self.pools) { entry.heard[attempt] = replica }
                actions = entry.calls.heard(
                    attempt,
                    opinion: number,
                    conflicting: 1,
                    pools: &self.pools,
                    now: self.now
                )
            } else {
                actions = entry.calls.answered(attempt, pools: &self.pools, now: self.now)
                let isDropped = actions.contains { if case .drop = $0 { true } else { false } }
                if !entry.calls.isOpen(attempt.call), !isDropped {
                    #expect(entry.ended.insert(attempt.call).inserted, "a call was answered twice")
                    self.answered += 1
                }
            }
        }
        self.apply(actions, to: &entry)
        self.layers[index] = entry
        self.retire()
    }

    private mutating func tick(_ index: Int) {
        var entry = self.layers[index]
        let actions = entry.calls.timerFired(pools: &self.pools, now: self.now)
        self.apply(actions, to: &entry)
        #expect(entry.calls.isComplete || self.now < entry.calls.deadline, "a layer waits past its deadline")
        self.layers[index] = entry
        self.retire()
    }

    private mutating func apply(_ actions: [LayerAction], to entry: inout Layer) {
        for action in actions {
            switch action {
            case .send(let attempt, to: let id):
                #expect(id.pool == "pool-\(attempt.call)")
                let isReady = self.state(id) == .ready
                // An ejected replica is asked only when all ready ones have been.
                let tried = entry.tried[attempt.call, default: []]
                #expect(isReady || self.ready(id.pool).allSatisfy { tried.contains($0) })
                entry.tried[attempt.call, default: []].insert(id)
                #expect(!entry.ended.contains(attempt.call))
                entry.out[attempt] = id
            case .cancel(let attempt):
                #expect(entry.out.removeValue(forKey: attempt) != nil, "an attempt was cancelled that was not out")
            case .recompute(let call):
                entry.asked.append(call)
            case .accept(let call, let opinion):
                #expect(entry.ended.insert(call).inserted, "a call was answered twice")
                entry.heard = entry.heard.filter { $0.key.call != call }
                self.answered += 1
                let opinions = entry.opinions[call] ?? []
                // A lie is taken only where no opinion was true.
                #expect(opinions[opinion] || !opinions.contains(true))
            case .caught(_, let id):
                self.caught += 1
                #expect((4...6).contains(id.port), "a host that tells the truth was caught")
            case .dispute(let call):
                entry.heard = entry.heard.filter { $0.key.call != call }
            case .prove(_, let id):
                #expect(!self.proofs.contains(id))
                self.proofs.append(id)
            case .drop(let call, _):
                #expect(entry.ended.insert(call).inserted, "a call that had ended was dropped")
                self.dropped += 1
            case .pool(let action):
                self.follow([action])
            }
        }
    }

    /// Forgets layers whose calls have all ended.
    private mutating func retire() {
        for entry in self.layers where entry.calls.isComplete {
            #expect(entry.out.isEmpty && entry.heard.isEmpty)
            #expect(entry.ended.count == 3)
        }
        self.layers.removeAll { $0.calls.isComplete }
    }

    func out(on id: ReplicaID) -> Int {
        self.layers.reduce(0) { $0 + $1.out.values.count { $0 == id } + $1.heard.values.count { $0 == id } }
    }

    func ready(_ pool: String) -> [ReplicaID] {
        self.pools.reports.filter { $0.id.pool == pool && $0.state == .ready }.map(\.id)
    }

    func state(_ id: ReplicaID) -> ReplicaState {
        self.pools.reports.first { $0.id == id }?.state ?? .disconnected
    }
}

extension ReplicaID {
    /// Whether a replica has something to prove.
    fileprivate func isCaught(_ pools: ExpertPools) -> Bool {
        pools.slot(of: self).map { pools.isQuarantined($0) } ?? false
    }
}

@Suite("Expert pools, simulated")
struct ExpertPoolsSimulationTests {
    @Test("calls stay within bounds and replicas follow their states", arguments: [1, 2, 3])
    func simulation(seed: UInt64) {
        var simulation = Simulation(seed: seed)
        var before = simulation.pools.reports
        for _ in 0..<5_000 {
            simulation.step()
            let after = simulation.pools.reports
            let layers = simulation.layers.lazy.compactMap { $0.calls.checkInvariants() }
            if let broken = simulation.pools.checkInvariants() ?? layers.first {
                Issue.record("\(broken)")
                return
            }
            for (old, new) in zip(before, after) where name(old.state) != name(new.state) {
                #expect(
                    exits[name(old.state)]?.contains(name(new.state)) == true,
                    "\(new.id) went from \(old.state) to \(new.state)"
                )
                simulation.seen.insert(name(new.state))
            }
            for report in after {
                let out = simulation.out(on: report.id)
                // One expectation for each replica and event would take most of the test's time.
                guard report.outstanding == out, out <= 4 else {
                    Issue.record("\(report.id) has \(out) calls out, but is counted with \(report.outstanding)")
                    return
                }
            }
            before = after
        }
        #expect(simulation.seen == Set(exits.keys))
        #expect(simulation.answered > 300)
        #expect(simulation.dropped > 50)
        #expect(simulation.refused > 5)
        #expect(simulation.caught > 0)
    }

    @Test("two random choices spread the calls: no replica of many gets far more than its share")
    func spread() {
        var pools = ExpertPools(fingerprint: 1, modelWidth: 4, placement: nil)
        for port in 1...8 {
            let id = ReplicaID(pool: "a", host: "h", port: port)
            pools.added(id)
            _ = pools.connected(id)
            _ = pools.described(
                id,
                ReplicaDescription(fingerprint: 1, experts: [encoderLayer: [0]], modelWidth: 4),
                now: start
            )
        }
        for _ in 0..<256 { _ = pools.choose() }
        let outstanding = pools.reports.map(\.outstanding)
        #expect(outstanding.reduce(0, +) == 256)
        #expect((outstanding.max() ?? 0) - (outstanding.min() ?? 0) <= 8, "\(outstanding)")
    }
}
