// SPDX-License-Identifier: Apache-2.0

import RPCCore
import Testing

@Suite("Retries of a call")
struct CallRetriesTests {
    private static let policy = RetryPolicy(
        maxAttempts: 4,
        initialBackoff: .milliseconds(100),
        maxBackoff: .milliseconds(350),
        backoffMultiplier: 2,
        codes: [.unavailable, .resourceExhausted]
    )

    /// One failure with a chance in the middle, which moves no wait.
    private func fail(
        _ retries: inout CallRetries,
        _ budget: inout RetryBudget,
        _ code: Status.Code = .unavailable,
        pushback: RetryPushback = .none,
        progress: CallRetries.Progress = .unknown,
        timeLeft: Duration? = nil
    ) -> CallRetries.Decision {
        retries.failed(
            code: code,
            pushback: pushback,
            progress: progress,
            timeLeft: timeLeft,
            budget: &budget,
            chance: 0.5
        )
    }

    @Test("wait longer each time, up to the limit of attempts")
    func attempts() {
        var budget = RetryBudget(policy: Self.policy)
        var retries = CallRetries(policy: Self.policy)
        #expect(self.fail(&retries, &budget) == .again(after: .milliseconds(100), previousAttempts: 1))
        #expect(self.fail(&retries, &budget) == .again(after: .milliseconds(200), previousAttempts: 2))
        #expect(self.fail(&retries, &budget) == .again(after: .milliseconds(350), previousAttempts: 3))
        #expect(self.fail(&retries, &budget) == .giveUp)
        #expect(budget.tokens == 6)
    }

    @Test("are jittered by a fifth at most", arguments: [0, 0.25, 1] as [Double])
    func jitter(chance: Double) throws {
        var budget = RetryBudget(policy: Self.policy)
        var retries = CallRetries(policy: Self.policy)
        let decision = retries.failed(
            code: .unavailable,
            pushback: .none,
            progress: .unknown,
            timeLeft: nil,
            budget: &budget,
            chance: chance
        )
        guard case .again(let wait, _) = decision else {
            Issue.record("\(decision)")
            return
        }
        #expect(wait == .milliseconds(100) * (0.8 + 0.4 * chance))
    }

    @Test("are not made for other statuses, nor when part of the response was seen, nor past the deadline")
    func refusals() {
        var budget = RetryBudget(policy: Self.policy)
        var other = CallRetries(policy: Self.policy)
        #expect(self.fail(&other, &budget, .invalidArgument) == .giveUp)
        #expect(budget.tokens == 10)
        var committed = CallRetries(policy: Self.policy)
        committed.commit()
        #expect(self.fail(&committed, &budget) == .giveUp)
        #expect(self.fail(&committed, &budget, progress: .neverSent) == .giveUp)
        var late = CallRetries(policy: Self.policy)
        #expect(self.fail(&late, &budget, timeLeft: .milliseconds(99)) == .giveUp)
        var early = CallRetries(policy: Self.policy)
        #expect(self.fail(&early, &budget, timeLeft: .milliseconds(101)) != .giveUp)
        var plain = CallRetries(policy: .transparent)
        #expect(self.fail(&plain, &budget) == .giveUp)
        #expect(CallRetries(policy: .none).isCommitted)
    }

    @Test("follow the server's pushback, which restarts the series of waits")
    func pushback() {
        var budget = RetryBudget(policy: Self.policy)
        var retries = CallRetries(policy: Self.policy)
        #expect(self.fail(&retries, &budget) == .again(after: .milliseconds(100), previousAttempts: 1))
        let told = RetryPushback.wait(.seconds(3))
        #expect(self.fail(&retries, &budget, pushback: told) == .again(after: .seconds(3), previousAttempts: 2))
        #expect(self.fail(&retries, &budget) == .again(after: .milliseconds(100), previousAttempts: 3))
        var stopped = CallRetries(policy: Self.policy)
        let before = budget.tokens
        #expect(self.fail(&stopped, &budget, .internal, pushback: .never) == .giveUp)
        #expect(budget.tokens == before - 1)
    }

    @Test(arguments: [
        ("250", RetryPushback.wait(.milliseconds(250))), ("0", .wait(.zero)), ("-1", .never), ("soon", .never),
        ("", .never), ("99999999999999999999", .never), ("86400001", .never),
    ])
    func `a pushback is read from the trailers`(text: String, expected: RetryPushback) throws {
        var metadata = Metadata()
        try metadata.add(text, forKey: "grpc-retry-pushback-ms")
        #expect(RetryPushback(metadata) == expected)
        #expect(RetryPushback(Metadata()) == .none)
    }

    @Test("that were never sent are retried without counting, refused ones once")
    func transparent() {
        var budget = RetryBudget(policy: .transparent)
        var retries = CallRetries(policy: .transparent)
        for _ in 0..<20 {
            #expect(
                self.fail(&retries, &budget, progress: .neverSent) == .again(after: .zero, previousAttempts: 0)
            )
        }
        #expect(self.fail(&retries, &budget, progress: .refused) == .again(after: .zero, previousAttempts: 0))
        #expect(self.fail(&retries, &budget, progress: .refused) == .giveUp)
        #expect(budget.tokens == 10)
    }

    @Test("pause when half of the tokens are gone, and resume when successes have earned some back")
    func throttling() {
        var budget = RetryBudget(policy: Self.policy)
        for _ in 0..<4 {
            var retries = CallRetries(policy: Self.policy)
            #expect(self.fail(&retries, &budget) != .giveUp)
        }
        var paused = CallRetries(policy: Self.policy)
        #expect(self.fail(&paused, &budget) == .giveUp)
        #expect(budget.tokens == 5)
        for _ in 0..<11 { CallRetries(policy: Self.policy).succeeded(budget: &budget) }
        #expect(budget.allowsRetries)
        for _ in 0..<1_000 { CallRetries(policy: Self.policy).succeeded(budget: &budget) }
        #expect(budget.tokens == 10)
        for _ in 0..<50 {
            var retries = CallRetries(policy: Self.policy)
            _ = self.fail(&retries, &budget)
        }
        #expect(budget.tokens == 0)
    }
}
