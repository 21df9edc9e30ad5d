// SPDX-License-Identifier: Apache-2.0

/// A bucket of tokens that pays for useless frames.
///
/// Pings, empty data frames, settings, priorities and faults cost the receiver work and do not advance the sender's
/// calls. Each takes tokens; time and useful frames earn them back up to `capacity`. A peer that empties the bucket is
/// flooding.
struct FrameBudget: Sendable {
    /// What one frame costs, in tokens.
    enum Cost {
        static let windowUpdate = 1
        static let ping = 2
        static let emptyData = 2
        /// Priorities and frames of unknown types.
        static let unused = 2
        static let settings = 10
        /// A stream that the codec had to reset for the peer's fault: work for nothing.
        static let fault = 20
    }

    private let capacity: Int
    private let tokensPerSecond: Int
    private var tokens: Int
    private var lastRefill: ContinuousClock.Instant?

    /// Creates a full bucket.
    init(capacity: Int, tokensPerSecond: Int) {
        self.capacity = capacity
        self.tokensPerSecond = tokensPerSecond
        self.tokens = capacity
    }

    /// Takes tokens.
    ///
    /// Returns false when the bucket does not hold that many: the peer is flooding.
    mutating func spend(_ cost: Int, now: ContinuousClock.Instant) -> Bool {
        if self.tokens < self.capacity { self.refill(now: now) }
        guard self.tokens >= cost else { return false }
        self.tokens -= cost
        return true
    }

    /// Puts tokens back for useful traffic.
    mutating func earn(_ earned: Int) {
        self.tokens = min(self.capacity, self.tokens + earned)
    }

    private mutating func refill(now: ContinuousClock.Instant) {
        guard let last = self.lastRefill else {
            self.lastRefill = now
            return
        }
        let elapsed = (now - last).components
        let milliseconds = min(elapsed.seconds, 1_000) * 1_000 + elapsed.attoseconds / 1_000_000_000_000_000
        let earned = Int(milliseconds) * self.tokensPerSecond / 1_000
        // The clock's remainder is kept for the next time, so that small intervals do not always round to zero.
        guard earned > 0 else { return }
        self.lastRefill = now
        self.earn(earned)
    }
}
