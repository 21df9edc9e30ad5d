// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

/// How many observations fell into each bucket of a histogram, and their sum: a plain value.
public struct HistogramCounts: Sendable, Hashable {
    /// Where the buckets end.
    public let buckets: Buckets
    /// Observations in each single bucket; the last one is above all bounds.
    public private(set) var counts: [UInt64]
    /// The sum of all observations.
    public private(set) var sum: Double

    /// Creates a histogram without observations.
    ///
    /// - Parameter buckets: Where the buckets end.
    public init(_ buckets: Buckets) {
        self.init(buckets, counts: Array(repeating: 0, count: buckets.bounds.count + 1), sum: 0)
    }

    /// Creates a histogram of observations counted elsewhere.
    ///
    /// - Parameters:
    ///   - buckets: Where the buckets end.
    ///   - sum: The sum of all observations.
    ///   - count: Their number.
    ///   - countUpTo: How many of them did not exceed a bound.
    public init(_ buckets: Buckets, sum: Double, count: UInt64, countUpTo: (Double) -> UInt64) {
        var counts: [UInt64] = []
        var before: UInt64 = 0
        for upTo in buckets.bounds.map(countUpTo) + [count] {
            counts.append(upTo > before ? upTo - before : 0)
            before = max(before, upTo)
        }
        self.init(buckets, counts: counts, sum: sum)
    }

    init(_ buckets: Buckets, counts: [UInt64], sum: Double) {
        self.buckets = buckets
        self.counts = counts
        self.sum = sum
    }

    /// Observations of all buckets.
    public var count: UInt64 { self.counts.reduce(0, &+) }

    /// Adds an observation; NaN is ignored.
    ///
    /// - Parameter value: The observation.
    public mutating func add(_ value: Double) {
        guard !value.isNaN else { return }
        self.counts[Self.index(of: value, in: self.buckets.bounds)] &+= 1
        self.sum += value
    }

    /// Adds a time.
    ///
    /// - Parameter time: The observation, which is stored in seconds.
    public mutating func add(_ time: Duration) {
        self.add(time.inSeconds)
    }

    /// The bucket that a value belongs to: the first whose bound is not below it.
    static func index(of value: Double, in bounds: [Double]) -> Int {
        var low = 0
        var high = bounds.count
        while low < high {
            let middle = (low + high) / 2
            if bounds[middle] < value { low = middle + 1 } else { high = middle }
        }
        return low
    }
}
