// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

/// How long a client waits between attempts to connect.
///
/// Source: https://github.com/grpc/grpc/blob/v1.51.1/doc/connection-backoff.md. The wait is reset when the peer's
/// settings arrive, not when the socket connects.
public struct ReconnectPolicy: Sendable, Hashable {
    /// The wait after the first failure.
    public var initial: Duration
    /// By how much the wait grows with each failure.
    public var multiplier: Double
    /// The fraction of the wait by which it is jittered in either direction.
    public var jitter: Double
    /// The longest wait.
    public var maximum: Duration
    /// How long one attempt may take.
    public var connectTimeout: Duration

    /// One second, growing by a factor of 1.6 to two minutes, jittered by a fifth.
    public static let defaults = ReconnectPolicy()

    /// For hosts in the same cluster: 50 ms, growing to one second, which is also the limit of an attempt.
    ///
    /// A host is used again within about two seconds after it can be reached again.
    public static let dataPlane = ReconnectPolicy(
        initial: .milliseconds(50),
        maximum: .milliseconds(800),
        connectTimeout: .seconds(1)
    )

    /// Creates a policy; see the properties for the meaning of each value.
    ///
    /// - Parameters:
    ///   - initial: Wait after the first failure.
    ///   - multiplier: Growth of the wait.
    ///   - jitter: Fraction of the wait that is random.
    ///   - maximum: Longest wait.
    ///   - connectTimeout: Time for one attempt.
    public init(
        initial: Duration = .seconds(1),
        multiplier: Double = 1.6,
        jitter: Double = 0.2,
        maximum: Duration = .seconds(120),
        connectTimeout: Duration = .seconds(20)
    ) {
        self.initial = initial
        self.multiplier = multiplier
        self.jitter = jitter
        self.maximum = maximum
        self.connectTimeout = connectTimeout
    }

    /// The wait after a number of failures in a row.
    ///
    /// - Parameters:
    ///   - failures: How many attempts failed in a row, at least one.
    ///   - chance: A number from 0 to 1.
    /// - Returns: The wait.
    func wait(afterFailures failures: Int, chance: Double) -> Duration {
        var wait = self.initial
        for _ in 1..<max(1, failures) where wait < self.maximum {
            wait = Self.scaled(wait, by: self.multiplier)
        }
        wait = min(wait, self.maximum)
        return Self.scaled(wait, by: 1 + self.jitter * (2 * chance - 1))
    }

    private static func scaled(_ duration: Duration, by factor: Double) -> Duration {
        .nanoseconds(Int64(Double(duration.wholeNanoseconds) * factor))
    }
}
