// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

// How attempts and calls end.
extension LayerCalls {
    /// Ends an attempt: every attempt ends here, once.
    func close(
        _ attempt: Attempt,
        of index: Int,
        _ outcome: AttemptOutcome,
        pools: inout ExpertPools,
        now: ContinuousClock.Instant,
        into actions: inout [LayerAction]
    ) {
        let end = AttemptEnd(
            slot: attempt.slot,
            kind: self.calls[index].kind,
            rows: self.calls[index].rows,
            work: self.calls[index].work,
            started: attempt.started,
            ended: now,
            outcome: outcome
        )
        for action in pools.attemptEnded(end) { actions.append(.pool(action)) }
    }

    /// The deadline has passed.
    mutating func giveUp(
        _ index: Int,
        pools: inout ExpertPools,
        now: ContinuousClock.Instant,
        into actions: inout [LayerAction]
    ) {
        let call = self.calls[index]
        if let audit = call.audit, !audit.opinions.isEmpty || audit.verdict != nil {
            if let verdict = audit.verdict {
                self.decide(index, verdict, pools: &pools, now: now, into: &actions)
            } else if audit.isInConflict {
                self.dispute(index, pools: &pools, now: now, into: &actions)
            } else {
                self.conclude(index, .unfinished, pools: &pools, now: now, into: &actions)
            }
            return
        }
        for attempt in call.out {
            actions.append(.cancel(AttemptID(call: index, number: attempt.number)))
            // An attempt made late had no fair chance; one with half of the layer's time had, however slow its pool has
            // been lately: the calls that a silent host misses make it look slow.
            let fairTime = min(pools.hedgeDelay(in: call.pool, call.kind), self.timeAllowed / 2)
            let isFair = attempt.started.duration(to: now) >= fairTime
            let outcome: AttemptOutcome = isFair ? .failed(.deadline) : .outOfTime
            self.close(attempt, of: index, outcome, pools: &pools, now: now, into: &actions)
        }
        let cause = call.out.isEmpty ? call.lastFailure?.dropCause ?? .timeout : .timeout
        self.calls[index].out = []
        self.drop(index, cause, pools: &pools, into: &actions)
    }

    mutating func drop(
        _ index: Int,
        _ cause: DropCause,
        pools: inout ExpertPools,
        into actions: inout [LayerAction]
    ) {
        self.abandonAudit(index, pools: &pools, into: &actions)
        let call = self.calls[index]
        pools.noteDrop(in: call.pool, rows: call.missing ?? call.rows)
        self.settle(index, .failed(.badReply), pools: &pools, into: &actions)
        actions.append(.drop(call: index, call.missing == nil ? cause : .badReply))
        self.end(index)
    }

    mutating func end(_ index: Int) {
        if case .ended = self.calls[index].phase { return }
        self.calls[index].phase = .ended
        self.calls[index].out = []
        self.open -= 1
    }
}
