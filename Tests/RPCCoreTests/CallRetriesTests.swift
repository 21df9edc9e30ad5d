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
        _ throttle: inout RetryThrottle,
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
            throttle: &throttle,
            chance: 0.5
        )
    }

    @Test("wait longer each time, up to the limit of attempts")
    func attempts() {
        var throttle = RetryThrottle(policy: Self.policy)
        var retries = CallRetries(policy: Self.policy)
        #expect(self.fail(&retries, &throttle) == .again(after: .milliseconds(100), previousAttempts: 1))
        #expect(self.fail(&retries, &throttle) == .again(after: .milliseconds(200), previousAttempts: 2))
        #expect(self.fail(&retries, &throttle) == .again(after: .milliseconds(350), previousAttempts: 3))
        #expect(self.fail(&retries, &throttle) == .giveUp)
        #expect(throttle.tokens == 6)
    }

    @Test("are moved by a fifth at most", arguments: [0, 0.25, 1] as [Double])
    func jitter(chance: Double) throws {
        var throttle = RetryThrottle(policy: Self.policy)
        var retries = CallRetries(policy: Self.policy)
        let decision = retries.failed(
            code: .unavailable,
            pushback: .none,
            progress: .unknown,
            timeLeft: nil,
            throttle: &throttle,
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
        var throttle = RetryThrottle(policy: Self.policy)
        var other = CallRetries(policy: Self.policy)
        #expect(self.fail(&other, &throttle, .invalidArgument) == .giveUp)
        #expect(throttle.tokens == 10)
        var committed = CallRetries(policy: Self.policy)
        committed.commit()
        #expect(self.fail(&committed, &throttle) == .giveUp)
        #expect(self.fail(&committed, &throttle, progress: .neverSent) == .giveUp)
        var late = CallRetries(policy: Self.policy)
        #expect(self.fail(&late, &throttle, timeLeft: .milliseconds(99)) == .giveUp)
        var early = CallRetries(policy: Self.policy)
        #expect(self.fail(&early, &throttle, timeLeft: .milliseconds(101)) != .giveUp)
        var plain = CallRetries(policy: .transparent)
        #expect(self.fail(&plain, &throttle) == .giveUp)
        #expect(CallRetries(policy: .none).isCommitted)
    }

    @Test("follow the server's word, which begins a new series of waits")
    func pushback() {
        var throttle = RetryThrottle(policy: Self.policy)
        var retries = CallRetries(policy: Self.policy)
        #expect(self.fail(&retries, &throttle) == .again(after: .milliseconds(100), previousAttempts: 1))
        let told = RetryPushback.wait(.seconds(3))
        #expect(self.fail(&retries, &throttle, pushback: told) == .again(after: .seconds(3), previousAttempts: 2))
        #expect(self.fail(&retries, &throttle) == .again(after: .milliseconds(100), previousAttempts: 3))
        var stopped = CallRetries(policy: Self.policy)
        let before = throttle.tokens
        #expect(self.fail(&stopped, &throttle, .internal, pushback: .never) == .giveUp)
        #expect(throttle.tokens == before - 1)
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

    @Test("that never left go out again without counting, refused ones once")
    func transparent() {
        var throttle = RetryThrottle(policy: .transparent)
        var retries = CallRetries(policy: .transparent)
        for _ in 0..<20 {
            #expect(
                self.fail(&retries, &throttle, progress: .neverSent) == .again(after: .zero, previousAttempts: 0)
            )
        }
        #expect(self.fail(&retries, &throttle, progress: .refused) == .again(after: .zero, previousAttempts: 0))
        #expect(self.fail(&retries, &throttle, progress: .refused) == .giveUp)
        #expect(throttle.tokens == 10)
    }

    @Test("pause when half of the tokens are gone, and go on when successes brought some back")
    func throttling() {
        var throttle = RetryThrottle(policy: Self.policy)
        for _ in 0..<4 {
            var retries = CallRetries(policy: Self.policy)
            #expect(self.fail(&retries, &throttle) != .giveUp)
        }
        var paused = CallRetries(policy: Self.policy)
        #expect(self.fail(&paused, &throttle) == .giveUp)
        #expect(throttle.tokens == 5)
        for _ in 0..<11 { CallRetries(policy: Self.policy).succeeded(throttle: &throttle) }
        #expect(throttle.allowsRetries)
        for _ in 0..<1_000 { CallRetries(policy: Self.policy).succeeded(throttle: &throttle) }
        #expect(throttle.tokens == 10)
        for _ in 0..<50 {
            var retries = CallRetries(policy: Self.policy)
            _ = self.fail(&retries, &throttle)
        }
        #expect(throttle.tokens == 0)
    }
}
