// SPDX-License-Identifier: Apache-2.0

/// When a client makes a failed call again by itself.
///
/// Source: https://github.com/grpc/proposal/blob/master/A6-client-retries.md. Hedging is left out; a wait that would
/// pass the call's deadline is not begun, and the call ends with the error at hand.
public struct RetryPolicy: Sendable, Hashable {
    /// The most attempts that the protocol allows a policy.
    public static let attemptLimit = 5

    /// Whether calls that the server certainly did not process are made again, however often they failed otherwise.
    public var isTransparent: Bool

    /// How often a call is made at most, the first time included; 1 makes none again, more than 5 counts as 5.
    public var maxAttempts: Int

    /// The wait before the second attempt.
    public var initialBackoff: Duration

    /// The longest wait.
    public var maxBackoff: Duration

    /// By how much the wait grows with each attempt.
    public var backoffMultiplier: Double

    /// The statuses after which a call may be made again.
    public var codes: Set<Status.Code>

    /// How many failures are forgiven before retries pause: they do while half of these tokens or fewer are left.
    public var maxTokens: Double

    /// How much of a token a successful call brings back.
    public var tokenRatio: Double

    /// How many bytes of a call's requests are kept to send them again; a call with more is not made again.
    public var bufferBytes: Int

    /// No call is made again.
    public static let none = RetryPolicy(isTransparent: false)

    /// Only calls that the server did not process are made again.
    public static let transparent = RetryPolicy()

    /// Creates a policy; see the properties for the meaning of each value.
    ///
    /// - Parameters:
    ///   - isTransparent: Whether calls that were not processed are made again.
    ///   - maxAttempts: Attempts of a call, the first included.
    ///   - initialBackoff: Wait before the second attempt.
    ///   - maxBackoff: Longest wait.
    ///   - backoffMultiplier: Growth of the wait.
    ///   - codes: Statuses after which a call may be made again.
    ///   - maxTokens: Failures that are forgiven.
    ///   - tokenRatio: What a success brings back.
    ///   - bufferBytes: Bytes of a call's requests that are kept.
    public init(
        isTransparent: Bool = true,
        maxAttempts: Int = 1,
        initialBackoff: Duration = .milliseconds(100),
        maxBackoff: Duration = .seconds(5),
        backoffMultiplier: Double = 2,
        codes: Set<Status.Code> = [.unavailable],
        maxTokens: Double = 10,
        tokenRatio: Double = 0.1,
        bufferBytes: Int = 1 << 20
    ) {
        self.isTransparent = isTransparent
        self.maxAttempts = maxAttempts
        self.initialBackoff = initialBackoff
        self.maxBackoff = maxBackoff
        self.backoffMultiplier = backoffMultiplier
        self.codes = codes
        self.maxTokens = maxTokens
        self.tokenRatio = tokenRatio
        self.bufferBytes = bufferBytes
    }

    /// Whether any call can be made again.
    public var mayRetry: Bool { self.isTransparent || self.hasAttempts }

    /// Whether calls that the server may have processed can be made again.
    public var hasAttempts: Bool { self.maxAttempts > 1 && !self.codes.isEmpty }

    /// The wait before an attempt.
    ///
    /// - Parameters:
    ///   - retries: How many waits were drawn before this one.
    ///   - chance: A number from 0 to 1.
    /// - Returns: The wait, moved by a fifth in either direction.
    func backoff(retries: Int, chance: Double) -> Duration {
        var wait = self.initialBackoff
        for _ in 0..<retries where wait < self.maxBackoff { wait = wait * self.backoffMultiplier }
        return min(wait, self.maxBackoff) * (0.8 + 0.4 * chance)
    }
}
