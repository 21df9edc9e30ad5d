// SPDX-License-Identifier: Apache-2.0

/// Bounds how many lines peers can make this side log: a burst, then one per interval.
///
/// A pure machine.
struct LogBudget: Sendable {
    private let burst: Int
    private let interval: Duration
    private var tokens: Int
    private var lastRefill: ContinuousClock.Instant
    private var suppressed = 0

    init(burst: Int = 10, interval: Duration = .seconds(6), now: ContinuousClock.Instant) {
        self.burst = burst
        self.interval = interval
        self.tokens = burst
        self.lastRefill = now
    }

    /// Whether a line may be logged now.
    ///
    /// - Returns: How many lines were suppressed since the last one; nil where this one is suppressed too.
    mutating func take(now: ContinuousClock.Instant) -> Int? {
        while self.tokens < self.burst, now - self.lastRefill >= self.interval {
            self.tokens += 1
            self.lastRefill += self.interval
        }
        guard self.tokens > 0 else {
            self.suppressed += 1
            return nil
        }
        if self.tokens == self.burst { self.lastRefill = now }
        self.tokens -= 1
        defer { self.suppressed = 0 }
        return self.suppressed
    }
}
