// SPDX-License-Identifier: Apache-2.0

internal import RPCCore
internal import Synchronization

/// A channel's retry policy and the tokens that its calls share.
final class RetryBudget: Sendable {
    let policy: RetryPolicy
    private let throttle: Mutex<RetryThrottle>

    init(policy: RetryPolicy) {
        self.policy = policy
        self.throttle = Mutex(RetryThrottle(policy: policy))
    }

    func withThrottle<Result>(_ body: (inout RetryThrottle) -> Result) -> Result {
        self.throttle.withLock { body(&$0) }
    }
}
