// SPDX-License-Identifier: Apache-2.0

/// When a client retries a failed call by itself.
///
/// Source: https://github.com/grpc/proposal/blob/master/A6-client-retries.md. Hedging is left out; a wait that would
/// pass the call's deadline does not start, and the call ends with its current error.
public struct RetryPolicy: Sendable, Hashable {
    /// The most attempts that the protocol allows a policy.
    public static let attemptLimit = 5

    /// Whether calls that the server certainly did not process are retried, however often they failed otherwise.
    public var isTransparent: Bool

    /// The most attempts per call, the first included; 1 retries nothing, more than 5 counts as 5.
    public var maxAttempts: Int

    /// The wait before the second attempt.
    public var initialBackoff: Duration

    /// The longest wait.
    public var maxBackoff: Duration

    /// The factor by which the wait grows with each attempt.
    public var backoffMultiplier: Double

    /// The statuses after which a call may be retried.
    public var codes: Set<Status.Code>

    /// The tokens of the retry budget: retries pause while at most half of them are left.
    public var maxTokens: Double

    /// The fraction of a token that a successful call earns back.
    public var tokenRatio: Double

    /// How many bytes of a call's requests are kept for a retry; a call with more is not retried.
    public var bufferBytes: Int

    /// No call is retried.
    public static let none = RetryPolicy(isTransparent: false)

    /// Only calls that the server did not process are retried.
    public static let transparent = RetryPolicy()

    /// Creates a policy; see the properties for the meaning of each value.
    ///
    /// - Parameters:
    ///   - isTransparent: Whether calls that were not processed are retried.
    ///   - maxAttempts: Attempts of a call, the first included.
    ///   - initialBackoff: Wait before the second attempt.
    ///   - maxBackoff: Longest wait.
    ///   - backoffMultiplier: Growth of the wait.
    ///   - codes: Statuses after which a call may be retried.
    ///   - maxTokens: Tokens of the retry budget.
    ///   - tokenRatio: What a success earns back.
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

    /// Whether any call can be retried.
    public var mayRetry: Bool { self.isTransparent || self.hasAttempts }

    /// Whether calls that the server may have processed can be retried.
    public var hasAttempts: Bool { self.maxAttempts > 1 && !self.codes.isEmpty }

    /// The wait before an attempt.
    ///
    /// - Parameters:
    ///   - retries: How many waits were drawn before this one.
    ///   - chance: A number from 0 to 1.
    /// - Returns: The wait, jittered by a fifth in either direction.
    func backoff(retries: Int, chance: Double) -> Duration {
        var wait = self.initialBackoff
        for _ in 0..<retries where wait < self.maxBackoff { wait = wait * self.backoffMultiplier }
        return min(wait, self.maxBackoff) * (0.8 + 0.4 * chance)
    }
}
