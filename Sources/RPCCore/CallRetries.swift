// SPDX-License-Identifier: Apache-2.0

/// Decides whether one call is retried: a pure machine.
///
/// - state open: the attempt in flight can still be retried; can go to committed.
/// - state committed: the caller has seen part of the response, or its requests are no longer kept; stays.
public struct CallRetries: Sendable {
    /// How far the server got with a failed attempt.
    public enum Progress: Sendable, Hashable {
        /// The request never left this side.
        case neverSent
        /// The server said that it did not process the request.
        case refused
        /// It cannot be told.
        case unknown
    }

    /// What to do with a failed attempt.
    public enum Decision: Sendable, Hashable {
        /// The call has failed.
        case giveUp
        /// Retry after this time, and report the number of attempts so far in `grpc-previous-rpc-attempts`.
        case again(after: Duration, previousAttempts: Int)
    }

    private let policy: RetryPolicy
    private var attempts = 1
    private var backoffs = 0
    private var wasRefused = false

    /// Whether the call can no longer be retried.
    public private(set) var isCommitted: Bool

    /// Creates the machine of a call whose first attempt is about to be made.
    ///
    /// - Parameter policy: What may be retried.
    public init(policy: RetryPolicy) {
        self.policy = policy
        self.isCommitted = !policy.mayRetry
    }

    /// The caller has seen part of the response, or its requests are no longer kept.
    public mutating func commit() { self.isCommitted = true }

    /// The call ended with `OK`.
    ///
    /// - Parameter budget: The channel's retry budget.
    public func succeeded(budget: inout RetryBudget) {
        if self.policy.hasAttempts { budget.succeeded() }
    }

    /// An attempt failed.
    ///
    /// - Parameters:
    ///   - code: The status.
    ///   - pushback: What the server says about retries.
    ///   - progress: What the server did.
    ///   - timeLeft: The time to the call's deadline, if there is one.
    ///   - budget: The channel's retry budget.
    ///   - chance: A number from 0 to 1 that jitters the wait.
    /// - Returns: What to do.
    public mutating func failed(
        code: Status.Code,
        pushback: RetryPushback,
        progress: Progress,
        timeLeft: Duration?,
        budget: inout RetryBudget,
        chance: Double
    ) -> Decision {
        if !self.isCommitted, self.policy.isTransparent {
            switch progress {
            case .neverSent:
                return .again(after: .zero, previousAttempts: self.attempts - 1)
            case .refused where !self.wasRefused:
                // Only once: a server that refuses twice means it.
                self.wasRefused = true
                return .again(after: .zero, previousAttempts: self.attempts - 1)
            case .refused, .unknown:
                break
            }
        }
        guard self.policy.hasAttempts else { return .giveUp }
        let isRetryable = self.policy.codes.contains(code)
        if isRetryable || pushback == .never { budget.failed() }
        let limit = min(self.policy.maxAttempts, RetryPolicy.attemptLimit)
        guard isRetryable, !self.isCommitted, self.attempts < limit, budget.allowsRetries else { return .giveUp }
        let wait: Duration
        switch pushback {
        case .never:
            return .giveUp
        case .wait(let duration):
            wait = duration
            // The server's pushback restarts the series of waits.
            self.backoffs = 0
        case .none:
            wait = self.policy.backoff(retries: self.backoffs, chance: chance)
            self.backoffs += 1
        }
        if let timeLeft, wait >= timeLeft { return .giveUp }
        self.attempts += 1
        return .again(after: wait, previousAttempts: self.attempts - 1)
    }
}
