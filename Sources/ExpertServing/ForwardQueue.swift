// SPDX-License-Identifier: Apache-2.0

internal import BatchScheduling
internal import Checkpoints
internal import NIOCore
internal import RPCCore
internal import RPCTransport
internal import ServiceKit
internal import SwitchModel
internal import SwitchyardProtos
internal import SwitchyardTypes
internal import Telemetry

/// The work of one `Forward` or `Backward` call: what to compute, from which bytes, and who waits for the answer.
struct ForwardJob: Sendable {
    let work: ForwardCheck.Work
    /// The checkpoint that it names.
    let model: HostModel
    let kind: HostAdmission.Kind
    /// The received message; the tensor's bytes are used in place.
    let message: ByteBuffer
    /// Where the tensor's bytes lie, counted from the message's reader index.
    let tensor: Range<Int>
    let arrival: ContinuousClock.Instant
    let responder: UnaryResponder
    /// The call's span; nil if it is not traced.
    let trace: TraceContext?
}

/// The bounded queue between the event loops and the compute thread.
///
/// It runs the ``HostAdmission`` machine: event loops push and cancel, and may take the small call that they brought; the compute
/// thread takes everything else.
final class ForwardQueue: Sendable {
    private struct State {
        var admission: HostAdmission
        var jobs: [HostAdmission.CallID: ForwardJob] = [:]
    }

    /// What the compute thread does next.
    enum Task: Sendable {
        /// Compute these calls of one layer and one kind together.
        case compute([ForwardJob])
        case leave
    }

    /// The result of polling the queue.
    private struct Found {
        var expired: [ForwardJob]
        var task: Task?
        /// When to poll again if nothing arrives earlier.
        var until: ContinuousClock.Instant?
    }

    private let state: Monitor<State>
    private let metrics: ExpertHostMetrics

    init(limits: HostAdmission.Limits, batching: HostAdmission.Batching, metrics: ExpertHostMetrics) {
        self.state = Monitor(State(admission: HostAdmission(limits: limits, batching: batching)))
        self.metrics = metrics
    }

    /// How busy the host is; per-call fields are zero.
    var load: HostLoad { self.state.withLock { HostLoad($0.admission) } }

    /// The work that waits to be computed.
    var waiting: (calls: Int, rows: Int) {
        self.state.withLock { ($0.admission.waitingCalls, $0.admission.waitingRows) }
    }

    /// Queues a call.
    ///
    /// - Parameters:
    ///   - job: The call.
    ///   - source: The connection that it arrived on.
    ///   - deadline: When the caller stops waiting.
    ///   - wakes: Whether the compute thread is woken; if not, ``takeAtOnce()`` follows.
    /// - Returns: The call's name, for ``cancel(_:)``.
    /// - Throws: ``RPCError`` to answer the caller with.
    func push(
        _ job: ForwardJob,
        source: String,
        deadline: ContinuousClock.Instant?,
        wakes: Bool = true
    ) throws(RPCError) -> HostAdmission.CallID {
        let call = HostAdmission.Call(
            source: source,
            layer: job.work.layer,
            rows: job.work.rows,
            experts: job.work.groups.count,
            deadline: deadline,
            kind: job.kind,
            checkpoint: job.model.fingerprint
        )
        let outcome = self.state.withLock { state in
            let outcome = state.admission.arrived(call, now: job.arrival)
            if case .queue(let id) = outcome {
                state.jobs[id] = job
            }
            return outcome
        }
        if wakes { self.state.wake { _ in true } }
        switch outcome {
        case .queue(let id):
            return id
        case .refuse(let refusal, let retryAfter):
            self.metrics.count(.refused, job.kind)
            throw RPCError(refusal, rows: call.rows, retryAfter: retryAfter)
        case .refuseDraining:
            self.metrics.count(.refused, job.kind)
            throw RPCError(.unavailable, "this host is draining; use another replica")
        case .refuseExpired:
            self.metrics.count(.expired, job.kind)
            throw RPCError(.deadlineExceeded, "the call's deadline had passed when it arrived")
        }
    }

    /// Discards a waiting call's work; its caller has left.
    func cancel(_ id: HostAdmission.CallID) {
        // Released outside the lock.
        let job = self.state.withLock { state in
            state.admission.cancelled(id, now: .now) ? state.jobs.removeValue(forKey: id) : nil
        }
        if let job {
            self.metrics.count(.cancelled, job.kind)
        }
    }

    /// Blocks the compute thread until there is something to do, and answers calls that expired meanwhile.
    func next() -> Task {
        var until: ContinuousClock.Instant?
        while true {
            let found = self.state.wait(until: until) { state in Self.look(&state, waitingUntil: until) }
            until = found?.until
            self.answer(expired: found?.expired ?? [])
            if let task = found?.task {
                return task
            }
        }
    }

    /// Takes the call that was just queued, to compute it on the thread that received it.
    ///
    /// - Returns: The call, which is a pass by itself; nil if the compute thread, which is woken, has to see to what waits.
    func takeAtOnce() -> ForwardJob? {
        var job: ForwardJob?
        self.state.wake { state in
            if let id = state.admission.nextAtOnce(now: .now)?.calls.first { job = state.jobs.removeValue(forKey: id) }
            return job == nil && state.admission.waitingCalls > 0
        }
        return job
    }

    /// Takes served calls to compute in a pause of a pass for a trainer.
    ///
    /// - Parameter count: Passes that were computed in this pause.
    /// - Returns: Calls to compute together; nil to go on with training.
    func nextBeside(_ count: Int) -> [ForwardJob]? {
        let (expired, jobs) = self.state.withLock { state -> ([ForwardJob], [ForwardJob]?) in
            let next = state.admission.nextBeside(count, now: .now)
            let expired = next.expired.compactMap { state.jobs.removeValue(forKey: $0) }
            return (expired, next.pass.map { $0.calls.compactMap { state.jobs.removeValue(forKey: $0) } })
        }
        self.answer(expired: expired)
        return jobs
    }

    /// Whether served calls came a short time ago.
    var isServing: Bool { self.state.withLock { $0.admission.isServing(now: .now) } }

    private func answer(expired: [ForwardJob]) {
        for job in expired {
            self.metrics.count(.expired, job.kind)
            job.responder.finish(
                .failure(RPCError(.deadlineExceeded, "the call's deadline passed while it waited in the queue"))
            )
        }
    }

    /// Asks the machine what to do; nil if the thread is already doing it.
    private static func look(_ state: inout State, waitingUntil: ContinuousClock.Instant?) -> Found? {
        // Another thread computes a call that it received, and wakes this one if more has come.
        guard !state.admission.isComputing else { return nil }
        let next = state.admission.next(now: .now)
        let expired = next.expired.compactMap { state.jobs.removeValue(forKey: $0) }
        switch next.step {
        case .compute(let pass):
            return Found(expired: expired, task: .compute(pass.calls.compactMap { state.jobs.removeValue(forKey: $0) }))
        case .leave:
            return Found(expired: expired, task: .leave)
        case .wait(let until):
            return expired.isEmpty && until == waitingUntil ? nil : Found(expired: expired, until: until)
        }
    }

    /// Reports that a thread finished the pass that it took last.
    ///
    /// - Parameters:
    ///   - expertReads: Experts whose weights were read.
    ///   - atOnce: Whether it was a pass of ``takeAtOnce()``.
    /// - Returns: How busy the host is now.
    func finished(expertReads: Int, atOnce: Bool) -> HostLoad {
        guard atOnce else {
            return self.state.withLock { state in
                state.admission.finished(expertReads: expertReads, now: .now)
                return HostLoad(state.admission)
            }
        }
        var load = HostLoad()
        self.state.wake { state in
            let hasMore = state.admission.finishedAtOnce(expertReads: expertReads, now: .now)
            load = HostLoad(state.admission)
            return hasMore
        }
        return load
    }

    /// Announces in every answer from now on that the host is leaving; calls that still arrive are computed.
    func beginLeaving() {
        self.state.notify { $0.admission.beginLeaving() }
    }

    /// Refuses new calls; the compute thread ends when the current ones are answered.
    func beginDraining() {
        self.state.notify { $0.admission.beginDraining() }
    }
}

extension HostLoad {
    /// How busy a host is; per-call fields are zero.
    fileprivate init(_ admission: HostAdmission) {
        self.init()
        self.activeCalls = UInt32(clamping: admission.waitingCalls + admission.computingCalls)
        self.queuedRows = UInt64(admission.waitingRows)
        self.queueRowLimit = UInt64(admission.limits.rows)
        self.draining = admission.isLeaving
        self.passes = admission.totals.passes
        self.computedCalls = admission.totals.calls
        self.computedRows = admission.totals.rows
        self.namedExperts = admission.totals.namedExperts
        self.expertReads = admission.totals.expertReads
    }
}

extension RPCError {
    /// The status of a call refused for lack of room.
    fileprivate init(_ refusal: HostAdmission.Refusal, rows: Int, retryAfter: Duration) {
        switch refusal {
        case .calls(let limit):
            self.init(
                .resourceExhausted,
                "\(limit) calls are already waiting, this host's limit; try another replica, or add hosts"
            )
        case .rows(let waiting, let limit):
            self.init(
                .resourceExhausted,
                "\(waiting) token rows are waiting and \(rows) more would exceed this host's limit of \(limit); "
                    + "try another replica, or add hosts"
            )
        case .share(let calls, let rows):
            self.init(
                .resourceExhausted,
                "this connection already has \(calls) calls with \(rows) token rows waiting, more than the queue has "
                    + "left, and other connections call too; try another replica, or add hosts"
            )
        }
        self.askToRetry(after: retryAfter)
    }
}
