// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import NIOCore
internal import RPCCore
internal import RPCTransport
internal import ServiceKit
internal import SwitchModel
internal import SwitchyardProtos

/// The work of one `Forward` call: what to compute, from which bytes, and who waits for the answer.
struct ForwardJob: Sendable {
    let work: ForwardCheck.Work
    /// The received message; the tensor's bytes are used where they lie.
    let message: ByteBuffer
    /// Where the tensor's bytes lie, counted from the message's reader index.
    let tensor: Range<Int>
    let arrival: ContinuousClock.Instant
    let responder: UnaryResponder
}

/// The bounded queue between the event loops and the compute thread.
///
/// It runs the ``HostAdmission`` machine: event loops push and cancel, the compute thread takes.
final class ForwardQueue: Sendable {
    private struct State {
        var admission: HostAdmission
        var jobs: [HostAdmission.CallID: ForwardJob] = [:]
    }

    /// What the compute thread has to do.
    enum Task: Sendable {
        case compute(HostAdmission.CallID, ForwardJob)
        case leave
    }

    private let state: Monitor<State>

    init(limits: HostAdmission.Limits) {
        self.state = Monitor(State(admission: HostAdmission(limits: limits)))
    }

    /// How busy the host is; the times of a call are zero.
    var load: HostLoad {
        self.state.withLock { state in
            var load = HostLoad()
            load.activeCalls = UInt32(clamping: state.admission.waitingCalls + (state.admission.isBusy ? 1 : 0))
            load.queuedRows = UInt64(state.admission.waitingRows)
            load.queueRowLimit = UInt64(state.admission.limits.rows)
            load.draining = state.admission.isDraining
            return load
        }
    }

    /// Whether new calls are refused because the host is leaving.
    var isDraining: Bool { self.state.withLock { $0.admission.isDraining } }

    /// Queues a call.
    ///
    /// - Parameters:
    ///   - job: The call.
    ///   - deadline: When the caller stops waiting.
    /// - Returns: The call's name, for ``cancel(_:)``.
    /// - Throws: ``RPCError`` that the caller is to be answered with.
    func push(
        _ job: ForwardJob,
        deadline: ContinuousClock.Instant?
    ) throws(RPCError) -> HostAdmission.CallID {
        let outcome = self.state.notify { state in
            let outcome = state.admission.arrived(rows: job.work.rows, deadline: deadline, now: job.arrival)
            if case .queue(let id) = outcome {
                state.jobs[id] = job
            }
            return outcome
        }
        switch outcome {
        case .queue(let id):
            return id
        case .refuseCalls(let limit):
            throw RPCError(
                .resourceExhausted,
                "\(limit) calls wait already, which is this host's limit; try another replica, or add hosts"
            )
        case .refuseRows(let waiting, let limit):
            throw RPCError(
                .resourceExhausted,
                "\(waiting) token rows wait and \(job.work.rows) more would exceed this host's limit of \(limit); "
                    + "try another replica, or add hosts"
            )
        case .refuseDraining:
            throw RPCError(.unavailable, "this host is draining; use another replica")
        case .refuseExpired:
            throw RPCError(.deadlineExceeded, "the call's deadline had passed when it arrived")
        }
    }

    /// Throws a waiting call's work away; its caller has left.
    func cancel(_ id: HostAdmission.CallID) {
        self.state.withLock { state in
            if state.admission.cancelled(id) {
                state.jobs[id] = nil
            }
        }
    }

    /// Blocks the compute thread until there is something to do, and answers calls that expired meanwhile.
    func next() -> Task {
        while true {
            let (expired, task) = self.waitForTask()
            for job in expired {
                job.responder.finish(
                    .failure(RPCError(.deadlineExceeded, "the call's deadline passed while it waited in the queue"))
                )
            }
            if let task {
                return task
            }
        }
    }

    private func waitForTask() -> (expired: [ForwardJob], task: Task?) {
        let found = self.state.wait { state -> (expired: [ForwardJob], task: Task?)? in
            let next = state.admission.next(now: .now)
            let expired = next.expired.compactMap { state.jobs.removeValue(forKey: $0) }
            switch next.step {
            case .compute(let id):
                guard let job = state.jobs.removeValue(forKey: id) else {
                    state.admission.finished(id)
                    return (expired, nil)
                }
                return (expired, .compute(id, job))
            case .leave:
                return (expired, .leave)
            case .wait:
                return expired.isEmpty ? nil : (expired, nil)
            }
        }
        return found ?? ([], nil)
    }

    /// The compute thread is done with a call.
    func finished(_ id: HostAdmission.CallID) {
        self.state.withLock { $0.admission.finished(id) }
    }

    /// Refuses new calls; the compute thread leaves when those present are answered.
    func beginDraining() {
        self.state.notify { $0.admission.beginDraining() }
    }
}
