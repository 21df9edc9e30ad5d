// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

/// How long a replica's answered calls took: counts by time, since the start and recent.
///
/// Metrics and `switchyard status` read it. The machine decides by times per stack and number of rows, kept in
/// ``LatencyDigest`` for a pool and as an average for a replica; this covers all of a replica's calls.
public struct CallTimes: Sendable, Equatable {
    /// Times, in seconds, for which ``count(upTo:)`` is exact.
    public static let marks: [Double] = [
        0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5,
    ]
    /// Calls after which older ones are no longer recent; percentiles are over this many to twice as many.
    static let windowSize: UInt64 = 256

    /// Upper bounds of the buckets, in seconds: the marks, and ten steps between neighbouring marks.
    static let bounds: [Double] = {
        var bounds: [Double] = []
        // Below the first mark from 10 µs on, above the last one to a minute.
        let ends = [0.00001, 0.000025, 0.00005] + Self.marks + [10, 25, 60]
        for (low, high) in zip(ends, ends.dropFirst()) {
            bounds.append(low)
            for step in 1..<10 { bounds.append(low + (high - low) * Double(step) / 10) }
        }
        return bounds + [60]
    }()

    /// Answered calls since the start.
    public private(set) var count: UInt64 = 0
    /// The sum of their times, in seconds.
    public private(set) var sum = 0.0
    // Calls by bucket since the start; the last bucket is above all bounds. Empty before the first call.
    private var counts: [UInt64] = []
    // `counts` as they were one and two windows ago; empty before.
    private var last: [UInt64] = []
    private var secondToLast: [UInt64] = []

    /// Creates counts without calls.
    public init() {}

    /// Records a call's time, in seconds.
    mutating func add(_ seconds: Double) {
        if self.counts.isEmpty { self.counts = [UInt64](repeating: 0, count: Self.bounds.count + 1) }
        self.counts[Self.bucket(of: seconds)] += 1
        self.count += 1
        self.sum += seconds
        if self.count.isMultiple(of: Self.windowSize) { (self.secondToLast, self.last) = (self.last, self.counts) }
    }

    /// How many calls took no longer than a time.
    ///
    /// - Parameter seconds: The time; one of ``marks``, or the count is that of the bucket it lies in.
    /// - Returns: Calls since the start.
    public func count(upTo seconds: Double) -> UInt64 {
        self.counts.prefix(Self.bucket(of: seconds) + 1).reduce(0, +)
    }

    /// The time that a fraction of the recent calls did not exceed.
    ///
    /// - Parameter fraction: The fraction, above 0 and at most 1.
    /// - Returns: The upper bound of the percentile's bucket; nil before the first call.
    public func recentPercentile(_ fraction: Double) -> Duration? {
        func recent(_ bucket: Int) -> UInt64 {
            self.counts[bucket] - (self.secondToLast.isEmpty ? 0 : self.secondToLast[bucket])
        }
        let total = self.counts.indices.reduce(0) { $0 + recent($1) }
        guard total > 0 else { return nil }
        let wanted = fraction * Double(total)
        var sum: UInt64 = 0
        for bucket in self.counts.indices {
            sum += recent(bucket)
            if Double(sum) >= wanted { return .fromSeconds(Self.bounds[min(bucket, Self.bounds.count - 1)]) }
        }
        return nil
    }

    /// The bucket of a time: the first whose bound is not below it.
    private static func bucket(of seconds: Double) -> Int {
        var low = 0
        var high = Self.bounds.count
        while low < high {
            let middle = (low + high) / 2
            if Self.bounds[middle] < seconds { low = middle + 1 } else { high = middle }
        }
        return low
    }
}
