// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

/// How long recent calls took: a histogram of times in which older calls weigh less.
///
/// Bucket bounds grow by the eighth root of two, from 8 µs to more than a minute, so a percentile is at most 9 % too high.
/// A call weighs half as much after ``halfLife`` more calls.
struct LatencyDigest: Sendable {
    /// Calls after which a call weighs half.
    static let halfLife = 256.0

    private static let bucketsPerDoubling = 8.0
    private static let smallest = 8e-6
    private static let bucketCount = 192
    private static let growth = 1.0 / Self.weightOfOlder
    private static let weightOfOlder = 0.997_296_056_085_470_3  // 0.5 ^ (1 / halfLife)

    private var weights: [Double] = []
    private var total = 0.0
    private var increment = 1.0

    /// Calls since the start, unweighted.
    private(set) var count = 0

    /// Records a call's time.
    mutating func add(_ time: Duration) {
        if self.weights.isEmpty { self.weights = [Double](repeating: 0, count: Self.bucketCount) }
        self.count += 1
        // Newer weights grow instead of older ones shrinking; now and then all are scaled back.
        self.increment *= Self.growth
        self.weights[Self.bucket(of: time)] += self.increment
        self.total += self.increment
        if self.increment > 1e12 {
            for index in self.weights.indices { self.weights[index] /= self.increment }
            self.total /= self.increment
            self.increment = 1
        }
    }

    /// The time that this fraction of the calls did not exceed.
    ///
    /// - Parameters:
    ///   - fraction: Above 0, at most 1.
    ///   - minimumCount: Calls that must have been seen.
    /// - Returns: The upper bound of the percentile's bucket; nil before that many calls.
    func percentile(_ fraction: Double, minimumCount: Int) -> Duration? {
        guard self.count >= max(1, minimumCount) else { return nil }
        let wanted = fraction * self.total
        var sum = 0.0
        for index in self.weights.indices {
            sum += self.weights[index]
            if sum >= wanted { return Self.upperBound(of: index) }
        }
        return Self.upperBound(of: Self.bucketCount - 1)
    }

    private static func bucket(of time: Duration) -> Int {
        let seconds = time.inSeconds
        guard seconds > Self.smallest else { return 0 }
        // log2 without the C library: the exponent, and the eighths of a doubling by comparison.
        let ratio = seconds / Self.smallest
        let exponent = ratio.exponent
        let significand = ratio.significand
        var eighth = 0
        while eighth < 7, significand >= Self.eighths[eighth + 1] { eighth += 1 }
        return min(Int(exponent) * 8 + eighth + 1, Self.bucketCount - 1)
    }

    private static func upperBound(of bucket: Int) -> Duration {
        let doublings = bucket / 8
        let bound = Self.smallest * Double(sign: .plus, exponent: doublings, significand: 1) * Self.eighths[bucket % 8]
        return .nanoseconds(Int64(bound * 1e9))
    }

    /// Powers of the eighth root of two.
    private static let eighths: [Double] = [
        1, 1.090_507_732_665_257_7, 1.189_207_115_002_721, 1.296_839_554_651_009_6, 1.414_213_562_373_095,
        1.542_210_825_407_940_7, 1.681_792_830_507_429, 1.834_008_086_409_342_4,
    ]
}

/// Calls similar enough to compare their times: calls of one stack with about as many rows.
struct CallClass: Sendable, Hashable {
    /// Number of classes.
    static let count = 10

    /// Index of the class.
    let index: Int

    init(stack: Stack, rows: Int) {
        let size =
            switch rows {
            case ...4: 0
            case ...16: 1
            case ...64: 2
            case ...256: 3
            default: 4
            }
        self.index = (stack == .decoder ? 5 : 0) + size
    }
}
