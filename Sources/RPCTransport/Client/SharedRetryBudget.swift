// SPDX-License-Identifier: Apache-2.0

internal import RPCCore
internal import Synchronization

/// A channel's retry policy and the budget that its calls share.
final class SharedRetryBudget: Sendable {
    let policy: RetryPolicy
    private let budget: Mutex<RetryBudget>

    init(policy: RetryPolicy) {
        self.policy = policy
        self.budget = Mutex(RetryBudget(policy: policy))
    }

    func withBudget<Result>(_ body: (inout RetryBudget) -> Result) -> Result {
        self.budget.withLock { body(&$0) }
    }
}
