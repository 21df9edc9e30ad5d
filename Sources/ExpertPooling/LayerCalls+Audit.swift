// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

// Audited calls: two answers to one call are compared, bit for bit, before one of them is used.
//
// **Opinions.** An audited call goes to a second replica at the same time as to the first, with the same message and the same
// deadline, so a host cannot tell it from any other call. Where a pool has one replica that is ready, the runner computes
// the rows itself. The runner numbers the different answers of a call: equal bits, equal number.
//
// **Verdict.** The runner's own opinion decides alone; otherwise two equal ones of different replicas do. While opinions differ,
// the runner is asked for its own, or else a third replica: two replicas may share a damaged file. A replica that differs from the
// verdict is caught (`ExpertPools+Audit.swift`), and the answer that goes on is the right one.
//
// **Patience.** The second opinion is waited for four times as long as 95 % of such calls take; then the first is used, and the
// audit is unfinished. Once two opinions differ, nothing is used before the layer's deadline unless a third one
// decides.
extension LayerCalls {
    struct Audit: Sendable {
        enum Own: Sendable, Equatable {
            case notAsked
            case asked
            case given(Int)
            case failed
        }

        /// The answers so far: who gave which.
        var opinions: [(attempt: Attempt, opinion: Int, ended: ContinuousClock.Instant)] = []
        /// The runner's own opinion.
        var own = Own.notAsked
        /// When the second opinion is no longer waited for; nil before the first, and once two differ.
        var until: ContinuousClock.Instant?
        /// Rows on which the opinions differ.
        var conflicting = 0

        /// Whether two opinions differ.
        var isInConflict: Bool { self.opinions.contains { $0.opinion != self.opinions[0].opinion } }

        /// The opinion that decides.
        var verdict: Int? {
            if case .given(let own) = self.own { return own }
            return self.opinions.first { first in self.opinions.count { $0.opinion == first.opinion } >= 2 }?.opinion
        }
    }

    /// Whether a call's answers are compared: then ``heard(_:opinion:conflicting:pools:now:)`` takes them.
    ///
    /// - Parameter call: Index of the call.
    /// - Returns: Whether it is audited.
    public func isAudited(_ call: Int) -> Bool { self.calls.indices.contains(call) && self.calls[call].audit != nil }

    /// Whether a call is neither answered nor dropped.
    ///
    /// - Parameter call: Index of the call.
    /// - Returns: Whether something is still to come for it.
    public func isOpen(_ call: Int) -> Bool {
        guard self.calls.indices.contains(call) else { return false }
        if case .ended = self.calls[call].phase { return false }
        return true
    }

    /// The runner's own opinion on a call.
    ///
    /// - Parameter call: Index of the call.
    /// - Returns: Its number; nil if it has given none, or the call is no longer audited.
    public func ownOpinion(on call: Int) -> Int? {
        guard self.isAudited(call), case .given(let own) = self.calls[call].audit?.own else { return nil }
        return own
    }

    /// Records a good answer to an attempt of an audited call.
    ///
    /// - Parameters:
    ///   - attempt: The attempt; one that is no longer in flight changes nothing.
    ///   - opinion: The number of its bits among the call's answers.
    ///   - conflicting: Rows on which the call's answers differ so far, this one included.
    ///   - pools: The pools.
    ///   - now: When the answer came.
    /// - Returns: Which answer to use, whom to ask further, whom to cancel, and the pools' actions.
    public mutating func heard(
        _ attempt: AttemptID,
        opinion: Int,
        conflicting: Int,
        pools: inout ExpertPools,
        now: ContinuousClock.Instant
    ) -> [LayerAction] {
        guard self.isAudited(attempt.call) else { return self.answered(attempt, pools: &pools, now: now) }
        guard let heard = self.takeOut(attempt) else { return [] }
        let index = attempt.call
        var actions: [LayerAction] = []
        guard !pools.isQuarantined(heard.slot) else {
            self.disregard(heard, of: index, pools: &pools, now: now, into: &actions)
            return actions
        }
        self.calls[index].hedgeAt = nil
        self.calls[index].audit?.opinions.append((heard, opinion, now))
        self.calls[index].audit?.conflicting = conflicting
        self.weigh(index, pools: &pools, now: now, into: &actions)
        return actions
    }

    /// Records the rows that the runner computed itself.
    ///
    /// - Parameters:
    ///   - call: Index of the call.
    ///   - opinion: The number of its bits among the call's answers; nil if it could not compute them.
    ///   - conflicting: Rows on which the call's answers differ so far, this one included.
    ///   - pools: The pools.
    ///   - now: The current time.
    /// - Returns: Which answer to use, whom to ask further, whom to cancel, and the pools' actions.
    public mutating func recomputed(
        _ call: Int,
        opinion: Int?,
        conflicting: Int = 0,
        pools: inout ExpertPools,
        now: ContinuousClock.Instant
    ) -> [LayerAction] {
        guard self.isAudited(call), self.calls[call].audit?.own == .asked else { return [] }
        var actions: [LayerAction] = []
        if let opinion {
            self.calls[call].audit?.own = .given(opinion)
            self.calls[call].audit?.conflicting = conflicting
        } else {
            self.calls[call].audit?.own = .failed
        }
        self.weigh(call, pools: &pools, now: now, into: &actions)
        return actions
    }

    /// Sends an audited call to a second replica, or asks the runner.
    mutating func startAudit(
        _ index: Int,
        pools: inout ExpertPools,
        now: ContinuousClock.Instant,
        into actions: inout [LayerAction]
    ) {
        guard case .out = self.calls[index].phase, pools.drawsAudit(in: self.calls[index].pool) else { return }
        self.calls[index].audit = Audit()
        guard !self.seek(index, pools: &pools, now: now, into: &actions) else { return }
        self.calls[index].audit = nil
        pools.noteAudit(in: self.calls[index].pool, .unwitnessed, rows: 0)
    }

    /// Decides, if the opinions suffice, or asks for another one.
    mutating func weigh(
        _ index: Int,
        pools: inout ExpertPools,
        now: ContinuousClock.Instant,
        into actions: inout [LayerAction]
    ) {
        guard let audit = self.calls[index].audit else { return }
        // The runner's own opinion counts once a replica's answer can be compared with it, or none will come.
        let isAlone = audit.opinions.isEmpty
        if let verdict = audit.verdict, !isAlone || self.calls[index].out.isEmpty {
            self.decide(index, verdict, pools: &pools, now: now, into: &actions)
            return
        }
        if audit.isInConflict {
            self.calls[index].audit?.until = nil
            if audit.own == .notAsked, self.recomputes != .never {
                self.ask(index, pools: &pools, into: &actions)
            } else if audit.own != .asked, self.calls[index].out.isEmpty,
                !self.seek(index, pools: &pools, now: now, into: &actions)
            {
                self.dispute(index, pools: &pools, now: now, into: &actions)
            }
            return
        }
        let isWaiting = !self.calls[index].out.isEmpty || audit.own == .asked
        if isAlone {
            if !isWaiting, let failure = self.calls[index].lastFailure {
                self.retry(index, after: failure, pools: &pools, now: now, into: &actions)
            }
            return
        }
        guard isWaiting || self.seek(index, pools: &pools, now: now, into: &actions) else {
            self.conclude(index, .unwitnessed, pools: &pools, now: now, into: &actions)
            return
        }
        guard self.calls[index].audit?.own != .asked, self.calls[index].audit?.until == nil else { return }
        let delay = pools.hedgeDelay(in: self.calls[index].pool, self.calls[index].kind) * 2
        let first = audit.opinions[0].attempt.started
        self.calls[index].audit?.until = max(now, first.advanced(by: delay)).advanced(by: delay)
    }

    /// Uses the first opinion: no other will come in time.
    mutating func conclude(
        _ index: Int,
        _ result: AuditResult,
        pools: inout ExpertPools,
        now: ContinuousClock.Instant,
        into actions: inout [LayerAction]
    ) {
        guard let audit = self.calls[index].audit, let first = audit.opinions.first else { return }
        self.finishAudit(index, accepting: first.opinion, result, pools: &pools, now: now, into: &actions)
    }

    /// Drops the rows on which replicas differ without a third opinion.
    mutating func dispute(
        _ index: Int,
        pools: inout ExpertPools,
        now: ContinuousClock.Instant,
        into actions: inout [LayerAction]
    ) {
        guard let audit = self.calls[index].audit else { return }
        self.calls[index].audit = nil
        for (attempt, _, ended) in audit.opinions {
            self.close(attempt, of: index, .answered, pools: &pools, now: ended, into: &actions)
        }
        self.cancelOthers(of: index, pools: &pools, now: now, into: &actions)
        let pool = self.calls[index].pool
        for action in pools.noteDispute(in: pool) { actions.append(.pool(action)) }
        pools.noteAudit(in: pool, .disputed, rows: self.calls[index].rows)
        self.calls[index].missing = audit.conflicting
        actions.append(.dispute(call: index))
        self.drop(index, .badReply, pools: &pools, into: &actions)
    }

    /// Ends the attempt of a replica that has been caught since it was sent: its answer is not used.
    mutating func disregard(
        _ attempt: Attempt,
        of index: Int,
        pools: inout ExpertPools,
        now: ContinuousClock.Instant,
        into actions: inout [LayerAction]
    ) {
        self.close(attempt, of: index, .cancelled, pools: &pools, now: now, into: &actions)
        self.calls[index].lastFailure = .wrongReply
        guard self.calls[index].out.isEmpty else { return }
        if self.calls[index].audit != nil {
            self.weigh(index, pools: &pools, now: now, into: &actions)
        } else {
            self.retry(index, after: .wrongReply, pools: &pools, now: now, into: &actions)
        }
    }

    /// Ends an audit of an abandoned layer, or of a call that is dropped.
    mutating func abandonAudit(
        _ index: Int,
        pools: inout ExpertPools,
        into actions: inout [LayerAction]
    ) {
        guard let audit = self.calls[index].audit else { return }
        self.calls[index].audit = nil
        for (attempt, _, ended) in audit.opinions {
            self.close(attempt, of: index, .answered, pools: &pools, now: ended, into: &actions)
        }
        pools.noteAudit(in: self.calls[index].pool, .unfinished, rows: 0)
    }

    /// Uses the opinion that decides; replicas that differ from it are caught.
    mutating func decide(
        _ index: Int,
        _ verdict: Int,
        pools: inout ExpertPools,
        now: ContinuousClock.Instant,
        into actions: inout [LayerAction]
    ) {
        guard let opinions = self.calls[index].audit?.opinions else { return }
        let isCaught = opinions.contains { $0.opinion != verdict }
        let result: AuditResult = isCaught ? .caught : opinions.isEmpty ? .unfinished : .agreed
        self.finishAudit(index, accepting: verdict, result, pools: &pools, now: now, into: &actions)
    }

    // MARK: - Inside

    private mutating func finishAudit(
        _ index: Int,
        accepting verdict: Int,
        _ result: AuditResult,
        pools: inout ExpertPools,
        now: ContinuousClock.Instant,
        into actions: inout [LayerAction]
    ) {
        guard let audit = self.calls[index].audit else { return }
        self.calls[index].audit = nil
        actions.append(.accept(call: index, opinion: verdict))
        // Those that are caught leave first: what is ejected as slow must not be its pool's last.
        for (attempt, opinion, _) in audit.opinions where opinion != verdict {
            actions.append(.caught(call: index, pools.replicas[attempt.slot].id))
            self.close(attempt, of: index, .failed(.wrongReply), pools: &pools, now: now, into: &actions)
        }
        var winner: Int?
        for (attempt, opinion, ended) in audit.opinions where opinion == verdict {
            winner = attempt.slot
            self.close(attempt, of: index, .answered, pools: &pools, now: ended, into: &actions)
        }
        self.cancelOthers(of: index, pools: &pools, now: now, into: &actions)
        let pool = self.calls[index].pool
        pools.noteAudit(in: pool, result, rows: self.calls[index].rows)
        self.settle(index, .failed(.badReply), pools: &pools, into: &actions)
        if let id = pools.takeProof(in: pool, like: winner) { actions.append(.prove(call: index, id)) }
        self.end(index)
    }

    private mutating func cancelOthers(
        of index: Int,
        pools: inout ExpertPools,
        now: ContinuousClock.Instant,
        into actions: inout [LayerAction]
    ) {
        for other in self.calls[index].out {
            actions.append(.cancel(AttemptID(call: index, number: other.number)))
            self.close(other, of: index, .cancelled, pools: &pools, now: now, into: &actions)
        }
        self.calls[index].out = []
    }

    /// Asks for another opinion: of a replica that has not been asked, or of the runner.
    ///
    /// - Returns: Whether there is anyone to ask.
    private mutating func seek(
        _ index: Int,
        pools: inout ExpertPools,
        now: ContinuousClock.Instant,
        into actions: inout [LayerAction]
    ) -> Bool {
        let call = self.calls[index]
        if let first = call.tried.first,
            let slot = pools.startWitness(
                in: call.pool,
                like: first,
                excluding: call.tried,
                load: call.load,
                now: now
            )
        {
            self.send(index, to: slot, isHedge: false, pools: pools, now: now, into: &actions)
            return true
        }
        guard self.recomputes == .always, call.audit?.own == .notAsked else { return false }
        self.ask(index, pools: &pools, into: &actions)
        return true
    }

    private mutating func ask(_ index: Int, pools: inout ExpertPools, into actions: inout [LayerAction]) {
        self.calls[index].audit?.own = .asked
        pools.noteRecomputed(in: self.calls[index].pool)
        actions.append(.recompute(call: index))
    }
}
