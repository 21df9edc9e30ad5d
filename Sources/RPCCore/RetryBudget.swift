// SPDX-License-Identifier: Apache-2.0

/// The tokens that failed calls take and successful ones bring back, so that retries do not add to an overload.
///
/// A failure takes one token and a success brings back a part of one. Retries pause while half of the tokens or fewer are
/// left (https://github.com/grpc/proposal/blob/master/A6-client-retries.md#throttling-configuration). A channel has one
/// budget for its calls, and an expert pool one for its attempts.
public struct RetryBudget: Sendable, Hashable {
    /// The tokens there are at most.
    public let maxTokens: Double
    /// How much of a token a success brings back.
    public let ratio: Double
    /// The tokens that are left.
    public private(set) var tokens: Double

    /// Creates a full budget.
    ///
    /// - Parameters:
    ///   - maxTokens: The tokens there are at most; without any, nothing is ever retried.
    ///   - ratio: How much of a token a success brings back.
    public init(maxTokens: Double, ratio: Double = 0.1) {
        self.maxTokens = max(0, maxTokens)
        self.ratio = max(0, ratio)
        self.tokens = self.maxTokens
    }

    /// Creates the full budget of a retry policy, which has at least one token.
    ///
    /// - Parameter policy: How many tokens there are, and what a success brings back.
    public init(policy: RetryPolicy) {
        self.init(maxTokens: max(1, policy.maxTokens), ratio: policy.tokenRatio)
    }

    /// Whether calls may be retried now.
    public var allowsRetries: Bool { self.tokens > self.maxTokens / 2 }

    /// A call failed in a way that may be retried.
    public mutating func failed() { self.tokens = max(0, self.tokens - 1) }

    /// A call succeeded.
    public mutating func succeeded() { self.tokens = min(self.maxTokens, self.tokens + self.ratio) }

    /// Checks what holds after every event.
    ///
    /// - Returns: What does not hold; nil if all is well.
    func checkInvariants() -> String? {
        if self.tokens < 0 { return "\(self.tokens) tokens are left, fewer than zero" }
        if self.tokens > self.maxTokens { return "\(self.tokens) tokens are left of \(self.maxTokens)" }
        return nil
    }
}
