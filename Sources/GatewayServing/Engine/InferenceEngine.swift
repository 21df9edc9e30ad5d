// SPDX-License-Identifier: Apache-2.0

public import BatchScheduling
internal import Checkpoints
public import Logging
public import Metrics
public import RPCCore
internal import ServiceKit
public import SwitchModel
internal import SwitchyardTypes
internal import TensorKernels
public import Tokenization

/// Runs requests through the model: continuous batching on one thread of its own.
///
/// Requests come from tasks and event loops through ``submit(_:)`` and get their events back as a stream. The thread
/// does one step after the other: it admits and encodes requests that wait, decodes one token for each row that runs,
/// and lets those go that are done. Only the queue is shared; everything else belongs to the thread.
public final class InferenceEngine: Sendable {
    /// What the engine's thread does next.
    struct Turn {
        /// Requests that join, in the order of their admission.
        var joined: [Arrival] = []
        /// All requests that run, those that join included.
        var running: [SequenceID] = []
        /// Requests whose deadline passed before they ran.
        var expiredArrivals: [Arrival] = []
        /// Requests whose deadline passed while they ran.
        var expired: [SequenceID] = []
        /// Requests whose clients left while they ran.
        var gone: [SequenceID] = []
    }

    enum Phase {
        /// Takes requests. Can transition to `draining` and `stopped`.
        case open
        /// Takes no requests and finishes those it has. Can transition to `stopped`.
        case draining
        /// Takes no requests and has none. Final.
        case stopped
    }

    struct Shared {
        var phase = Phase.open
        var scheduler: BatchScheduler
        var nextID: UInt64 = 1
        /// Requests that the scheduler has queued.
        var waiting: [SequenceID: Arrival] = [:]
        /// Running requests whose clients left since the last step.
        var gone: [SequenceID] = []
        var totals = EngineTotals()
    }

    let model: SwitchTransformer
    let tokenizer: Tokenizer
    let configuration: EngineConfiguration
    let logger: Logger
    let metrics: GatewayMetrics
    let watch: StepWatch
    let shared: Monitor<Shared>

    /// Creates an engine; ``run()`` starts its thread.
    ///
    /// - Parameters:
    ///   - model: The model without its experts.
    ///   - experts: Where the experts are.
    ///   - tokenizer: Turns ids into text, for stop strings and streams.
    ///   - configuration: How to schedule and compute.
    ///   - metricsFactory: Where the engine counts; the process' own backend when nil.
    ///   - logger: Told of failures.
    public init(
        model: SwitchTransformer,
        experts: any ExpertExecutor,
        tokenizer: Tokenizer,
        configuration: EngineConfiguration = EngineConfiguration(),
        metricsFactory: (any MetricsFactory)? = nil,
        logger: Logger
    ) {
        self.model = model
        self.tokenizer = tokenizer
        self.configuration = configuration
        self.logger = logger
        self.metrics = GatewayMetrics(layers: model.configuration.sparseLayers, factory: metricsFactory)
        self.watch = StepWatch(experts: experts, expertCount: model.configuration.expertCount)
        self.shared = Monitor(Shared(scheduler: BatchScheduler(configuration: configuration.scheduler)))
    }

    // MARK: - Life

    /// Computes until the task is cancelled, or until nothing is left after ``beginDraining()``.
    ///
    /// Cancelling the task ends all requests with `UNAVAILABLE`.
    ///
    /// - Throws: `ComputeThread.StartError` if the system refuses a thread.
    public func run() async throws {
        defer {
            self.stop()
        }
        try await withTaskCancellationHandler {
            try await ComputeThread.run(name: "engine") {
                self.model.pool.bindCallingThread()
                let worker = EngineWorker(engine: self)
                while let turn = self.nextTurn() {
                    worker.step(turn)
                }
                worker.stop()
            }
        } onCancel: {
            self.stop()
        }
    }

    /// Takes no more requests; ``run()`` returns when those present have ended.
    public func beginDraining() {
        self.shared.notify { shared in
            if shared.phase == .open {
                shared.phase = .draining
                shared.scheduler.beginDraining()
            }
        }
    }

    /// Ends everything: those that wait here, those that run on the engine's thread.
    private func stop() {
        let waiting = self.shared.notify { shared in
            shared.phase = .stopped
            defer { shared.waiting = [:] }
            return Array(shared.waiting.values)
        }
        for arrival in waiting {
            self.metrics.ended(.failed)
            arrival.fail(EngineWorker.stopError)
        }
        self.watch.leaveAll()
    }

    // MARK: - Requests

    /// Turns away what there is no place for, before anything has been done for it.
    ///
    /// - Throws: ``RPCError`` as ``submit(_:)`` throws when the queue is full or the engine is draining.
    public func requirePlace() throws(RPCError) {
        let rejection = self.shared.withLock { shared in
            shared.phase == .stopped ? .rejected(.draining, retryAfter: nil) : shared.scheduler.rejection(now: .now)
        }
        if case .rejected(let reason, let retryAfter) = rejection {
            self.metrics.ended(.refused)
            throw RPCError(reason, retryAfter: retryAfter)
        }
    }

    /// Asks for work.
    ///
    /// - Parameter request: The work; its ids have been checked against the vocabulary.
    /// - Returns: The request's name and events.
    /// - Throws: ``RPCError`` with `RESOURCE_EXHAUSTED` (and `grpc-retry-pushback-ms`) when the queue is full,
    ///   `INVALID_ARGUMENT` when the request needs more batch slots than there are, `UNAVAILABLE` when draining.
    public func submit(_ request: EngineRequest) throws(RPCError) -> EngineTicket {
        let (events, sink) = AsyncStream.makeStream(of: EngineEvent.self)
        let now = ContinuousClock.now
        let slots = request.slotCount
        let (id, admission) = self.shared.notify { shared -> (SequenceID, Admission) in
            let id = SequenceID(shared.nextID)
            guard shared.phase != .stopped else {
                return (id, .rejected(.draining, retryAfter: nil))
            }
            shared.nextID += 1
            let admission = shared.scheduler.enqueue(
                id,
                slots: slots,
                inputTokens: request.input.count,
                deadline: request.deadline,
                now: now
            )
            if case .queued = admission {
                shared.waiting[id] = Arrival(id: id, request: request, sink: sink, time: now)
            }
            return (id, admission)
        }
        if case .rejected(let reason, let retryAfter) = admission {
            self.metrics.ended(.refused)
            throw RPCError(reason, retryAfter: retryAfter)
        }
        sink.onTermination = { [weak self] termination in
            if case .cancelled = termination {
                self?.cancel(id)
            }
        }
        return EngineTicket(id: id, events: events)
    }

    /// The client left: the request ends without a further event, and its batch slots are free.
    ///
    /// - Parameter id: The request; one that has ended is ignored.
    public func cancel(_ id: SequenceID) {
        let arrival = self.shared.withLock { shared in
            let arrival = shared.waiting.removeValue(forKey: id)
            if arrival != nil {
                shared.scheduler.evicted(id)
            }
            return arrival
        }
        if let arrival {
            self.metrics.ended(.cancelled)
            arrival.sink.finish()
            return
        }
        // First the call that may be under way, then the engine, which tells the watch to forget the request.
        self.watch.leave(id)
        self.shared.notify { $0.gone.append(id) }
    }

    /// What the engine is doing.
    public var load: EngineLoad {
        self.shared.withLock { shared in
            let configuration = shared.scheduler.configuration
            var load = EngineLoad()
            load.queued = shared.scheduler.queuedCount
            load.queueLimit = configuration.queueLimit
            load.running = shared.scheduler.runningCount
            load.usedSlots = configuration.batchSlots - shared.scheduler.freeSlots
            load.batchSlots = configuration.batchSlots
            load.isDraining = shared.phase != .open
            load.steps = shared.totals.steps
            load.decodedTokens = shared.totals.decodedTokens
            load.routedTokens = UInt64(shared.totals.ledger.routed)
            load.dropped = shared.totals.ledger.entries
            load.expertRows = shared.totals.expertRows
            return load
        }
    }

    // MARK: - The thread's side

    /// Blocks the engine's thread until there is something to do.
    ///
    /// - Returns: Nothing when the engine ends.
    private func nextTurn() -> Turn? {
        // Nothing waits for a time: whoever waits does so because something runs, and steps are planned between steps.
        let turn: Turn?? = self.shared.wait { shared in
            if shared.phase == .stopped {
                return .some(nil)
            }
            let gone = shared.gone
            shared.gone = []
            for id in gone {
                shared.scheduler.evicted(id)
            }
            let plan = shared.scheduler.nextStep(now: .now)
            guard !plan.isEmpty || !gone.isEmpty else {
                return shared.phase == .draining && shared.scheduler.isIdle ? .some(nil) : nil
            }
            var turn = Turn(running: plan.decodes, gone: gone)
            turn.joined = plan.encodes.compactMap { shared.waiting.removeValue(forKey: $0) }
            for id in plan.expired {
                if let arrival = shared.waiting.removeValue(forKey: id) {
                    turn.expiredArrivals.append(arrival)
                } else {
                    turn.expired.append(id)
                }
            }
            return turn
        }
        return turn ?? nil
    }

    /// A request has ended: its batch slots are free.
    ///
    /// - Parameters:
    ///   - id: The request.
    ///   - isFinished: Whether it ended well.
    ///   - totals: What has been done up to now.
    func release(_ id: SequenceID, isFinished: Bool, totals: EngineTotals) {
        self.shared.withLock { shared in
            if isFinished {
                shared.scheduler.retired(id, now: .now)
            } else {
                shared.scheduler.evicted(id)
            }
            shared.totals = totals
        }
    }

    /// A step is over.
    ///
    /// - Parameter totals: What has been done up to now.
    func stepEnded(totals: EngineTotals) {
        self.shared.withLock { $0.totals = totals }
    }
}

/// What the engine has done since its start.
struct EngineTotals: Sendable {
    var steps: UInt64 = 0
    var decodedTokens: UInt64 = 0
    var ledger = DropLedger()
    var expertRows: [SparseLayer: [UInt64]] = [:]

    /// Token rows were dispatched.
    mutating func add(_ rows: [SparseLayer: [UInt64]]) {
        self.expertRows.merge(rows) { zip($0, $1).map { $0 + $1 } }
    }
}

extension EngineRequest {
    /// Batch slots that the request needs: one for each decoder row that may run at once.
    var slotCount: Int {
        guard case .generate(let parameters, _) = self.work else {
            return 1
        }
        return max(parameters.beamCount, parameters.returnedSequences)
    }
}

extension Arrival {
    /// Tells the client that the request failed.
    func fail(_ error: RPCError) {
        self.sink.yield(.failed(error))
        self.sink.finish()
    }
}

extension RPCError {
    /// The status of a request that the scheduler turned away.
    fileprivate init(_ reason: RejectionReason, retryAfter: Duration?) {
        switch reason {
        case .queueFull:
            self.init(.resourceExhausted, reason.description)
        case .tooWide:
            self.init(.invalidArgument, reason.description)
        case .draining:
            self.init(.unavailable, reason.description)
        }
        if let retryAfter { self.askToRetry(after: retryAfter) }
    }
}
