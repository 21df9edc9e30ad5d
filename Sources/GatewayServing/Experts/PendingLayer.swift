// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import ExpertPooling
internal import Logging
internal import RPCCore
internal import RPCTransport
internal import ServiceKit
internal import SwitchModel
internal import Telemetry

/// One sparse layer's calls that are out: the runner of the ``LayerCalls`` machine.
///
/// Event loops only record answers; the engine's thread, which waits, judges them, hedges, tries other replicas and gives
/// up at the layer's deadline.
final class PendingLayer: PendingExperts, Sendable {
    /// An attempt at one replica.
    private struct Attempt: Sendable {
        let replica: ReplicaID
        let started: ContinuousClock.Instant
        /// The attempt in its trace; nil if nobody follows it.
        let span: TraceContext?
        var handle: CallHandle?
    }

    private struct Answer: Sendable {
        let attempt: AttemptID
        let result: Result<UnaryReply, RPCError>
        let time: ContinuousClock.Instant
    }

    private struct State: Sendable {
        var machine: LayerCalls
        var out: [AttemptID: Attempt] = [:]
        var answers: [Answer] = []
        var isCancelled = false
        var outputs = ExpertOutputs(chunks: [])
    }

    private enum Event {
        case answers([Answer])
        case complete
        case cancelled
    }

    private let cluster: ExpertCluster
    private let layer: SparseLayer
    private let calls: [LayerCall]
    private let trace: StepTrace?
    private let state: Monitor<State>

    init(
        cluster: ExpertCluster,
        layer: SparseLayer,
        calls: [LayerCall],
        deadline: ContinuousClock.Instant,
        trace: StepTrace? = nil
    ) {
        self.cluster = cluster
        self.layer = layer
        self.calls = calls
        self.trace = trace
        let pooled = ExpertLayer(layer)
        let policy = cluster.configuration.choice.policy(of: pooled)
        self.state = Monitor(State(machine: LayerCalls(layer: pooled, deadline: deadline, policy: policy)))
    }

    // MARK: - Calls out

    /// Sends all calls; called once.
    func begin() {
        self.step { machine, pools, now in
            machine.begin(self.calls.map(\.assignment), pools: &pools, now: now)
        }
    }

    /// Counts rows as dropped that no call carries.
    func drop(rows: [Range<Int>], reason: DropReason) {
        guard !rows.isEmpty else {
            return
        }
        self.state.withLock { state in
            state.outputs.dropped.append(contentsOf: rows.map { .init(rows: $0, reason: reason) })
        }
    }

    /// One step of the machine under both locks, then what it asks for.
    private func step(
        _ body: (inout LayerCalls, inout ExpertPools, ContinuousClock.Instant) -> [LayerAction]
    ) {
        let actions = self.state.withLock { state in
            self.cluster.step { pools, now in body(&state.machine, &pools, now) }
        }
        var pooled: [PoolAction] = []
        for action in actions {
            switch action {
            case .send(let attempt, to: let replica):
                self.send(attempt, to: replica)
            case .cancel(let attempt):
                let left = self.state.withLock { $0.out.removeValue(forKey: attempt) }
                left?.handle?.cancel()
                self.note(left, attempt, isGivenUp: true)
            case .drop(let call, let cause):
                self.drop(rows: self.calls[call].assignment.groups.map(\.rows), reason: DropReason(cause))
            case .pool(let action):
                pooled.append(action)
            }
        }
        if !pooled.isEmpty {
            self.cluster.follow(pooled)
        }
    }

    private func send(_ attempt: AttemptID, to replica: ReplicaID) {
        let call = self.calls[attempt.call]
        let span = self.trace?.carried.child()
        let (deadline, isCancelled) = self.state.withLock { state in
            state.out[attempt] = Attempt(replica: replica, started: .now, span: span)
            return (state.machine.deadline, state.isCancelled)
        }
        guard let channel = self.cluster.channel(to: replica, sending: call.assignment.rowCount) else {
            self.record(.failure(RPCError(.unavailable, "the replica is no longer named")), attempt)
            return
        }
        guard !isCancelled else {
            self.record(.failure(RPCError(.cancelled, "nobody waits for the layer any more")), attempt)
            return
        }
        var options = CallOptions(deadline: deadline)
        // Without metadata the call's header block is one that the connection has stored.
        if let span { options.metadata = Metadata(carrying: span) }
        let handle = channel.unary(.forward, call.payload, options: options) { result in
            self.record(result, attempt)
        }
        // The answer may have come already; then nobody needs the handle.
        let isCancelledNow = self.state.withLock { state in
            state.out[attempt]?.handle = handle
            return state.isCancelled
        }
        if isCancelledNow {
            handle.cancel()
        }
    }

    /// Called on an event loop.
    private func record(_ result: Result<UnaryReply, RPCError>, _ attempt: AttemptID) {
        let now = ContinuousClock.now
        self.state.notify { state in
            // An attempt that was given up is no longer out, and its answer no longer wanted.
            if state.out[attempt] != nil {
                state.answers.append(Answer(attempt: attempt, result: result, time: now))
            }
        }
    }

    // MARK: - Waiting

    func wait() throws -> ExpertOutputs {
        while true {
            switch self.nextEvent() {
            case .answers(let answers):
                for answer in answers {
                    self.judge(answer)
                }
            case .complete:
                return self.state.withLock { $0.outputs }
            case .cancelled:
                self.abandon()
                throw StepInterrupted(
                    layer: self.layer,
                    reason: .unavailable,
                    sequences: [],
                    message: "nobody waits for the step any more"
                )
            case nil:
                self.step { machine, pools, now in machine.timerFired(pools: &pools, now: now) }
            }
        }
    }

    /// Judges the answers that have come and sends what is due, without waiting.
    ///
    /// A thread that computes something else between two looks sends hedges and retries that much later.
    var isReady: Bool {
        while true {
            switch self.state.withLock({ Self.event(&$0) }) {
            case .answers(let answers):
                for answer in answers {
                    self.judge(answer)
                }
            case .complete, .cancelled:
                return true
            case nil:
                let timer = self.state.withLock { $0.machine.nextTimer } ?? .now
                guard timer <= .now else {
                    return false
                }
                self.step { machine, pools, now in machine.timerFired(pools: &pools, now: now) }
            }
        }
    }

    func cancel() {
        self.state.notify { $0.isCancelled = true }
        // Not left to the thread that waits, since there may be none.
        self.abandon()
    }

    private func nextEvent() -> Event? {
        // The machine moves on this thread only, but for its end, which wakes this thread.
        let timer = self.state.withLock { $0.machine.nextTimer } ?? .now
        return self.state.wait(until: timer) { Self.event(&$0) }
    }

    private static func event(_ state: inout State) -> Event? {
        if state.isCancelled {
            return .cancelled
        }
        if !state.answers.isEmpty {
            defer { state.answers = [] }
            return .answers(state.answers)
        }
        return state.machine.isComplete ? .complete : nil
    }

    private func judge(_ answer: Answer) {
        guard let attempt = self.state.withLock({ $0.out.removeValue(forKey: answer.attempt) }) else {
            return
        }
        self.note(attempt, answer.attempt, isGivenUp: false)
        let call = self.calls[answer.attempt.call]
        switch answer.result {
        case .success(let reply):
            do throws(BadReply) {
                let (chunks, load) = try call.read(reply.message)
                self.state.withLock { $0.outputs.chunks.append(contentsOf: chunks) }
                self.step { machine, pools, _ in
                    machine.answered(answer.attempt, pools: &pools, now: answer.time)
                }
                let time = attempt.started.duration(to: answer.time)
                self.cluster.answered(attempt.replica, time: time, load: load)
                self.log(attempt, "an expert host answered", ["time": "\(time)"])
            } catch {
                self.fail(answer, attempt, .badReply, detail: error.description)
            }
        case .failure(let error):
            self.fail(
                answer,
                attempt,
                CallFailure(error.code),
                pushback: error.retryPushback,
                detail: error.description
            )
        }
    }

    private func fail(
        _ answer: Answer,
        _ attempt: Attempt,
        _ failure: CallFailure,
        pushback: Duration? = nil,
        detail: String
    ) {
        self.cluster.failed(attempt.replica, failure)
        self.log(
            attempt,
            "a call to an expert host failed",
            ["failure": "\(failure)", "detail": "\(detail)"],
            isFollowed: false
        )
        self.step { machine, pools, now in
            machine.failed(answer.attempt, failure, pushback: pushback, pools: &pools, now: now)
        }
    }

    /// Tells people what became of an attempt, with its trace; `isFollowed` where it concerns only those who follow one.
    private func log(
        _ attempt: Attempt,
        _ message: Logger.Message,
        _ details: @autoclosure () -> Logger.Metadata,
        isFollowed: Bool = true
    ) {
        guard attempt.span != nil || !isFollowed, self.cluster.logger.logLevel <= .debug else { return }
        var metadata = details()
        metadata["replica"] = "\(attempt.replica)"
        metadata["layer"] = "\(self.layer.words)"
        if let trace = self.trace, let span = attempt.span {
            metadata.merge(trace.logMetadata(of: span)) { _, new in new }
        }
        self.cluster.logger.debug(message, metadata: metadata)
    }

    /// Rows that were out are out no longer.
    private func note(_ attempt: Attempt?, _ id: AttemptID, isGivenUp: Bool) {
        guard let attempt else { return }
        var outcome: AttemptOutcome?
        if isGivenUp {
            let deadline = self.state.withLock { $0.machine.deadline }
            outcome = deadline <= .now ? .deadline : .givenUp
        }
        self.cluster.ended(attempt.replica, rows: self.calls[id.call].assignment.rowCount, outcome: outcome)
    }

    private func abandon() {
        self.step { machine, pools, _ in machine.abandoned(pools: &pools) }
        self.state.withLock { $0.answers = [] }
    }
}

extension RPCError {
    /// How long the host wants no calls, if it says so; a host that asks for more than a minute is not heeded.
    var retryPushback: Duration? {
        guard case .wait(let time) = RetryPushback(self.metadata), time <= .seconds(60) else { return nil }
        return time
    }
}

extension DropReason {
    /// The model's word for why the pools gave rows up.
    init(_ cause: DropCause) {
        switch cause {
        case .timeout: self = .timeout
        case .unavailable: self = .unavailable
        case .overloaded: self = .overloaded
        case .badReply: self = .badReply
        }
    }
}
