// SPDX-License-Identifier: Apache-2.0

public import BatchScheduling
internal import Checkpoints
public import Logging
public import Metrics
public import RPCCore
internal import ServiceKit
public import SwitchModel
internal import SwitchyardTypes
internal import Telemetry
internal import TensorKernels
public import Tokenization

/// Runs requests through the model: continuous batching on a dedicated thread.
///
/// Requests come from tasks and event loops through ``submit(_:)`` and get their events back as a stream. The thread
/// runs one step after another: it admits and encodes waiting requests, decodes one token for each running row, and
/// ends finished requests. Only the queue is shared; everything else belongs to the thread.
public final class InferenceEngine: Sendable {
    struct Shared {
        var book: RequestBook
        var totals = EngineTotals()
    }

    let model: SwitchTransformer
    let tokenizer: Tokenizer?
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
    ///   - tokenizer: Turns ids into text, for stop strings and streams; nil leaves texts empty.
    ///   - configuration: How to schedule and compute.
    ///   - metricsFactory: Where the engine counts; the process's own backend when nil.
    ///   - logger: Logs failures.
    public init(
        model: SwitchTransformer,
        experts: any ExpertExecutor,
        tokenizer: Tokenizer?,
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
        self.shared = Monitor(
            Shared(book: RequestBook(scheduler: BatchScheduler(configuration: configuration.scheduler)))
        )
    }

    // MARK: - Life

    /// Computes until the task is cancelled or no request is left after ``beginDraining()``.
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

    /// Accepts no more requests; ``run()`` returns when the current ones have ended.
    public func beginDraining() {
        self.shared.notify { $0.book.beginDraining() }
    }

    /// Ends everything.
    private func stop() {
        for id in self.shared.notify({ $0.book.stop() }) {
            self.end(id, as: .stopped)
        }
        self.watch.leaveAll()
    }

    // MARK: - Requests

    /// Refuses a request that the queue has no room for, before any work is done for it.
    ///
    /// - Parameter caller: Who sends it.
    /// - Throws: ``RPCError`` as ``submit(_:)`` throws it when the queue is full or the engine is draining.
    public func requirePlace(for caller: String = "") throws(RPCError) {
        if let rejection = self.shared.withLock({ $0.book.rejection(from: caller, now: .now) }) {
            try self.refuse(rejection)
        }
    }

    /// Submits a request.
    ///
    /// - Parameter request: The work; its ids have been checked against the vocabulary.
    /// - Returns: The request's name and events.
    /// - Throws: ``RPCError`` with `RESOURCE_EXHAUSTED` (and `grpc-retry-pushback-ms`) when the queue is full,
    ///   `INVALID_ARGUMENT` when the request needs more batch slots than there are, `UNAVAILABLE` when draining.
    public func submit(_ request: EngineRequest) throws(RPCError) -> EngineTicket {
        let (events, sink) = AsyncStream.makeStream(of: EngineEvent.self)
        let (id, admission) = self.shared.notify { $0.book.submit(request, sink: sink, now: .now) }
        try self.refuse(admission)
        sink.onTermination = { [weak self] termination in
            if case .cancelled = termination {
                self?.cancel(id)
            }
        }
        return EngineTicket(id: id, events: events)
    }

    /// Submits several requests that come in one call: all of them or none.
    ///
    /// They wait next to each other, so that they share steps as far as there are batch slots.
    ///
    /// - Parameter requests: The work, as for ``submit(_:)-(EngineRequest)``.
    /// - Returns: Each request's name and events.
    /// - Throws: ``RPCError`` as for a single request.
    public func submit(_ requests: [EngineRequest]) throws(RPCError) -> [EngineTicket] {
        let streams = requests.map { ($0, AsyncStream.makeStream(of: EngineEvent.self)) }
        let (ids, refusal) = self.shared.notify { shared in
            shared.book.submit(streams.map { ($0, $1.continuation) }, now: .now)
        }
        if let refusal { try self.refuse(refusal) }
        return zip(ids, streams)
            .map { id, stream in
                stream.1.continuation.onTermination = { [weak self] termination in
                    if case .cancelled = termination { self?.cancel(id) }
                }
                return EngineTicket(id: id, events: stream.1.stream)
            }
    }

    /// Cancels a request whose client is gone: it ends without another event, and its batch slots are free.
    ///
    /// - Parameter id: The request; one that has ended is ignored.
    public func cancel(_ id: SequenceID) {
        self.end(id, as: .cancelled)
    }

    /// Refuses a request that the scheduler has no room for.
    private func refuse(_ admission: Admission) throws(RPCError) {
        guard case .rejected(let reason, let retryAfter) = admission else { return }
        let error = RPCError(reason, retryAfter: retryAfter)
        self.end(nil, as: .refused(error))
        throw error
    }

    /// Ends a request: everything that follows from an end happens here, once per request, on any thread.
    ///
    /// Its batch slots are free before its client knows, so that a client with an answer finds room for its next
    /// request. The engine's thread drops its state of the request on its next turn.
    ///
    /// - Parameters:
    ///   - id: The request; nil for one that was refused before it had a name.
    ///   - end: How it ended.
    /// - Returns: Whether this call ended it; if it had already ended, nothing happens.
    @discardableResult
    func end(_ id: SequenceID?, as end: RequestEnd) -> Bool {
        guard let id else {
            self.metrics.ended(end.outcome)
            return true
        }
        guard let (arrival, hasJoined) = self.shared.withLock({ $0.book.claim(id) }) else {
            return false
        }
        if hasJoined {
            // Must precede the thread's next turn, when the watch forgets the request.
            self.watch.leave(id)
        }
        let now = ContinuousClock.now
        let work = end.work(of: arrival.request)
        self.shared.notify {
            $0.book.release(id, hasJoined: hasJoined, isFinished: end.isFinished, work: work, now: now)
        }
        self.metrics.ended(end.outcome)
        if end.isFinished {
            self.metrics.answered(arrival.request.work.kind, after: arrival.time.duration(to: now))
        }
        if let fault = end.fault {
            var metadata = arrival.request.trace?.logMetadata ?? [:]
            metadata["error"] = "\(fault)"
            self.logger.error("a request failed", metadata: metadata)
        }
        self.logTraced(arrival.request, end)
        if let event = end.event {
            arrival.sink.yield(event)
        }
        arrival.sink.finish()
        return true
    }

    /// Logs what a traced request asked for and what it cost; others cost nothing here.
    private func logTraced(_ request: EngineRequest, _ end: RequestEnd) {
        guard let trace = request.trace else { return }
        let level: Logger.Level = trace.isSampled ? .info : .debug
        guard self.logger.logLevel <= level else { return }
        let attributes = GenerativeAttributes.metadata(of: request, as: end, model: self.configuration.modelName)
        self.logger.log(
            level: level,
            "the model's part of a traced request ended",
            metadata: trace.logMetadata.merging(attributes) { _, new in new }
        )
    }

    /// What the engine is doing.
    public var load: EngineLoad {
        self.shared.withLock { shared in
            let scheduler = shared.book.scheduler
            let configuration = scheduler.configuration
            var load = EngineLoad()
            load.queued = scheduler.queuedCount
            load.queueLimit = configuration.queueLimit
            load.running = scheduler.runningCount
            load.usedSlots = configuration.batchSlots - scheduler.freeSlots + scheduler.guestSlots
            load.batchSlots = configuration.batchSlots
            load.isDraining = shared.book.phase != .open
            load.steps = shared.totals.steps
            load.decodedTokens = shared.totals.decodedTokens
            load.routedTokens = UInt64(shared.totals.ledger.routed)
            load.dropped = shared.totals.ledger.entries
            load.expertRows = shared.totals.expertRows
            return load
        }
    }

    // MARK: - The thread's side

    /// Blocks the engine's thread until there is something to do, and ends requests whose deadline has passed.
    ///
    /// - Returns: The next turn; nil when the engine ends.
    private func nextTurn() -> RequestBook.Turn? {
        // Nothing waits for a time: requests wait because others run, and steps are planned in between.
        let turn: RequestBook.Turn?? = self.shared.wait { shared in
            if shared.book.phase == .stopped {
                return .some(nil)
            }
            return shared.book.nextTurn(now: .now).map { .some($0) } ?? (shared.book.isDone ? .some(nil) : nil)
        }
        guard let turn = turn ?? nil else { return nil }
        for id in turn.expired {
            self.end(id, as: .expired)
        }
        for rejection in turn.rejected {
            self.end(rejection.id, as: .refused(RPCError(rejection.reason, retryAfter: rejection.retryAfter)))
        }
        return turn
    }

    /// Publishes the work done so far to ``load``.
    func publish(_ totals: EngineTotals) {
        self.shared.withLock { $0.totals = totals }
    }
}

/// Work done since the engine started.
struct EngineTotals: Sendable {
    var steps: UInt64 = 0
    var decodedTokens: UInt64 = 0
    var ledger = DropLedger()
    var expertRows: [SparseLayer: [UInt64]] = [:]

    /// Counts dispatched token rows.
    mutating func add(_ rows: [SparseLayer: [UInt64]]) {
        self.expertRows.merge(rows) { zip($0, $1).map { $0 + $1 } }
    }
}

extension EngineRequest {
    /// What the scheduler must know of it.
    var needs: SequenceNeeds {
        SequenceNeeds(
            slots: self.slotCount,
            inputTokens: self.input.count,
            work: self.mostWork,
            caller: self.caller,
            priority: self.priority,
            deadline: self.deadline,
            queueTimeout: self.queueTimeout
        )
    }

    /// The most tokens that it takes through the model, over all its rows.
    private var mostWork: Int {
        switch self.work {
        case .generate(let parameters, _): self.input.count + self.slotCount * parameters.maxNewTokens
        case .encode: self.input.count
        case .score(let target, _): self.input.count + target.count
        }
    }

    /// Batch slots that the request needs: one for each decoder row that may run at once.
    var slotCount: Int {
        guard case .generate(let parameters, _) = self.work else {
            return 1
        }
        return max(parameters.beamCount, parameters.returnedSequences)
    }
}

extension RPCError {
    /// The status of a request that the scheduler refused.
    fileprivate init(_ reason: RejectionReason, retryAfter: Duration?) {
        switch reason {
        case .queueFull, .noRoom, .displaced, .waitedTooLong:
            self.init(.resourceExhausted, reason.description)
        case .tooWide:
            self.init(.invalidArgument, reason.description)
        case .draining:
            self.init(.unavailable, reason.description)
        }
        if let retryAfter { self.askToRetry(after: retryAfter) }
    }
}
