// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

// Answers that lack some rows: those are not finite, or cannot be right.
//
// **Rows fail, not calls.** The good rows of such an answer are kept by the runner, whatever happens next, so a row's fate
// never depends on the rows beside it. For the others the call is made again on another replica.
//
// **Who is at fault.** A damaged host gives such rows, but so do healthy ones where the model itself overflows. So an
// answer that lacks rows is judged only when its call ends: if another replica computed the rows, the first one failed; if
// another replica could not either, neither failed, and the rows are dropped. Having no other replica to ask counts as a failure,
// which ejects no replica that is its pool's last.
extension LayerCalls {
    /// Records an answer to an attempt that is good except for some rows.
    ///
    /// - Parameters:
    ///   - attempt: The attempt; one that is no longer in flight changes nothing.
    ///   - missing: The call's rows that neither this answer nor an earlier one has.
    ///   - pools: The pools.
    ///   - now: When the answer came.
    /// - Returns: What to send for the missing rows, or that they are dropped, and the pools' actions. A drop is of the
    ///   missing rows alone.
    public mutating func answeredInPart(
        _ attempt: AttemptID,
        missing: Int,
        pools: inout ExpertPools,
        now: ContinuousClock.Instant
    ) -> [LayerAction] {
        guard let lacking = self.takeOut(attempt) else { return [] }
        let index = attempt.call
        guard !pools.isQuarantined(lacking.slot) else {
            var actions: [LayerAction] = []
            self.disregard(lacking, of: index, pools: &pools, now: now, into: &actions)
            return actions
        }
        if let audit = self.calls[index].audit {
            guard audit.opinions.isEmpty else {
                // Another replica computed the rows, so this one has failed.
                var actions: [LayerAction] = []
                self.calls[index].suspects.append((lacking, now))
                if audit.isInConflict {
                    self.weigh(index, pools: &pools, now: now, into: &actions)
                } else {
                    self.conclude(index, .unfinished, pools: &pools, now: now, into: &actions)
                }
                return actions
            }
            // Rows are judged one by one instead.
            self.calls[index].audit = nil
            pools.noteAudit(in: self.calls[index].pool, .unfinished, rows: 0)
        }
        let isConfirmed =
            self.calls[index].missing == missing
            && self.calls[index].suspects.contains { $0.attempt.slot != lacking.slot }
        self.calls[index].missing = missing
        self.calls[index].suspects.append((lacking, now))
        self.calls[index].lastFailure = .badReply
        var actions: [LayerAction] = []
        if isConfirmed || missing == 0 {
            for other in self.calls[index].out {
                actions.append(.cancel(AttemptID(call: index, number: other.number)))
                self.close(other, of: index, .cancelled, pools: &pools, now: now, into: &actions)
            }
            // Replicas that computed each other's missing rows have all failed.
            let verdict: AttemptOutcome = missing == 0 ? .failed(.badReply) : .answered
            self.settle(index, verdict, pools: &pools, into: &actions)
            if missing == 0 {
                self.end(index)
            } else {
                self.drop(index, .badReply, pools: &pools, into: &actions)
            }
            return actions
        }
        guard self.calls[index].out.isEmpty else { return actions }
        self.retry(index, after: .badReply, pools: &pools, now: now, into: &actions)
        return actions
    }

    /// Ends the attempts whose answers lacked rows, all in the same way.
    mutating func settle(
        _ index: Int,
        _ outcome: AttemptOutcome,
        pools: inout ExpertPools,
        into actions: inout [LayerAction]
    ) {
        let suspects = self.calls[index].suspects
        self.calls[index].suspects = []
        for (attempt, ended) in suspects {
            self.close(attempt, of: index, outcome, pools: &pools, now: ended, into: &actions)
        }
    }
}
