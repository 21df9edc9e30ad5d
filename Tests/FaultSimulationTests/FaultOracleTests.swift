// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import FaultSimulation

@Suite("whole clusters under drawn faults")
struct FaultOracleTests {
    @Test("no seed breaks a rule", arguments: [1, 11, 21, 31] as [UInt64])
    func seeds(_ first: UInt64) {
        for seed in first..<(first + 10) {
            let oracle = FaultOracle(FaultScenario(seed: seed))
            #expect(oracle.violations == [], "seed \(seed): switchyard-bench simulate-faults --replay \(seed)")
        }
    }

    @Test("a seed draws the same scenario and has the same run again")
    func deterministic() {
        for seed in [7, 8, 9] as [UInt64] {
            let scenario = FaultScenario(seed: seed)
            #expect(scenario == FaultScenario(seed: seed))
            #expect(FaultCluster(scenario).run() == FaultCluster(scenario).run())
            #expect(FaultOracle.trace(of: scenario) == FaultOracle.trace(of: scenario))
        }
    }

    @Test("the calm run of a seed gives every client the model's own tokens")
    func calm() {
        var answered = 0
        for seed in 1...10 as ClosedRange<UInt64> {
            let scenario = FaultScenario(seed: seed).calm
            let report = FaultCluster(scenario).run()
            #expect(report.violations == [])
            // Where hosts take one call at a time, rows are dropped in a calm cluster too.
            for (request, outcome) in zip(scenario.requests, report.outcomes)
            where outcome.status == 0 && outcome.drops == 0 {
                #expect(outcome.tokens == scenario.model.tokens(of: request), "seed \(seed), request \(request.id)")
                answered += 1
            }
        }
        #expect(answered > 80)
    }

    @Test("the oracle finds a wrong token, a lost request and one that ended for nothing")
    func judgement() {
        let scenario = FaultScenario(seed: 5)
        let good = FaultOracle(scenario)
        #expect(!good.isBroken)
        guard let place = good.faulty.outcomes.lastIndex(where: { $0.status == 0 && $0.drops == 0 && !$0.isTainted })
        else {
            Issue.record("no request was answered")
            return
        }
        var wrong = good.faulty
        wrong.outcomes[place].tokens[0] ^= 1
        #expect(FaultOracle(scenario, calm: good.calm, faulty: wrong).isBroken)
        var short = good.faulty
        short.outcomes[place].tokens.removeLast()
        short.outcomes[place].tokensWithoutDrops -= 1
        #expect(FaultOracle(scenario, calm: good.calm, faulty: short).isBroken)
        var cancelled = good.faulty
        cancelled.outcomes[place].status = 13
        #expect(FaultOracle(scenario, calm: good.calm, faulty: cancelled).isBroken)
    }

    @Test("bytes of a row that end up in another are noticed")
    func rows() {
        let message = ForwardReply(isLeaving: false, rows: [1, 2, 3]).bytes(rowBytes: 64)
        #expect(ForwardReply(message, rowBytes: 64)?.rows == [1, 2, 3])
        var torn = message
        torn.swapAt(40, 41 + 64)
        #expect(ForwardReply(torn, rowBytes: 64) == nil)
        #expect(ForwardReply(Array(message.dropLast()), rowBytes: 64) == nil)
    }
}
