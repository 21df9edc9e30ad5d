// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import ExpertPooling
internal import Logging
internal import NIOCore
internal import RPCCore
internal import RPCTransport
internal import ServiceKit
internal import SwitchModel
internal import SwitchyardProtos
internal import SwitchyardTypes
internal import Telemetry

/// One sparse layer's calls in flight: the runner of the ``LayerCalls`` machine.
///
/// Event loops only record answers, and wake the engine's thread with the last one of a layer; that thread judges them, hedges,
/// tries other replicas and gives up at the layer's deadline. Where it drives the sockets (``ExpertCluster/socketsToDrive``), it
/// sends the calls and reads their answers itself. Every transition of the machine is one ``step(_:)``, which changes state and
/// collects work under the locks, and does that work after unlocking.
final class PendingLayer: PendingExperts, Sendable {
    /// An attempt at one replica.
    struct Attempt: Sendable {
        let id: AttemptID
        let replica: ReplicaID
        let started: ContinuousClock.Instant
        /// The attempt's span; nil if it is not traced.
        let span: TraceContext?
        var handle: CallHandle?
    }

    struct Answer: Sendable {
        let attempt: AttemptID
        let result: Result<UnaryReply, RPCError>
        let time: ContinuousClock.Instant
    }

    /// The verdict on an answer.
    enum Verdict {
        case good(LayerReply)
        case bad(CallFailure, pushback: Duration?, detail: String)
    }

    struct State: Sendable {
        var machine: LayerCalls
        var out = ShortList<Attempt>()
        var answers = ShortList<Answer>()
        var isCancelled = false
        var outputs = ExpertOutputs(chunks: [])
        /// The good rows of calls whose answers lack some, by call.
        var parts: [Int: PartialOutputs] = [:]
        /// The answers to audited calls, by call.
        var opinions: [Int: CallOpinions] = [:]
        /// What the gateway computed itself and has not been compared yet.
        var recomputed: [(call: Int, tensor: ByteBuffer?)] = []
        /// The rows that were taken in this step as they came, by call, for those who must prove that they give the same.
        var taken: [Int: ByteBuffer] = [:]

        /// Whether each call that is out has an answer: until then the waiting thread would find nothing to do but judge.
        var isAnswered: Bool {
            self.out.allSatisfy { attempt in self.answers.contains { $0.attempt.call == attempt.id.call } }
        }

        /// Where an attempt is among those that are out; nil if it is not.
        func index(of attempt: AttemptID) -> Int? { self.out.firstIndex { $0.id == attempt } }

        /// Removes an attempt from those that are out.
        mutating func takeOut(_ attempt: AttemptID) -> Attempt? {
            self.index(of: attempt).map { self.out.remove(at: $0) }
        }

        /// Lets go of a layer that is over; its lists keep their memory.
        mutating func clear() {
            self.out.removeAll()
            self.answers.removeAll()
            self.isCancelled = false
            self.outputs.chunks.removeAll(keepingCapacity: true)
            self.outputs.dropped = []
            self.parts = [:]
            self.opinions = [:]
            self.recomputed = []
            self.taken = [:]
        }
    }

    /// The work that a step requests, done once the locks are released.
    struct Work {
        var sends = ShortList<Send>()
        var cancelled: [CallHandle] = []
        var pooled: [PoolAction] = []
        /// Calls to compute here.
        var recomputes: [Int] = []
        /// What caught replicas must answer: later, or now.
        var evidence: [(replica: ReplicaID, proof: Proof)] = []
        var proofs: [(replica: ReplicaID, proof: Proof)] = []
        /// The layer's outputs, if no call is left.
        var outputs: ExpertOutputs?
    }

    /// A call to make.
    struct Send {
        let attempt: AttemptID
        let channel: RPCChannel?
        let span: TraceContext?
    }

    private enum Event {
        case answers(ShortList<Answer>)
        case recomputed([(call: Int, tensor: ByteBuffer?)])
        case complete(ExpertOutputs)
        case cancelled
        case timer
    }

    let cluster: ExpertCluster
    let layer: SparseLayer
    let calls: [LayerCall]
    /// The sockets' event loop, where this layer's thread drives it; nil if it waits for other threads that read the answers.
    private let sockets: DrivenEventLoop?
    private let deadline: ContinuousClock.Instant
    let trace: StepTrace?
    let state: Monitor<State>

    /// Sends a layer's calls.
    ///
    /// - Parameters:
    ///   - cluster: The expert hosts.
    ///   - layer: The layer.
    ///   - assignments: The rows of each call.
    ///   - calls: The calls, in the same order.
    ///   - unplaced: Rows whose experts no pool holds, which are dropped.
    ///   - deadline: When the layer stops waiting.
    ///   - trace: The trace of the calls, if there is one.
    init(
        sendingTo cluster: ExpertCluster,
        layer: SparseLayer,
        assignments: [PoolAssignment],
        calls: [LayerCall],
        unplaced: [Range<Int>],
        deadline: ContinuousClock.Instant,
        trace: StepTrace? = nil
    ) {
        self.cluster = cluster
        self.layer = layer
        self.calls = calls
        self.sockets = cluster.socketsToDrive
        self.deadline = deadline
        self.trace = trace
        let policy = cluster.configuration.choice.policy(of: layer)
        let recomputes = cluster.ownExperts?.policy(assignments, in: layer) ?? .never
        self.state =
            cluster.layerStates.take()
            ?? Monitor(
                State(machine: LayerCalls(layer: layer, deadline: deadline, policy: policy, recomputes: recomputes)),
                spin: cluster.spin,
                onChange: cluster.wakeDriver
            )
        let work = self.state.withLock { state in
            state.machine.restart(layer: layer, deadline: deadline, policy: policy, recomputes: recomputes)
            state.outputs.chunks.reserveCapacity(calls.count)
            state.outputs.dropped = unplaced.map { .init(rows: $0, reason: .unavailable) }
            let step = cluster.step { cluster, now in
                state.machine.begin(assignments, pools: &cluster.pools, now: now)
            }
            return Self.apply(step, to: &state, calls: calls, trace: trace)
        }
        self.perform(work)
    }

    /// Gives the state to a layer to come: nothing refers to this one any more, neither a thread that waits nor a call whose answer
    /// is late.
    deinit { self.cluster.layerStates.keep(self.state) }

    // MARK: - Steps

    /// One step of the machine under both locks, then the work that it requests.
    ///
    /// - Returns: The layer's outputs, if no call is left.
    @discardableResult
    func step(
        _ body: (inout State, inout ExpertCluster.State, ContinuousClock.Instant) -> [LayerAction]
    ) -> ExpertOutputs? {
        let work = self.state.withLock { state in
            let step = self.cluster.step { cluster, now in body(&state, &cluster, now) }
            return Self.apply(step, to: &state, calls: self.calls, trace: self.trace)
        }
        self.perform(work)
        return work.outputs
    }

    /// Records the actions of a machine step in the layer's state.
    private static func apply(
        _ step: ExpertCluster.LayerStep,
        to state: inout State,
        calls: [LayerCall],
        trace: StepTrace?
    ) -> Work {
        var work = Work()
        var sent = 0
        for action in step.actions {
            switch action {
            case .send(let attempt, to: let replica):
                let span = trace?.carried.child()
                state.out.append(Attempt(id: attempt, replica: replica, started: step.time, span: span))
                let channel = step.channels[sent]
                sent += 1
                // A cancelled layer sends nothing more; the attempt ends when it is abandoned.
                if !state.isCancelled { work.sends.append(Send(attempt: attempt, channel: channel, span: span)) }
            case .cancel(let attempt):
                if let handle = state.takeOut(attempt)?.handle { work.cancelled.append(handle) }
            case .drop(let call, let cause):
                let reason = DropReason(cause)
                if let part = state.parts.removeValue(forKey: call) {
                    state.outputs.chunks += part.chunks
                    state.outputs.dropped += part.missing.sorted().map { .init(rows: $0..<$0 + 1, reason: reason) }
                    continue
                }
                for group in calls[call].assignment.groups {
                    state.outputs.dropped.append(.init(rows: group.rows, reason: reason))
                }
            case .pool(let action):
                work.pooled.append(action)
            case .recompute, .accept, .caught, .dispute, .prove:
                Self.applyAudit(action, to: &state, calls: calls, work: &work)
            }
        }
        state.taken = [:]
        if state.machine.isComplete, !state.isCancelled { work.outputs = state.outputs }
        return work
    }

    private func perform(_ work: Work) {
        for handle in work.cancelled { handle.cancel() }
        if !work.sends.isEmpty { self.send(work.sends) }
        for (replica, proof) in work.evidence { self.cluster.keep(proof, of: replica) }
        if !work.pooled.isEmpty { self.cluster.follow(work.pooled) }
        for (replica, proof) in work.proofs { self.cluster.prove(proof, by: replica) }
        for call in work.recomputes { self.recompute(call) }
    }

    private func send(_ sends: ShortList<Send>) {
        self.cluster.configuration.channel.stages?.mark(.called)
        let handles =
            if let sockets = self.sockets {
                sockets.perform { self.handles(of: sends) }
            } else {
                self.handles(of: sends)
            }
        // The answer may already be here; then the handle is not needed.
        let isCancelled = self.state.withLock { state in
            for (attempt, handle) in handles {
                if let index = state.index(of: attempt) { state.out[index].handle = handle }
            }
            return state.isCancelled
        }
        if isCancelled {
            for (_, handle) in handles { handle.cancel() }
        }
    }

    /// Makes calls.
    private func handles(
        of sends: ShortList<Send>
    ) -> ShortList<(attempt: AttemptID, handle: CallHandle)> {
        var handles = ShortList<(attempt: AttemptID, handle: CallHandle)>()
        for send in sends {
            let attempt = send.attempt
            guard let channel = send.channel else {
                self.record(.failure(RPCError(.unavailable, "the replica has left its pool")), attempt)
                continue
            }
            var options = CallOptions(deadline: self.deadline)
            // Without metadata the connection can reuse a stored header block.
            if let span = send.span { options.metadata = Metadata(carrying: span) }
            let call = self.calls[attempt.call]
            // Both are printable ASCII, so they are legal metadata.
            if call.isTraining { try? options.metadata.add(CallWork.training, forKey: CallWork.key) }
            let handle = channel.unary(call.method, call.payload, options: options) { result in
                self.record(result, attempt)
            }
            handles.append((attempt, handle))
        }
        return handles
    }

    /// Called on an event loop.
    private func record(_ result: Result<UnaryReply, RPCError>, _ attempt: AttemptID) {
        self.cluster.configuration.channel.stages?.mark(.recorded)
        let now = ContinuousClock.now
        self.state.wake(if: { state in
            // Ignore the answer to an abandoned attempt.
            guard state.index(of: attempt) != nil else { return false }
            state.answers.append(Answer(attempt: attempt, result: result, time: now))
            if case .failure = result { return true }
            return state.isAnswered
        })
    }

    // MARK: - Waiting

    func wait() throws -> ExpertOutputs {
        while true {
            var outputs: ExpertOutputs?
            switch self.nextEvent() {
            case .answers(let answers):
                self.cluster.configuration.channel.stages?.mark(.woken)
                outputs = self.judge(answers)
            case .recomputed(let rows):
                outputs = self.judge(rows)
            case .complete(let all):
                outputs = all
            case .cancelled:
                self.abandon()
                throw StepInterrupted(
                    layer: self.layer,
                    reason: .unavailable,
                    sequences: [],
                    message: "no client waits for the step any more"
                )
            case .timer:
                outputs = self.step { layer, cluster, now in
                    layer.machine.timerFired(pools: &cluster.pools, now: now)
                }
            }
            if let outputs { return outputs }
        }
    }

    /// Judges the answers so far and sends what is due, without waiting.
    ///
    /// A thread that computes something else between two polls sends hedges and retries that much later.
    var isReady: Bool {
        while true {
            switch self.state.withLock({ Self.event(&$0, now: .now) }) {
            case .answers(let answers):
                self.judge(answers)
            case .recomputed(let rows):
                self.judge(rows)
            case .complete, .cancelled:
                return true
            case .timer:
                self.step { layer, cluster, now in layer.machine.timerFired(pools: &cluster.pools, now: now) }
            case nil:
                return false
            }
        }
    }

    func cancel() {
        self.state.notify { $0.isCancelled = true }
        // Done here and not by the waiting thread, since there may be none.
        self.abandon()
    }

    private func nextEvent() -> Event {
        if let event = self.sockets?.drive({ self.nextEvent(driving: $0) }) { return event }
        // Only this thread moves the machine, except for its end, which wakes this thread.
        return self.state.wait(until: { $0.machine.nextTimer ?? .now }, for: { Self.event(&$0) }) ?? .timer
    }

    /// Waits with the sockets in this thread's hands, so that it reads the answers that it waits for.
    private func nextEvent(driving turns: DrivenTurns) -> Event {
        var maySpin = true
        while true {
            let (event, timer) = self.state.withLock { (Self.event(&$0), $0.machine.nextTimer ?? .now) }
            if let event { return event }
            guard timer > .now else { return .timer }
            // What came may not be all that is waited for; after a sleep, looking would be too late.
            if maySpin, self.cluster.spin.run(until: timer, looksOnce: false, { turns.poll() }) { continue }
            maySpin = false
            turns.wait(until: timer)
        }
    }

    /// What the waiting thread does next; timers count only if the time is given.
    private static func event(_ state: inout State, now: ContinuousClock.Instant? = nil) -> Event? {
        if state.isCancelled { return .cancelled }
        if !state.answers.isEmpty {
            defer { state.answers.removeAll() }
            return .answers(state.answers)
        }
        if !state.recomputed.isEmpty {
            defer { state.recomputed = [] }
            return .recomputed(state.recomputed)
        }
        if state.machine.isComplete { return .complete(state.outputs) }
        guard let now, let timer = state.machine.nextTimer else { return nil }
        return timer <= now ? .timer : nil
    }

    private func abandon() {
        self.step { layer, cluster, now in
            layer.answers.removeAll()
            layer.recomputed = []
            return layer.machine.abandoned(pools: &cluster.pools, now: now)
        }
    }
}
