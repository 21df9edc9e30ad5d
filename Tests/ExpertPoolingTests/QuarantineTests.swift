// SPDX-License-Identifier: Apache-2.0

import SwitchyardTypes
import Testing

@testable import ExpertPooling

@Suite("Quarantined replicas")
struct QuarantineTests {
    private let wrong = replica(1)

    private func caught(proofs: Int = 2, ports: [Int] = [1, 2]) throws -> ExpertPools {
        var configuration = ExpertPoolsConfiguration.unaudited
        configuration.proofsToServe = proofs
        var pools = machine(ports: ports, configuration: configuration)
        let slot = try #require(pools.slot(of: self.wrong))
        #expect(pools.quarantine(slot, now: start) == [.quarantined(self.wrong)])
        #expect(pools.checkInvariants() == nil)
        return pools
    }

    private func state(_ pools: ExpertPools) -> ReplicaState? { pools.reports.first { $0.id == self.wrong }?.state }

    @Test("the last replica of a pool is quarantined too: wrong rows are worse than dropped ones")
    func last() throws {
        var pools = try self.caught(ports: [1])
        #expect(pools.choose() == .failure(.noneReady))
        #expect(!pools.isReady("a"))
    }

    @Test("it answers the call that it got wrong, then new ones, and serves again")
    func proves() throws {
        var pools = try self.caught()
        #expect(pools.takeProof(in: 0, like: nil) == nil)
        let due = try #require(pools.nextTimer)
        #expect(pools.timerFired(now: due) == [.proveEvidence(self.wrong)])
        #expect(pools.timerFired(now: due).isEmpty)
        #expect(pools.proofEnded(self.wrong, .right, now: due).isEmpty)
        #expect(pools.takeProof(in: 0, like: nil) == self.wrong)
        // One at a time.
        #expect(pools.takeProof(in: 0, like: nil) == nil)
        #expect(pools.proofEnded(self.wrong, .right, now: due) == [.cleared(self.wrong), .describe(self.wrong)])
        #expect(pools.described(self.wrong, description(), now: due) == [.joined(self.wrong)])
        #expect(pools.checkInvariants() == nil)
    }

    @Test("where no sibling serves, it answers the same call again until that is enough", arguments: [true, false])
    func alone(_ isAlone: Bool) throws {
        var pools = try self.caught(proofs: 3, ports: isAlone ? [1] : [1, 2])
        for proof in 1...3 {
            let due = try #require(pools.nextTimer, "nothing is planned before proof \(proof)")
            #expect(pools.timerFired(now: due) == [.proveEvidence(self.wrong)])
            let actions = pools.proofEnded(self.wrong, .right, now: due)
            #expect(actions == (proof < 3 ? [] : [.cleared(self.wrong), .describe(self.wrong)]))
            // The sibling's calls would have been the next proofs, but it is lost.
            if !isAlone, proof == 1 { pools.disconnected(replica(2), now: due) }
            #expect(pools.checkInvariants() == nil)
        }
    }

    @Test("a wrong proof starts it anew, after a wait that doubles up to a limit")
    func fails() throws {
        var pools = try self.caught()
        var now = start
        var waits: [Duration] = []
        for _ in 0..<10 {
            let due = try #require(pools.nextTimer)
            waits.append(now.duration(to: due))
            now = due
            #expect(pools.timerFired(now: now) == [.proveEvidence(self.wrong)])
            #expect(pools.proofEnded(self.wrong, .wrong, now: now).isEmpty)
            #expect(self.state(pools) == .quarantined)
        }
        #expect(waits == [0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30].map { .milliseconds(Int($0 * 1000)) })
    }

    @Test("reconnecting does not end it; a restart must start with the call that the last process got wrong")
    func outlivesConnections() throws {
        var pools = try self.caught(proofs: 5)
        var text = description()
        for instance in ["one", "two"] {
            pools.disconnected(self.wrong, now: seconds(1))
            #expect(pools.connected(self.wrong) == [.describe(self.wrong)])
            text.instance = instance
            #expect(pools.described(self.wrong, text, now: seconds(1)).isEmpty)
            #expect(self.state(pools) == .quarantined)
            #expect(pools.checkInvariants() == nil)
        }
        #expect(pools.timerFired(now: seconds(1)) == [.proveEvidence(self.wrong)])
    }

    @Test("leaving the pool and coming back does not end it, even at another address")
    func outlivesMembership() throws {
        var pools = try self.caught()
        var text = description()
        text.instance = "one"
        pools.disconnected(self.wrong, now: seconds(1))
        _ = pools.connected(self.wrong)
        _ = pools.described(self.wrong, text, now: seconds(1))
        pools.removed(self.wrong, now: seconds(2))
        let moved = replica(9)
        pools.added(moved)
        _ = pools.connected(moved)
        #expect(pools.described(moved, text, now: seconds(90)).isEmpty)
        #expect(pools.reports.first { $0.id == moved }?.state == .quarantined)
        pools.added(self.wrong)
        _ = pools.connected(self.wrong)
        text.instance = "other"
        #expect(pools.described(self.wrong, text, now: seconds(90)).isEmpty)
        #expect(self.state(pools) == .quarantined)
    }

    @Test("a proof whose connection is lost is asked for again")
    func lostProof() throws {
        var pools = try self.caught()
        let due = try #require(pools.nextTimer)
        _ = pools.timerFired(now: due)
        #expect(pools.proofEnded(self.wrong, .failed, now: due).isEmpty)
        let again = try #require(pools.nextTimer)
        #expect(again == due.advanced(by: pools.configuration.longestProbeInterval))
        _ = pools.timerFired(now: again)
        pools.disconnected(self.wrong, now: again)
        _ = pools.connected(self.wrong)
        _ = pools.described(self.wrong, description(), now: again)
        #expect(pools.timerFired(now: again.advanced(by: .seconds(60))) == [.proveEvidence(self.wrong)])
    }

    @Test("with one replica that lies at times, no audited call ever uses a wrong answer")
    func randomLies() {
        for seed in 0..<200 as Range<UInt64> {
            var random = PoolRandom(seed: seed)
            var configuration = ExpertPoolsConfiguration.unaudited
            configuration.auditFraction = 1
            configuration.proofsToServe = 3
            var pools = machine(ports: [1, 2, 3], configuration: configuration)
            var now = start
            for _ in 0..<40 {
                now = now.advanced(by: .milliseconds(Int.random(in: 1...400, using: &random)))
                for action in pools.timerFired(now: now) {
                    guard case .proveEvidence(let id) = action else { continue }
                    _ = pools.proofEnded(id, Bool.random(using: &random) ? .right : .wrong, now: now)
                }
                self.runLayer(&pools, &random, now: now)
                #expect(pools.checkInvariants() == nil)
                #expect(pools.reports.allSatisfy { $0.outstanding == 0 })
            }
        }
    }

    /// One audited call in which replica 1 lies half of the time; the truth is opinion 0 or 1, whichever comes first.
    private func runLayer(_ pools: inout ExpertPools, _ random: inout PoolRandom, now: ContinuousClock.Instant) {
        var calls = LayerCalls(
            layer: decoderLayer,
            deadline: now.advanced(by: .seconds(1)),
            policy: pools.configuration.policy(of: decoderLayer),
            recomputes: Bool.random(using: &random) ? .inConflicts : .never
        )
        var queue = calls.begin(
            [PoolAssignment(pool: "a", groups: [.init(expert: 0, rows: 0..<2)])],
            pools: &pools,
            now: now
        )
        var numbers: [Bool: Int] = [:]
        var accepted: Int?
        while true {
            while queue.isEmpty, let timer = calls.nextTimer { queue += calls.timerFired(pools: &pools, now: timer) }
            guard !queue.isEmpty else { break }
            switch queue.removeFirst() {
            case .send(let attempt, to: let id):
                let isTrue = id != self.wrong || Bool.random(using: &random)
                if Int.random(in: 0..<8, using: &random) == 0 {
                    queue += calls.failed(attempt, .unavailable, pools: &pools, now: now)
                    continue
                }
                guard calls.isAudited(attempt.call) else {
                    queue += calls.answered(attempt, pools: &pools, now: now)
                    continue
                }
                let number = numbers[isTrue] ?? numbers.count
                numbers[isTrue] = number
                queue += calls.heard(attempt, opinion: number, conflicting: 1, pools: &pools, now: now)
            case .recompute:
                let number = numbers[true] ?? numbers.count
                numbers[true] = number
                queue += calls.recomputed(0, opinion: number, conflicting: 1, pools: &pools, now: now)
            case .accept(_, let opinion): accepted = opinion
            case .prove(_, let id): _ = pools.proofEnded(id, .right, now: now)
            case .pool(.describe(let id)): _ = pools.described(id, description(), now: now)
            case .cancel, .drop, .caught, .dispute, .pool: break
            }
        }
        #expect(calls.isComplete)
        // Only a call that had no second opinion may have been answered wrongly.
        if let accepted, numbers.count == 2 { #expect(accepted == numbers[true]) }
    }
}
