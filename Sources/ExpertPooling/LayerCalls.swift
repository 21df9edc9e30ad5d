// SPDX-License-Identifier: Apache-2.0

public import SwitchyardTypes

/// One sparse layer's calls to the pools, as a pure machine: first attempts, hedges and retries inside one deadline.
///
/// Events come in with the time and the pools; actions go out. The runner sends and cancels attempts, judges the replies,
/// reports each answer and failure once, and calls ``timerFired(pools:now:)`` at ``nextTimer``. A call ends
/// exactly once, answered or dropped, and each of its attempts in ``close(_:of:_:pools:now:into:)``.
///
/// A call that has been silent for longer than 95 % of its pool's calls take is also sent to another replica, and the
/// first good answer counts; the other attempt is cancelled (J. Dean, L. A. Barroso, The Tail at Scale, 2013,
/// https://doi.org/10.1145/2408776.2408794). One deviation: hedges have a budget, a fraction of the pool's calls.
public struct LayerCalls: Sendable {
    enum Phase: Sendable {
        /// Attempts are in flight. Can transition to `waiting` and `ended`.
        case out
        /// No attempt is in flight; the next one is made at this time. Can transition to `out` and `ended`.
        case waiting(until: ContinuousClock.Instant)
        /// Answered or dropped. Final.
        case ended
    }

    struct Attempt: Sendable {
        let number: Int
        let slot: Int
        let started: ContinuousClock.Instant
        let isHedge: Bool
    }

    struct Call: Sendable {
        let pool: Int
        let load: CallLoad
        /// The replica that its first attempt goes to if that can take it.
        let preferredSlot: Int?
        let kind: CallClass
        var phase = Phase.out
        var out = ShortList<Attempt>()
        var tried = ShortList<Int>()
        /// Attempts so far, including hedges.
        var made = 0
        /// Attempts so far, not counting hedges.
        var sent = 0
        var hedgeAt: ContinuousClock.Instant?
        var lastFailure: CallFailure?
        /// Attempts whose answers lack some rows, with the time of each; judged when the call ends.
        var suspects: [(attempt: Attempt, ended: ContinuousClock.Instant)] = []
        /// Rows that no attempt has computed, once an answer lacked some.
        var missing: Int?
        /// The answers that are being compared; nil if the call is not audited.
        var audit: Audit?

        var rows: Int { self.load.rows }
        var work: Int { self.load.work }
    }

    /// The layer.
    public private(set) var layer: SparseLayer
    /// When the layer stops waiting, whatever its attempts.
    public private(set) var deadline: ContinuousClock.Instant
    private var policy: LayerPolicy
    /// When the runner computes rows of audited calls itself.
    private(set) var recomputes: RecomputePolicy
    /// How often a call may be sent, hedges not counted.
    var attemptLimit: Int { self.policy.attempts }
    /// The time from the layer's dispatch to its deadline.
    var timeAllowed = Duration.zero
    var calls: [Call] = []
    /// Calls that have not ended.
    var open = 0

    /// Creates a layer's machine; ``begin(_:pools:now:)`` makes its calls.
    ///
    /// - Parameters:
    ///   - layer: The layer.
    ///   - deadline: When the layer stops waiting (``ExpertPools/layerDeadline(of:_:now:)``).
    ///   - policy: How often to try until then.
    ///   - recomputes: When the runner follows ``LayerAction/recompute(call:)``.
    public init(
        layer: SparseLayer,
        deadline: ContinuousClock.Instant,
        policy: LayerPolicy,
        recomputes: RecomputePolicy = .never
    ) {
        self.layer = layer
        self.deadline = deadline
        self.policy = policy
        self.recomputes = recomputes
    }

    /// Makes the machine of a layer that is over, or was abandoned, that of another one, in the same memory.
    ///
    /// - Parameters:
    ///   - layer: The layer.
    ///   - deadline: When the layer stops waiting.
    ///   - policy: How often to try until then.
    ///   - recomputes: When the runner follows ``LayerAction/recompute(call:)``.
    public mutating func restart(
        layer: SparseLayer,
        deadline: ContinuousClock.Instant,
        policy: LayerPolicy,
        recomputes: RecomputePolicy
    ) {
        var calls = self.calls
        self = LayerCalls(layer: layer, deadline: deadline, policy: policy, recomputes: recomputes)
        calls.removeAll(keepingCapacity: true)
        self.calls = calls
    }

    /// Whether every call has ended.
    public var isComplete: Bool { self.open == 0 }

    /// When ``timerFired(pools:now:)`` has something to do; nil when all calls have ended.
    public var nextTimer: ContinuousClock.Instant? {
        guard !self.isComplete else { return nil }
        var earliest = self.deadline
        for index in self.calls.indices {
            switch self.calls[index].phase {
            case .out:
                if let hedgeAt = self.calls[index].hedgeAt { earliest = min(earliest, hedgeAt) }
                if let until = self.calls[index].audit?.until { earliest = min(earliest, until) }
            case .waiting(let until): earliest = min(earliest, until)
            case .ended: break
            }
        }
        return earliest
    }

    /// Whether an attempt's answer is still needed.
    ///
    /// - Parameter attempt: The attempt.
    /// - Returns: False once its call has ended, or the attempt has.
    public func isOut(_ attempt: AttemptID) -> Bool {
        self.calls.indices.contains(attempt.call)
            && self.calls[attempt.call].out.contains { $0.number == attempt.number }
    }

    // MARK: - Events

    /// Makes the layer's calls; call it once.
    ///
    /// - Parameters:
    ///   - assignments: The rows of each pool; a call is named by its index in them.
    ///   - pools: The pools.
    ///   - now: The current time.
    /// - Returns: What to send, and which calls are dropped because no replica can take them.
    public mutating func begin(
        _ assignments: [PoolAssignment],
        pools: inout ExpertPools,
        now: ContinuousClock.Instant
    ) -> [LayerAction] {
        precondition(self.calls.isEmpty, "the calls of \(self.layer) have already been made")
        self.open = assignments.count
        self.timeAllowed = now.duration(to: self.deadline)
        self.calls.reserveCapacity(assignments.count)
        for assignment in assignments {
            let load = CallLoad(assignment)
            let pool = pools.poolIndex(of: assignment.pool)
            let kind = CallClass(stack: self.layer.stack, rows: load.rows)
            self.calls.append(Call(pool: pool, load: load, preferredSlot: assignment.preferredSlot, kind: kind))
        }
        var actions: [LayerAction] = []
        actions.reserveCapacity(assignments.count)
        for index in self.calls.indices {
            pools.earnHedge(in: self.calls[index].pool)
            self.sendNext(index, pools: &pools, now: now, into: &actions)
        }
        for index in self.calls.indices { self.startAudit(index, pools: &pools, now: now, into: &actions) }
        return actions
    }

    /// Records a good answer to an attempt, which answers its call.
    ///
    /// - Parameters:
    ///   - attempt: The attempt, of a call that is not audited; one that is no longer in flight changes nothing.
    ///   - pools: The pools.
    ///   - now: When the answer came.
    /// - Returns: The other attempt to cancel, if there is one, and the pools' actions.
    public mutating func answered(
        _ attempt: AttemptID,
        pools: inout ExpertPools,
        now: ContinuousClock.Instant
    ) -> [LayerAction] {
        guard let winner = self.takeOut(attempt) else { return [] }
        let index = attempt.call
        var actions: [LayerAction] = []
        guard !pools.isQuarantined(winner.slot) else {
            self.disregard(winner, of: index, pools: &pools, now: now, into: &actions)
            return actions
        }
        let losers = self.calls[index].out
        self.close(winner, of: index, .answered, pools: &pools, now: now, into: &actions)
        for loser in losers {
            actions.append(.cancel(AttemptID(call: index, number: loser.number)))
            let outcome: AttemptOutcome = winner.isHedge ? .overtaken : .cancelled
            self.close(loser, of: index, outcome, pools: &pools, now: now, into: &actions)
        }
        if winner.isHedge { pools.noteHedgeWon(in: self.calls[index].pool) }
        self.settle(index, .failed(.badReply), pools: &pools, into: &actions)
        if let id = pools.takeProof(in: self.calls[index].pool, like: winner.slot) {
            actions.append(.prove(call: index, id))
        }
        self.end(index)
        return actions
    }

    /// Records that an attempt failed or its answer is unusable.
    ///
    /// - Parameters:
    ///   - attempt: The attempt; one that is no longer in flight changes nothing.
    ///   - failure: How.
    ///   - pushback: How long the replica wants no calls, heeded until the layer's deadline; nil if it does not say.
    ///   - pools: The pools.
    ///   - now: The current time.
    /// - Returns: What to send instead, or that the call is dropped, and the pools' actions.
    public mutating func failed(
        _ attempt: AttemptID,
        _ failure: CallFailure,
        pushback: Duration? = nil,
        pools: inout ExpertPools,
        now: ContinuousClock.Instant
    ) -> [LayerAction] {
        guard let lost = self.takeOut(attempt) else { return [] }
        let index = attempt.call
        if let pushback, pushback > .zero {
            pools.pushedBack(lost.slot, until: min(now.advanced(by: pushback), self.deadline))
        }
        var actions: [LayerAction] = []
        self.close(lost, of: index, .failed(failure), pools: &pools, now: now, into: &actions)
        self.calls[index].lastFailure = failure
        guard self.calls[index].out.isEmpty else { return actions }
        if self.calls[index].audit != nil {
            self.weigh(index, pools: &pools, now: now, into: &actions)
        } else {
            self.retry(index, after: failure, pools: &pools, now: now, into: &actions)
        }
        return actions
    }

    /// Handles the timer: calls may be hedged, retried or dropped.
    ///
    /// - Parameters:
    ///   - pools: The pools.
    ///   - now: The current time.
    /// - Returns: What to send and to cancel, and which calls are dropped.
    public mutating func timerFired(pools: inout ExpertPools, now: ContinuousClock.Instant) -> [LayerAction] {
        var actions: [LayerAction] = []
        for index in self.calls.indices {
            switch self.calls[index].phase {
            case .ended:
                break
            case .out where now >= self.deadline, .waiting where now >= self.deadline:
                self.giveUp(index, pools: &pools, now: now, into: &actions)
            case .out:
                if let until = self.calls[index].audit?.until, until <= now {
                    self.conclude(index, .unfinished, pools: &pools, now: now, into: &actions)
                } else if let hedgeAt = self.calls[index].hedgeAt, hedgeAt <= now {
                    self.hedge(index, pools: &pools, now: now, into: &actions)
                }
            case .waiting(let until):
                if until <= now { self.sendNext(index, pools: &pools, now: now, into: &actions) }
            }
        }
        return actions
    }

    /// Abandons the layer: no client waits for it any more.
    ///
    /// - Parameters:
    ///   - pools: The pools.
    ///   - now: The current time.
    /// - Returns: The attempts to cancel.
    public mutating func abandoned(pools: inout ExpertPools, now: ContinuousClock.Instant) -> [LayerAction] {
        var actions: [LayerAction] = []
        let outcome: AttemptOutcome = now >= self.deadline ? .outOfTime : .cancelled
        for index in self.calls.indices {
            for attempt in self.calls[index].out {
                actions.append(.cancel(AttemptID(call: index, number: attempt.number)))
                self.close(attempt, of: index, outcome, pools: &pools, now: now, into: &actions)
            }
            self.abandonAudit(index, pools: &pools, into: &actions)
            self.settle(index, .cancelled, pools: &pools, into: &actions)
            self.end(index)
        }
        return actions
    }

    // MARK: - Attempts

    private mutating func sendNext(
        _ index: Int,
        pools: inout ExpertPools,
        now: ContinuousClock.Instant,
        into actions: inout [LayerAction]
    ) {
        guard now < self.deadline else {
            self.giveUp(index, pools: &pools, now: now, into: &actions)
            return
        }
        let call = self.calls[index]
        var choice = pools.startAttempt(
            in: call.pool,
            excluding: call.tried,
            preferring: call.preferredSlot,
            load: call.load,
            now: now
        )
        if case .failure(.allTried) = choice {
            // Another replica first; after that the same ones again.
            choice = pools.startAttempt(in: call.pool, excluding: [], load: call.load, now: now)
        }
        switch choice {
        case .success(let slot):
            if call.sent > 0 { pools.noteRetry(in: call.pool) }
            self.calls[index].sent += 1
            self.calls[index].hedgeAt = now.advanced(by: pools.hedgeDelay(in: call.pool, call.kind))
            self.send(index, to: slot, isHedge: false, pools: pools, now: now, into: &actions)
        case .failure(.allBusy(let until)):
            let pause = now.advanced(by: pools.configuration.retryDelay)
            self.calls[index].phase = .waiting(until: max(until ?? pause, pause))
            self.calls[index].lastFailure = call.lastFailure ?? .overloaded
        case .failure(.noneReady), .failure(.allTried):
            if let end = pools.patienceEnd(in: call.pool, self.policy), now < end {
                self.calls[index].phase = .waiting(until: now.advanced(by: pools.configuration.retryDelay))
                self.calls[index].lastFailure = call.lastFailure ?? .unavailable
            } else {
                self.drop(index, call.lastFailure?.dropCause ?? .unavailable, pools: &pools, into: &actions)
            }
        }
    }

    mutating func retry(
        _ index: Int,
        after failure: CallFailure,
        pools: inout ExpertPools,
        now: ContinuousClock.Instant,
        into actions: inout [LayerAction]
    ) {
        let call = self.calls[index]
        guard call.sent < self.policy.attempts, pools.mayRetry(in: call.pool) else {
            self.drop(index, failure.dropCause, pools: &pools, into: &actions)
            return
        }
        // If no replica is left at all, the next attempt finds out whether to wait for one.
        let isAnyLeft = !pools.candidates(in: call.pool, excluding: []).isEmpty
        if !isAnyLeft || !pools.candidates(in: call.pool, excluding: call.tried).isEmpty {
            self.sendNext(index, pools: &pools, now: now, into: &actions)
        } else if failure.mayHealOnTheSameReplica {
            let doublings = min(call.sent - 1, 8)
            let wait = pools.configuration.retryDelay * (1 << max(0, doublings))
            self.calls[index].phase = .waiting(until: now.advanced(by: wait))
        } else {
            self.drop(index, failure.dropCause, pools: &pools, into: &actions)
        }
    }

    private mutating func hedge(
        _ index: Int,
        pools: inout ExpertPools,
        now: ContinuousClock.Instant,
        into actions: inout [LayerAction]
    ) {
        self.calls[index].hedgeAt = nil
        let call = self.calls[index]
        guard pools.mayHedge(in: call.pool),
            case .success(let slot) = pools.startAttempt(
                in: call.pool,
                excluding: call.tried,
                load: call.load,
                now: now
            )
        else {
            // The budget may allow it a little later, or a replica may be back.
            let pause = max(pools.hedgeDelay(in: call.pool, call.kind), pools.configuration.retryDelay)
            if pools.configuration.hedgeFraction > 0 { self.calls[index].hedgeAt = now.advanced(by: pause) }
            return
        }
        pools.spendHedge(in: call.pool)
        self.send(index, to: slot, isHedge: true, pools: pools, now: now, into: &actions)
    }

    mutating func send(
        _ index: Int,
        to slot: Int,
        isHedge: Bool,
        pools: ExpertPools,
        now: ContinuousClock.Instant,
        into actions: inout [LayerAction]
    ) {
        let number = self.calls[index].made
        self.calls[index].made += 1
        self.calls[index].phase = .out
        self.calls[index].tried.append(slot)
        self.calls[index].out.append(Attempt(number: number, slot: slot, started: now, isHedge: isHedge))
        actions.append(.send(AttemptID(call: index, number: number), to: pools.replicas[slot].id))
    }

    mutating func takeOut(_ attempt: AttemptID) -> Attempt? {
        guard self.calls.indices.contains(attempt.call),
            let place = self.calls[attempt.call].out.firstIndex(where: { $0.number == attempt.number })
        else { return nil }
        return self.calls[attempt.call].out.remove(at: place)
    }
}
