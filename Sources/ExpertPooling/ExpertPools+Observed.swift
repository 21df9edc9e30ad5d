// SPDX-License-Identifier: Apache-2.0

internal import RPCCore
public import SwitchyardTypes

// Deadlines and hedge delays from observed times, and the budgets of hedges and retries.
extension ExpertPools {
    /// When a layer stops waiting.
    ///
    /// - Parameters:
    ///   - layer: The layer.
    ///   - assignments: Its calls.
    ///   - now: When it is dispatched.
    /// - Returns: The one deadline of all its attempts.
    public mutating func layerDeadline(
        of layer: SparseLayer,
        _ assignments: [PoolAssignment],
        now: ContinuousClock.Instant
    ) -> ContinuousClock.Instant {
        let policy = self.configuration.policy(of: layer)
        guard let adaptive = policy.adaptive else { return now.advanced(by: policy.deadline) }
        var longest = Duration.zero
        for assignment in assignments {
            let call = CallClass(stack: layer.stack, rows: assignment.rowCount)
            let pool = self.poolIndex(of: assignment.pool)
            let time = self.pools[pool].times[call.index]
                .percentile(0.99, minimumCount: self.configuration.samplesToBelieve)
            // Nothing is known about an unseen class of calls, so the layer waits as long as it may.
            guard let time else { return now.advanced(by: policy.deadline) }
            longest = max(longest, time)
        }
        let wanted = Duration.fromSeconds(longest.inSeconds * adaptive.multiple)
        return now.advanced(by: min(max(wanted, adaptive.shortest), policy.deadline))
    }

    /// How long a call may be silent before it is worth a hedge.
    func hedgeDelay(in pool: Int, _ call: CallClass) -> Duration {
        let time = self.pools[pool].times[call.index]
            .percentile(0.95, minimumCount: self.configuration.samplesToBelieve)
        return max(time ?? self.configuration.unknownHedgeDelay, self.configuration.shortestHedgeDelay)
    }

    /// Counts the start of a call, which earns a fraction of a hedge.
    mutating func earnHedge(in pool: Int) {
        self.pools[pool].counts.calls += 1
        let tokens = self.pools[pool].hedgeTokens + self.configuration.hedgeFraction
        self.pools[pool].hedgeTokens = min(tokens, self.configuration.hedgeBurst)
    }

    /// Whether a call may be hedged now.
    func mayHedge(in pool: Int) -> Bool {
        self.configuration.hedgeFraction > 0 && self.pools[pool].hedgeTokens >= 1
    }

    mutating func spendHedge(in pool: Int) {
        self.pools[pool].hedgeTokens -= 1
        self.pools[pool].counts.hedges += 1
    }

    /// Whether failed calls of a pool may be retried.
    func mayRetry(in pool: Int) -> Bool { self.pools[pool].retryBudget.allowsRetries }

    mutating func noteRetry(in pool: Int) { self.pools[pool].counts.retries += 1 }

    mutating func noteDrop(in pool: Int, rows: Int) { self.pools[pool].counts.droppedRows += UInt64(rows) }

    mutating func noteHedgeWon(in pool: Int) { self.pools[pool].counts.hedgesWon += 1 }

    /// Until when calls wait for a pool without a ready replica; nil if they do not wait.
    func patienceEnd(in pool: Int, _ policy: LayerPolicy) -> ContinuousClock.Instant? {
        guard policy.patience > .zero, let lostAt = self.pools[pool].lostAt else { return nil }
        return lostAt.advanced(by: policy.patience)
    }
}
