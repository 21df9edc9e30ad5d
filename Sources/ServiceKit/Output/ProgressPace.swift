// SPDX-License-Identifier: Apache-2.0

/// When a log gets a line about work in progress: after two seconds, and every five seconds from then on.
///
/// Work that is done within two seconds gets no line at all. Time is a parameter.
package struct ProgressPace: Sendable {
    /// How long work must take before it gets a line.
    package static let quietTime = Duration.seconds(2)
    /// Time between lines.
    package static let interval = Duration.seconds(5)

    private let start: ContinuousClock.Instant
    private var lastLine: ContinuousClock.Instant?

    /// Starts timing.
    ///
    /// - Parameter now: The current time.
    package init(now: ContinuousClock.Instant) {
        self.start = now
    }

    /// Whether a line is due; if so, the next is due an interval later.
    ///
    /// - Parameters:
    ///   - isFinished: Whether the work is done, which gets a line however soon it follows the last one.
    ///   - now: The current time.
    /// - Returns: True at most once per interval, except at the end.
    package mutating func isDue(isFinished: Bool, now: ContinuousClock.Instant) -> Bool {
        guard self.start.duration(to: now) >= Self.quietTime else { return false }
        if let last = self.lastLine, !isFinished, last.duration(to: now) < Self.interval { return false }
        self.lastLine = now
        return true
    }
}
