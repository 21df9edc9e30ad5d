// SPDX-License-Identifier: Apache-2.0

/// The times of the most recent calls, for percentiles.
struct LatencyWindow: Sendable {
    /// Calls that are remembered.
    static let capacity = 256

    private var microseconds: [UInt64] = []
    private var next = 0

    /// A call took this long.
    mutating func add(_ time: Duration) {
        let value = time.wholeMicroseconds
        if self.microseconds.count < Self.capacity {
            self.microseconds.append(value)
        } else {
            self.microseconds[self.next] = value
            self.next = (self.next + 1) % Self.capacity
        }
    }

    /// The time that so large a part of the remembered calls did not exceed (nearest rank).
    ///
    /// - Parameter fraction: Above 0, at most 1.
    /// - Returns: Microseconds; 0 if no call is remembered.
    func percentile(_ fraction: Double) -> UInt64 {
        guard !self.microseconds.isEmpty else {
            return 0
        }
        let rank = (fraction * Double(self.microseconds.count)).rounded(.up)
        return self.microseconds.sorted()[min(max(Int(rank), 1), self.microseconds.count) - 1]
    }
}

extension Duration {
    /// The duration in whole microseconds, 0 if it is negative.
    var wholeMicroseconds: UInt64 {
        let (seconds, attoseconds) = self.components
        let total = Double(seconds) * 1e6 + Double(attoseconds) * 1e-12
        return total > 0 ? UInt64(min(total, 1e18)) : 0
    }
}
