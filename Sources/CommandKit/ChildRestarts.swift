// SPDX-License-Identifier: Apache-2.0

/// Whether and when a child process that has left is started again: time is a parameter.
///
/// A child that says by its exit status that it cannot start, before it was ever ready, would say so again: its settings
/// are wrong. Any other is started again, after a second at first and after twice as long each time that it does not
/// stay up, a few times in a row at most.
package struct ChildRestarts {
    /// What follows when the child has left.
    package enum Decision: Hashable {
        /// Start it again after a pause.
        case restart(after: Duration)
        /// It will not come up.
        case giveUp
    }

    /// How often a child that does not stay up is started again.
    package static let limit = 8
    /// The longest pause.
    package static let longestPause = Duration.seconds(30)
    /// How long a child has to be ready for its earlier failures to be forgotten.
    package static let steadyTime = Duration.seconds(30)

    private var hasBeenReady = false
    private var failures = 0

    /// The child has left.
    ///
    /// - Parameters:
    ///   - readyFor: How long it was ready; nil where it never was since its last start.
    ///   - isExit: Whether it left by itself with a status, rather than by a signal.
    /// - Returns: What follows.
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
