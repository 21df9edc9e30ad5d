// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import RPCCore

@Suite("Retry budget")
struct RetryBudgetTests {
    @Test("a failure takes a token, a success earns back a fraction, and retries pause at half")
    func pause() {
        var budget = RetryBudget(maxTokens: 4, ratio: 0.5)
        budget.failed()
        #expect(budget.tokens == 3)
        #expect(budget.allowsRetries)
        budget.failed()
        #expect(budget.tokens == 2)
        #expect(!budget.allowsRetries)
        budget.succeeded()
        #expect(budget.tokens == 2.5)
        #expect(budget.allowsRetries)
    }

    @Test("tokens never fall below zero or rise above the maximum", arguments: [0, 1, 2.5, 100] as [Double])
    func bounds(maxTokens: Double) {
        var generator = SystemRandomNumberGenerator()
        var budget = RetryBudget(maxTokens: maxTokens, ratio: 0.3)
        #expect(budget.tokens == maxTokens)
        for _ in 0..<2_000 {
            if Bool.random(using: &generator) { budget.failed() } else { budget.succeeded() }
            #expect(budget.checkInvariants() == nil)
        }
        for _ in 0..<200 { budget.failed() }
        #expect(budget.tokens == 0)
        for _ in 0..<2_000 { budget.succeeded() }
        #expect(budget.tokens == maxTokens)
    }

    @Test("without tokens nothing is retried; the budget of a policy has at least one")
    func smallest() {
        #expect(!RetryBudget(maxTokens: 0).allowsRetries)
        #expect(!RetryBudget(maxTokens: -3).allowsRetries)
        #expect(RetryBudget(maxTokens: -3).checkInvariants() == nil)
        #expect(RetryBudget(policy: RetryPolicy(maxTokens: 0)).maxTokens == 1)
        #expect(RetryBudget(policy: RetryPolicy(maxTokens: 7, tokenRatio: 0.25)).ratio == 0.25)
    }
}

@Suite("Retry pushback")
struct RetryPushbackTests {
    @Test(
        "what a server asks for is what the client reads, in whole milliseconds and a day at most",
        arguments: [
            (Duration.milliseconds(250), Duration.milliseconds(250)), (.microseconds(1_999), .milliseconds(1)),
            (.zero, .zero), (.seconds(-5), .zero), (.seconds(3), .seconds(3)), (.seconds(1_000_000), .seconds(86_400)),
        ]
    )
    func roundTrip(asked: Duration, read: Duration) {
        var error = RPCError(.resourceExhausted, "full")
        #expect(RetryPushback(error.metadata) == .none)
        error.askToRetry(after: asked)
        #expect(error.metadata.count == 1)
        #expect(RetryPushback(error.metadata) == .wait(read))
    }
}
