// SPDX-License-Identifier: Apache-2.0

import Telemetry
import Testing

@testable import ExpertPooling
@testable import GatewayServing

@Suite("Metrics of attempts")
struct AttemptMetricsTests {
    @Test("every outcome has a label, and every label an outcome")
    func labels() {
        #expect(Set(AttemptOutcome.allCases.map(\.label)) == Set(AttemptOutcome.labels))
        #expect(Set(AttemptOutcome.labels).count == AttemptOutcome.labels.count)
    }

    @Test("a replica's times are exact at every bound of the metric")
    func bounds() {
        #expect(CallTimes.marks == Buckets.callSeconds.bounds)
        var times = CallTimes()
        var expected = HistogramCounts(.callSeconds)
        for power in -20...20 {
            let seconds = 0.01 * (1 + Double(power) / 100) * Double(1 << (power + 20)) / Double(1 << 20)
            times.add(seconds)
            expected.add(seconds)
        }
        for bound in Buckets.callSeconds.bounds + [100] {
            times.add(bound)
            expected.add(bound)
        }
        #expect(HistogramCounts(times).counts == expected.counts)
        #expect(HistogramCounts(times).sum == expected.sum)
        #expect(HistogramCounts(CallTimes()) == HistogramCounts(.callSeconds))
    }
}
