// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import ExpertPooling

@Suite("Times of a replica's calls")
struct CallTimesTests {
    @Test("counts up to a mark are exact and include calls that take exactly that long")
    func marks() {
        var times = CallTimes()
        #expect(times.count(upTo: 1) == 0)
        for mark in CallTimes.marks { for factor in [0.999, 1, 1.001] { times.add(mark * factor) } }
        times.add(1_000)
        for (index, mark) in CallTimes.marks.enumerated() {
            #expect(times.count(upTo: mark) == UInt64(3 * index + 2), "\(mark)")
        }
        #expect(times.count == UInt64(3 * CallTimes.marks.count + 1))
        #expect(abs(times.sum - 1_000 - 3 * CallTimes.marks.reduce(0, +)) < 1e-9)
    }

    @Test("bucket bounds ascend and contain every mark")
    func bounds() {
        #expect(zip(CallTimes.bounds, CallTimes.bounds.dropFirst()).allSatisfy { $0 < $1 })
        #expect(CallTimes.marks.allSatisfy { CallTimes.bounds.contains($0) })
    }

    @Test("percentiles cover recent calls, and are at most a bucket too high")
    func percentiles() throws {
        var times = CallTimes()
        #expect(times.recentPercentile(0.5) == nil)
        for milliseconds in 1...100 { times.add(Double(milliseconds) / 1000) }
        let median = try #require(times.recentPercentile(0.5))
        #expect(median >= .milliseconds(50) && median <= .milliseconds(55))
        let high = try #require(times.recentPercentile(0.99))
        #expect(high >= .milliseconds(99) && high <= .milliseconds(105))
        for _ in 0..<3 * CallTimes.windowSize { times.add(0.0007) }
        let recent = try #require(times.recentPercentile(1))
        #expect(recent >= .microseconds(700) && recent <= .microseconds(750))
        #expect(times.count == 100 + 3 * CallTimes.windowSize)
        times.add(500)
        #expect(times.recentPercentile(1) == .seconds(60))
    }
}
