// SPDX-License-Identifier: Apache-2.0

import ExpertPooling
import Testing

@testable import GatewayServing

@Suite("News of hosts and pools")
struct ServingNewsTests {
    private let start = ContinuousClock.now
    private let one = ReplicaID(pool: "a", host: "h", port: 1)

    private func at(_ seconds: Int) -> ContinuousClock.Instant { self.start.advanced(by: .seconds(seconds)) }

    @Test("What has never served is not lost")
    func never() {
        var news = ServingNews()
        news.note(self.one, isUp: false, now: self.start)
        news.note(pool: "a", isUp: false, now: self.start)
        #expect(news.lines(now: self.start).isEmpty)
        #expect(!news.isPending)
    }

    @Test("A lost host, its pool's loss and its return are one line each, however often they are looked at")
    func lossAndReturn() {
        var news = ServingNews()
        news.note(self.one, isUp: true, now: self.start)
        news.note(pool: "a", isUp: true, now: self.start)
        #expect(news.lines(now: self.start).isEmpty)
        for second in 1..<4 {
            news.note(self.one, isUp: false, now: self.at(second))
            news.note(pool: "a", isUp: false, now: self.at(second))
            #expect(news.lines(now: self.at(second)) == (second == 1 ? [.lost(self.one), .poolLost("a")] : []))
        }
        news.note(self.one, isUp: true, now: self.at(6))
        news.note(pool: "a", isUp: true, now: self.at(6))
        #expect(news.lines(now: self.at(6)) == [.poolBack("a", after: .seconds(5))])
        #expect(news.lines(now: self.at(6)).isEmpty)
    }

    @Test("A host that flaps gets one loss per interval, and the last word is true")
    func flapping() {
        var news = ServingNews()
        var lost = 0
        var poolLost = 0
        for step in 0..<1_000 {
            let now = self.start.advanced(by: .milliseconds(step * 50))
            let isUp = step.isMultiple(of: 2)
            news.note(self.one, isUp: isUp, now: now)
            news.note(pool: "a", isUp: isUp, now: now)
            for line in news.lines(now: now) {
                if case .lost = line { lost += 1 }
                if case .poolLost = line { poolLost += 1 }
            }
        }
        // 50 seconds.
        #expect((4...6).contains(lost))
        #expect((4...6).contains(poolLost))
        news.note(self.one, isUp: false, now: self.at(55))
        news.note(pool: "a", isUp: false, now: self.at(55))
        let end = news.lines(now: self.at(65))
        #expect(!news.isPending)
        #expect(end.allSatisfy { $0 == .lost(self.one) || $0 == .poolLost("a") })
    }

    @Test("A host that has left its pool is forgotten")
    func forgotten() {
        var news = ServingNews()
        news.note(self.one, isUp: true, now: self.start)
        news.note(self.one, isUp: false, now: self.start)
        #expect(news.isPending)
        news.forget(self.one)
        #expect(!news.isPending)
        #expect(news.lines(now: self.start).isEmpty)
    }
}
