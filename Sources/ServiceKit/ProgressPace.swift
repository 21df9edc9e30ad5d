// SPDX-License-Identifier: Apache-2.0

/// When a log gets a line about work in progress: after two seconds, and every five seconds from then on.
///
/// Work that is done within two seconds gets no line at all. Time is a parameter.
package struct ProgressPace: Sendable {
    /// How long work has to take before anything is written about it.
    package static let quietTime = Duration.seconds(2)
    /// How far apart lines are.
    package static let interval = Duration.seconds(5)

    private let start: ContinuousClock.Instant
    private var lastLine: ContinuousClock.Instant?

    /// Begins to time a piece of work.
    ///
    /// - Parameter now: The current time.
    package init(now: ContinuousClock.Instant) {
        self.start = now
    }

    /// Whether a line is due; if so, the next is due an interval later.
    ///
    /// - Parameters:
    ///   - isFinished: Whether the work is done, which is written however soon it comes after the last line.
    ///   - now: The current time.
    /// - Returns: True at most once per interval, but for the end.
    package mutating func isDue(isFinished: Bool, now: ContinuousClock.Instant) -> Bool {
        guard self.start.duration(to: now) >= Self.quietTime else { return false }
        if let last = self.lastLine, !isFinished, last.duration(to: now) < Self.interval { return false }
        self.lastLine = now
        return true
    }
}
