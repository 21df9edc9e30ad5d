// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import ExpertPooling
internal import RPCCore
internal import RPCTransport
internal import ServiceKit
internal import SwitchModel

/// One sparse layer's calls that are out.
///
/// Event loops only record answers; the engine's thread, which waits, judges them, tries other replicas and gives up at
/// the layer's deadline.
final class PendingLayer: PendingExperts, Sendable {
    /// A call at one replica.
    private struct Attempt: Sendable {
        let call: LayerCall
        /// The call as the pools know it.
        let pooled: PoolCall
        let replica: ReplicaID
        let started: ContinuousClock.Instant
        var handle: CallHandle?
    }

    private struct Answer: Sendable {
        let attempt: Attempt
        let result: Result<UnaryReply, RPCError>
        let time: ContinuousClock.Instant
    }

    private struct State: Sendable {
        var nextKey = 0
        var out: [Int: Attempt] = [:]
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
    private let deadline: ContinuousClock.Instant
    private let state = Monitor(State())

    init(cluster: ExpertCluster, layer: SparseLayer, deadline: ContinuousClock.Instant) {
        self.cluster = cluster
        self.layer = layer
        self.deadline = deadline
    }

    // MARK: - Calls out

    /// Sends a call to a replica of its pool, or drops its rows where there is none.
    ///
    /// - Parameter call: The call.
    func send(_ call: LayerCall) {
        var pooled = PoolCall(pool: call.assignment.pool, deadline: self.deadline)
        let decision = self.cluster.start(&pooled, rows: call.assignment.rowCount)
        self.follow(decision, call, pooled)
    }

    private func follow(_ decision: CallDecision, _ call: LayerCall, _ pooled: PoolCall) {
        switch decision {
        case .drop(let cause):
            self.drop(rows: call.assignment.groups.map(\.rows), reason: DropReason(cause))
        case .send(to: let replica):
            self.attempt(call, pooled, on: replica)
        }
    }

    private func attempt(_ call: LayerCall, _ pooled: PoolCall, on replica: ReplicaID) {
        let attempt = Attempt(call: call, pooled: pooled, replica: replica, started: .now)
        let key = self.state.withLock { state in
            state.nextKey += 1
            state.out[state.nextKey] = attempt
            return state.nextKey
        }
        guard let channel = self.cluster.channel(to: replica) else {
            self.record(.failure(RPCError(.unavailable, "the replica is no longer named")), key: key)
            return
        }
        let handle = channel.unary(
            .forward,
            call.payload,
            options: CallOptions(deadline: self.deadline)
        ) { result in
            self.record(result, key: key)
        }
        // The answer may have come already; then nobody needs the handle.
        let isCancelled = self.state.withLock { state in
            state.out[key]?.handle = handle
            return state.isCancelled
        }
        if isCancelled {
            handle.cancel()
        }
    }

    /// Counts rows as dropped that no call carries.
    func drop(rows: [Range<Int>], reason: DropReason) {
        self.state.withLock { state in
            state.outputs.dropped.append(contentsOf: rows.map { .init(rows: $0, reason: reason) })
        }
    }

    /// Called on an event loop.
    private func record(_ result: Result<UnaryReply, RPCError>, key: Int) {
        let now = ContinuousClock.now
        self.state.notify { state in
            // A call that was given up is no longer out, and its answer no longer wanted.
            if let attempt = state.out.removeValue(forKey: key) {
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
                self.giveUpCancelled()
                throw StepInterrupted(
                    layer: self.layer,
                    reason: .unavailable,
                    sequences: [],
                    message: "nobody waits for the step any more"
                )
            case nil:
                self.giveUpLate()
            }
        }
    }

    func cancel() {
        self.state.notify { $0.isCancelled = true }
        // Not left to the thread that waits, since there may be none.
        self.giveUpCancelled()
    }

    private func nextEvent() -> Event? {
        self.state.wait(until: self.deadline) { state in
            if state.isCancelled {
                return .cancelled
            }
            if !state.answers.isEmpty {
                defer { state.answers = [] }
                return .answers(state.answers)
            }
            return state.out.isEmpty ? .complete : nil
        }
    }

    private func judge(_ answer: Answer) {
        let attempt = answer.attempt
        switch answer.result {
        case .success(let reply):
            do throws(BadReply) {
                let (chunks, load) = try attempt.call.read(reply.message)
                self.state.withLock { $0.outputs.chunks.append(contentsOf: chunks) }
                self.cluster.callSucceeded(
                    attempt.replica,
                    rows: attempt.call.assignment.rowCount,
                    time: attempt.started.duration(to: answer.time),
                    load: load
                )
            } catch {
                self.fail(attempt, .badReply, detail: error.description)
            }
        case .failure(let error):
            self.fail(attempt, CallFailure(error.code), detail: error.description)
        }
    }

    private func fail(_ attempt: Attempt, _ failure: CallFailure, detail: String) {
        var pooled = attempt.pooled
        let decision = self.cluster.attemptFailed(
            of: &pooled,
            on: attempt.replica,
            failure,
            rows: attempt.call.assignment.rowCount,
            layer: self.layer,
            detail: detail
        )
        self.follow(decision, attempt.call, pooled)
    }

    // MARK: - Giving up

    private func giveUpLate() {
        for attempt in self.takeOut() {
            attempt.handle?.cancel()
            self.fail(attempt, .deadline, detail: "no answer within \(attempt.started.duration(to: self.deadline))")
        }
    }

    private func giveUpCancelled() {
        for attempt in self.takeOut() {
            attempt.handle?.cancel()
            self.cluster.callCancelled(attempt.replica, rows: attempt.call.assignment.rowCount)
        }
        // Answers that came together with the cancellation still end their calls.
        let answers = self.state.withLock { state in
            defer { state.answers = [] }
            return state.answers
        }
        for answer in answers {
            self.cluster.callCancelled(answer.attempt.replica, rows: answer.attempt.call.assignment.rowCount)
        }
    }

    private func takeOut() -> [Attempt] {
        self.state.withLock { state in
            defer { state.out = [:] }
            return Array(state.out.values)
        }
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
