// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import ServiceKit

@Suite("How long a thread looks before it sleeps")
struct SpinBoundTests {
    private let limit = Duration.microseconds(40)

    /// Waits one after another, each of which ends after a time if it is looked for; gives how long each looked.
    private func looks(_ bound: inout SpinBound, times: [Duration]) -> [Duration] {
        let now = ContinuousClock.now
        return times.map { time in
            let length = bound.began(now: now)
            if length > .zero {
                bound.ended(time <= length ? .found : .notFound, after: min(time, length), now: now)
            }
            #expect(bound.checkInvariants() == nil)
            return length
        }
    }

    @Test("no longer than the limit, and not at all where that is zero")
    func limits() {
        var off = SpinBound(limit: .zero)
        #expect(self.looks(&off, times: Array(repeating: .zero, count: 100)).allSatisfy { $0 == .zero })
        var negative = SpinBound(limit: .seconds(-1))
        #expect(negative.began(now: .now) == .zero)
        var bound = SpinBound(limit: self.limit)
        let times = (0..<200).map { Duration.microseconds($0 * 7 % 90) }
        #expect(self.looks(&bound, times: times).allSatisfy { $0 <= self.limit })
    }

    @Test("about twice as long as what is found usually takes")
    func usual() {
        var bound = SpinBound(limit: self.limit)
        let looks = self.looks(&bound, times: Array(repeating: .microseconds(10), count: 20))
        #expect(looks.first == self.limit)
        #expect(looks.dropFirst().allSatisfy { $0 == .microseconds(22) })
    }

    @Test("less and less often where looking is in vain, but again and again")
    func inVain() {
        var bound = SpinBound(limit: self.limit)
        let looks = self.looks(&bound, times: Array(repeating: .milliseconds(1), count: 127 + 64 * 10))
        let looked = looks.indices.filter { looks[$0] > .zero }
        #expect(looked.prefix(7) == [0, 2, 6, 14, 30, 62, 126])
        // From then on in one wait of 64.
        #expect(looked.count == 7 + 10)
        #expect(looked.allSatisfy { looks[$0] == self.limit })
    }

    @Test("at once again, and with the whole limit, when what comes has become quick")
    func quickAgain() {
        var bound = SpinBound(limit: self.limit)
        _ = self.looks(&bound, times: Array(repeating: .milliseconds(1), count: 500))
        let looks = self.looks(&bound, times: Array(repeating: .microseconds(30), count: 100))
        let first = looks.firstIndex { $0 > .zero }
        #expect(first.map { $0 < 64 && looks[$0] == self.limit && !looks[$0...].contains(.zero) } == true)
    }

    @Test("not for a while once the processor was wanted")
    func interrupted() {
        var bound = SpinBound(limit: self.limit)
        let start = ContinuousClock.now
        #expect(bound.began(now: start) == self.limit)
        bound.ended(.interrupted, after: .milliseconds(3), now: start)
        #expect(bound.checkInvariants() == nil)
        let end = start + SpinBound.rest
        for _ in 0..<100 { #expect(bound.began(now: end - .nanoseconds(1)) == .zero) }
        // One wait passes, as after any failure.
        #expect(bound.began(now: end) == .zero)
        #expect(bound.began(now: end) == self.limit)
    }
}
