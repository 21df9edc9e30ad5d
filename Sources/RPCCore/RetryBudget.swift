// SPDX-License-Identifier: Apache-2.0

/// The tokens that failed calls take and successful calls earn back, so that retries do not worsen an overload.
///
/// A failure takes one token and a success earns back a fraction of one. Retries pause while at most half of the tokens
/// are left (https://github.com/grpc/proposal/blob/master/A6-client-retries.md#throttling-configuration). A channel has
/// one budget for its calls, and an expert pool one for its attempts.
public struct RetryBudget: Sendable, Hashable {
    /// The maximum number of tokens.
    public let maxTokens: Double
    /// The fraction of a token that a success earns back.
    public let ratio: Double
    /// The tokens that are left.
    public private(set) var tokens: Double

    /// Creates a full budget.
    ///
    /// - Parameters:
    ///   - maxTokens: The maximum number of tokens; with zero, nothing is ever retried.
    ///   - ratio: The fraction of a token that a success earns back.
    public init(maxTokens: Double, ratio: Double = 0.1) {
        self.maxTokens = max(0, maxTokens)
        self.ratio = max(0, ratio)
        self.tokens = self.maxTokens
    }

    /// Creates a full budget with a retry policy's numbers and at least one token.
    ///
    /// - Parameter policy: How many tokens there are, and what a success earns back.
    public init(policy: RetryPolicy) {
        self.init(maxTokens: max(1, policy.maxTokens), ratio: policy.tokenRatio)
    }

    /// Whether calls may be retried now.
    public var allowsRetries: Bool { self.tokens > self.maxTokens / 2 }

    /// A call failed in a way that may be retried.
    public mutating func failed() { self.tokens = max(0, self.tokens - 1) }

    /// A call succeeded.
    public mutating func succeeded() { self.tokens = min(self.maxTokens, self.tokens + self.ratio) }

    /// Checks the invariants, which hold after every event.
    ///
    /// - Returns: The broken invariant; nil if all hold.
    package func checkInvariants() -> String? {
        if self.tokens < 0 { return "\(self.tokens) tokens are left, fewer than zero" }
        if self.tokens > self.maxTokens { return "\(self.tokens) tokens are left of \(self.maxTokens)" }
        return nil
    }
}
