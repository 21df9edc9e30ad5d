// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import ExpertTraining

@Suite("How long recoveries take")
struct RecoveryTimesTests {
    private let begin = ContinuousClock.now

    private func at(_ milliseconds: Int) -> ContinuousClock.Instant {
        self.begin.advanced(by: .milliseconds(milliseconds))
    }

    @Test(
        "A repetition is compared with the same calls when they were first made, without the time that hosts were away"
    )
    func replay() {
        var times = RecoveryTimes()
        // Two calls of 10 ms, 40 ms apart, and one that was lost with the host and made again a second later.
        for (index, sent, answered) in [(0, 0, 10), (1, 50, 60)] {
            times.sent(index, now: self.at(sent))
            times.answered(index, by: 0, now: self.at(answered))
        }
        times.sent(2, now: self.at(70))
        times.failed(0)
        times.loads(0, step: 5, now: self.at(1000))
        times.loaded(0, now: self.at(1030))
        for (index, sent, answered) in [(0, 1030, 1036), (1, 1036, 1044)] {
            times.sent(index, now: self.at(sent))
            times.answered(index, by: 0, now: self.at(answered))
        }
        times.serves(0, step: 6, now: self.at(1050))
        times.sent(2, now: self.at(1050))
        times.answered(2, by: 0, now: self.at(1060))
        times.serves(0, step: 6, now: self.at(1061))
        #expect(times.count == 1)
        #expect(
            times.latest == [
                RecoveryTimes.Recovery(
                    replica: 0,
                    step: 5,
                    steps: 1,
                    calls: 2,
                    load: .milliseconds(30),
                    replay: .milliseconds(20),
                    firstCalls: .milliseconds(20),
                    firstSteps: .milliseconds(60),
                    end: self.at(1050)
                )
            ]
        )
        // The last call counts as made at 1050, not at 70.
        times.loads(1, step: 6, now: self.at(2000))
        times.loaded(1, now: self.at(2001))
        times.sent(2, now: self.at(2001))
        times.answered(2, by: 1, now: self.at(2003))
        times.serves(1, step: 7, now: self.at(2004))
        #expect(times.latest.last?.firstCalls == .milliseconds(10))
    }

    @Test("A replica that fails on the way begins anew, and what is gone from the log counts no more")
    func failed() {
        var times = RecoveryTimes()
        times.sent(0, now: self.at(0))
        times.answered(0, by: 0, now: self.at(5))
        times.loads(1, step: 0, now: self.at(10))
        times.loaded(1, now: self.at(20))
        times.failed(1)
        times.serves(1, step: 1, now: self.at(30))
        #expect(times.count == 0)
        times.keep(1..<4)
        times.loads(1, step: 1, now: self.at(40))
        times.loaded(1, now: self.at(41))
        times.answered(0, by: 1, now: self.at(42))
        times.serves(1, step: 1, now: self.at(43))
        #expect(times.latest.last?.calls == 0 && times.count == 1)
        for _ in 0..<2 * RecoveryTimes.most {
            times.loads(0, step: 1, now: self.at(50))
            times.loaded(0, now: self.at(50))
            times.serves(0, step: 1, now: self.at(50))
        }
        #expect(times.latest.count == RecoveryTimes.most && times.count == 1 + 2 * RecoveryTimes.most)
    }
}
