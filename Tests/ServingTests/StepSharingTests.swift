// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import GatewayServing

@Suite("How a step's time is shared")
struct StepSharingTests {
    @Test("the first piece of a step always runs; others only within the bound")
    func pacer() {
        var pacer = EncodePacer(bound: .milliseconds(20))
        #expect(pacer.tokensPerRun == nil)
        pacer.stepBegan()
        #expect(pacer.mayRun(tokens: 1_000_000))
        pacer.pieceDone(tokens: 100, time: .milliseconds(10))
        // 0.1 ms per token: 100 more tokens just fit.
        #expect(pacer.mayRun(tokens: 100))
        #expect(!pacer.mayRun(tokens: 101))
        pacer.pieceDone(tokens: 100, time: .milliseconds(10))
        #expect(!pacer.mayRun(tokens: 1))
        pacer.stepBegan()
        #expect(pacer.mayRun(tokens: 1_000_000))
        // Two pieces of a run fit into a step.
        #expect(pacer.tokensPerRun == 100)
    }

    @Test("the pacer learns a slower machine's pace, and a bound of zero still lets the encoder make progress")
    func pace() {
        var pacer = EncodePacer(bound: .milliseconds(20))
        for _ in 0..<50 {
            pacer.stepBegan()
            pacer.pieceDone(tokens: 10, time: .milliseconds(10))
        }
        #expect(pacer.tokensPerRun.map { (9...11).contains($0) } == true)
        var none = EncodePacer(bound: .zero)
        none.stepBegan()
        #expect(none.mayRun(tokens: 5))
        none.pieceDone(tokens: 5, time: .milliseconds(1))
        #expect(!none.mayRun(tokens: 5))
        #expect(none.tokensPerRun == 1)
    }

    /// Runs steps with times from a function, and returns the chosen ways.
    private func ways(
        _ chooser: inout MicroBatchChooser,
        rows: Int,
        steps: Int,
        time: (Int) -> Duration
    ) -> [Int] {
        (0..<steps)
            .map { _ in
                let way = chooser.microBatches(rows: rows)
                chooser.stepDone(rows: rows, microBatches: way, time: time(way))
                return way
            }
    }

    @Test("both ways are tried, then the faster one is used")
    func chooser() {
        var chooser = MicroBatchChooser(.automatic)
        let faster = self.ways(&chooser, rows: 8, steps: 20) { $0 == 2 ? .milliseconds(30) : .milliseconds(40) }
        #expect(faster == [1, 1, 1, 1, 2, 2, 2, 2] + Array(repeating: 2, count: 12))
        // Another batch size is measured separately.
        let slower = self.ways(&chooser, rows: 32, steps: 20) { $0 == 2 ? .milliseconds(40) : .milliseconds(30) }
        #expect(slower == [1, 1, 1, 1, 2, 2, 2, 2] + Array(repeating: 1, count: 12))
        #expect(chooser.microBatches(rows: 7) == 2)
        #expect(chooser.microBatches(rows: 1) == 1)
    }

    @Test("trying again notices changes")
    func again() {
        var chooser = MicroBatchChooser(.automatic)
        _ = self.ways(&chooser, rows: 8, steps: 20) { $0 == 2 ? .milliseconds(40) : .milliseconds(30) }
        // Two micro-batches have become faster, which only another trial can show.
        let later = self.ways(&chooser, rows: 8, steps: 2 * MicroBatchChooser.stepsBetweenTrials) {
            $0 == 2 ? .milliseconds(20) : .milliseconds(30)
        }
        #expect(!later.prefix(100).contains(2))
        #expect(later.last == 2)
        // One batch has become slow, which every step shows.
        let slow = self.ways(&chooser, rows: 8, steps: 10) { $0 == 2 ? .milliseconds(90) : .milliseconds(30) }
        #expect(slow.last == 1)
    }

    @Test("one slow step does not decide")
    func outlier() {
        var chooser = MicroBatchChooser(.automatic)
        var count = 0
        let ways = self.ways(&chooser, rows: 4, steps: 30) { way in
            count += 1
            return count == 2 ? .seconds(5) : way == 2 ? .milliseconds(40) : .milliseconds(30)
        }
        #expect(ways.suffix(10).allSatisfy { $0 == 1 })
    }

    @Test("the configured mode is used")
    func configured() {
        var always = MicroBatchChooser(.always)
        var never = MicroBatchChooser(.never)
        #expect(always.microBatches(rows: 2) == 2)
        #expect(always.microBatches(rows: 1) == 1)
        let ways = self.ways(&never, rows: 8, steps: 20) { _ in .milliseconds(1) }
        #expect(ways.allSatisfy { $0 == 1 })
    }
}
