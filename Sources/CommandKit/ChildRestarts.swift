// SPDX-License-Identifier: Apache-2.0

/// Whether and when to restart a child process that has exited: time is a parameter.
///
/// A child that exits with a status before it was ever ready would do so again: its settings are wrong. Any other
/// child is restarted, first after a second and then after twice as long each time it does not stay up, a few times
/// in a row at most.
package struct ChildRestarts {
    /// What to do when the child has exited.
    package enum Decision: Hashable {
        /// Restart it after a pause.
        case restart(after: Duration)
        /// Give up: it will not start.
        case giveUp
    }

    /// How often a child that does not stay up is restarted.
    package static let limit = 8
    /// The longest pause.
    package static let longestPause = Duration.seconds(30)
    /// How long a child must be ready before its earlier failures are forgotten.
    package static let steadyTime = Duration.seconds(30)

    private var hasBeenReady = false
    private var failures = 0

    /// Handles the child's exit.
    ///
    /// - Parameters:
    ///   - readyFor: How long it was ready; nil if it never was since its last start.
    ///   - isExit: Whether it exited with a status, rather than by a signal.
    /// - Returns: What to do.
    package mutating func left(readyFor: Duration?, isExit: Bool) -> Decision {
        if readyFor == nil, !self.hasBeenReady, isExit { return .giveUp }
        if let readyFor {
            self.hasBeenReady = true
            if readyFor >= Self.steadyTime { self.failures = 0 }
        }
        guard self.failures < Self.limit else { return .giveUp }
        let pause = Duration.seconds(1 << self.failures)
        self.failures += 1
        return .restart(after: min(pause, Self.longestPause))
    }
}
