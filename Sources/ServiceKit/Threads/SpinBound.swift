// SPDX-License-Identifier: Apache-2.0

/// How long a thread looks for what it waits for before it sleeps: a pure machine.
///
/// Adaptive mutexes decide in the same way: a thread looks as long as what it looked for took lately. Where looking was in vain,
/// as for an answer that takes milliseconds, it lets 1, 3, 7 and so on up to 63 waits pass before it looks again, so that the
/// processor goes to the threads that would bring what it waits for.
package struct SpinBound: Sendable {
    /// What became of a thread's looking.
    package enum Outcome: Sendable, Hashable {
        /// It saw what it waits for.
        case found
        /// It stopped before.
        case notFound
        /// The system ran something else on its processor meanwhile.
        case interrupted
    }

    /// How long no thread looks after its processor was wanted.
    package static let rest = Duration.milliseconds(20)
    /// The most waits that pass without looking are a power of two less one; this is its exponent.
    private static let mostFailures = 6
    /// What is added to the usual time, since times differ.
    private static let margin = Duration.microseconds(2)

    private let limit: Duration
    /// How long what was found took lately.
    private var usual: Duration?
    /// How often looking was in vain since it last was not, up to the most that counts.
    private var failures = 0
    /// Waits that are still to pass without looking.
    private var skips = 0
    private var restsUntil: ContinuousClock.Instant?

    /// Describes how long threads look at most.
    ///
    /// - Parameter limit: The limit; zero turns looking off.
    package init(limit: Duration) { self.limit = max(.zero, limit) }

    /// A thread begins to wait.
    ///
    /// - Parameter now: The time.
    /// - Returns: How long it looks; zero to sleep at once. If it is not zero, ``ended(_:after:now:)`` follows.
    package mutating func began(now: ContinuousClock.Instant) -> Duration {
        guard self.limit > .zero else { return .zero }
        if let end = self.restsUntil {
            guard now >= end else { return .zero }
            self.restsUntil = nil
        }
        guard self.skips == 0 else {
            self.skips -= 1
            return .zero
        }
        // After a failure what is usual may have changed.
        guard self.failures == 0, let usual else { return self.limit }
        return min(self.limit, usual * 2 + Self.margin)
    }

    /// A thread has looked.
    ///
    /// - Parameters:
    ///   - outcome: What became of it.
    ///   - time: How long it looked.
    ///   - now: The time.
    package mutating func ended(_ outcome: Outcome, after time: Duration, now: ContinuousClock.Instant) {
        switch outcome {
        case .found:
            self.failures = 0
            self.skips = 0
            let time = min(max(.zero, time), self.limit)
            self.usual = self.usual.map { $0 + (time - $0) / 4 } ?? time
        case .notFound, .interrupted:
            self.failures = min(self.failures + 1, Self.mostFailures)
            self.skips = 1 << self.failures - 1
            if outcome == .interrupted { self.restsUntil = now + Self.rest }
        }
    }

    /// Checks what must hold between any two calls.
    ///
    /// - Returns: What does not hold; nil if all does.
    package func checkInvariants() -> String? {
        if !(0...Self.mostFailures).contains(self.failures) { return "\(self.failures) failures count" }
        if !(0..<1 << Self.mostFailures).contains(self.skips) { return "\(self.skips) waits pass without looking" }
        if self.failures == 0 && self.skips > 0 { return "waits pass without looking after a success" }
        if let usual, usual < .zero || usual > self.limit {
            return "what is found takes \(usual), beyond \(self.limit)"
        }
        return nil
    }
}
