// SPDX-License-Identifier: Apache-2.0

internal import BatchScheduling
internal import Checkpoints
internal import Logging
internal import NIOCore
internal import RPCCore
internal import RPCTransport
internal import ServiceKit
internal import SwitchModel
internal import SwitchyardProtos
internal import SwitchyardTypes
internal import Synchronization
internal import Telemetry
internal import TensorKernels

/// Computes a host's passes, on whichever thread took one from the queue, and answers their calls.
///
/// One pass is computed at a time: the queue gives out no other while one is.
final class HostPasses: Sendable {
    let expertRows = ExpertRowCounts()
    private let queue: ForwardQueue
    private let pool: WorkPool
    private let metrics: ExpertHostMetrics
    private let logger: Logger
    private let stages: CallStages?
    private let headers = Mutex(HeaderMemory())

    /// The memory in which answers begin.
    private struct HeaderMemory {
        var bytes: [UInt8] = []
        var shelf = BufferShelf(count: 2, limitBytes: 256)

        mutating func header(_ envelope: ForwardResponseEnvelope, tensorByteCount: Int) -> ByteBuffer {
            envelope.writeHeader(tensorByteCount: tensorByteCount, to: &self.bytes)
            var header = self.shelf.take(capacity: self.bytes.count)
            header.writeBytes(self.bytes)
            self.shelf.keep(header)
            return header
        }
    }

    init(
        queue: ForwardQueue,
        pool: WorkPool,
        metrics: ExpertHostMetrics,
        logger: Logger,
        stages: CallStages?
    ) {
        self.queue = queue
        self.pool = pool
        self.metrics = metrics
        self.logger = logger
        self.stages = stages
    }

    /// Computes the call that the calling event loop has just queued, if it may.
    func computeAtOnce() {
        guard let job = self.queue.takeAtOnce() else { return }
        // What an event loop computes is served, and pauses for nothing.
        self.compute(CollectionOfOne(job), nil, atOnce: true)
    }

    /// Computes served calls in a pause of a pass for a trainer.
    ///
    /// - Parameters:
    ///   - isServing: Whether served calls came a short time ago.
    ///   - courtesy: The thread's.
    /// - Returns: How long the pause took.
    private func pause(isServing: Bool, _ courtesy: CourtesyOfThread) -> Duration {
        let start = ContinuousClock.now
        // The event loop may wait for this processor with the next call.
        if isServing { courtesy.giveWay { ComputeThread.giveWay() } }
        var count = 0
        while let jobs = self.queue.nextBeside(count) {
            count += 1
            self.compute(jobs, courtesy)
        }
        return start.duration(to: .now)
    }

    /// Computes a pass and answers its calls.
    ///
    /// - Parameters:
    ///   - jobs: The calls, at least one.
    ///   - courtesy: The thread's, for passes that may pause.
    ///   - atOnce: Whether an event loop took them (``ForwardQueue/takeAtOnce()``).
    func compute(_ jobs: some Collection<ForwardJob>, _ courtesy: CourtesyOfThread?, atOnce: Bool = false) {
        guard let kind = jobs.first?.kind, let model = jobs.first?.model else { return }
        let start = ContinuousClock.now
        self.pool.expectWork()
        self.stages?.mark(.begun)
        let outcome: ExpertCompute.Outcome
        var pauseTime = Duration.zero
        if kind != .serving, let courtesy {
            (outcome, pauseTime) = self.computeWithPauses(jobs, model, courtesy)
        } else {
            outcome = model.compute.compute(jobs, pauses: nil)
        }
        self.stages?.mark(.computed)
        let time = start.duration(to: .now) - pauseTime
        // Update the queue first: a caller with the answer may look at the load.
        var load = self.queue.finished(expertReads: outcome.expertReads, atOnce: atOnce)
        load.computeMicroseconds = time.wholeMicroseconds
        load.passCalls = UInt32(clamping: jobs.count)
        // The gateway that goes on with the answer may share the processors.
        if load.activeCalls == 0 { self.pool.rest() }
        for (job, outputs) in zip(jobs, outcome.outputs) {
            let wait = job.arrival.duration(to: start)
            load.queueMicroseconds = wait.wholeMicroseconds
            self.metrics.waited(wait, kind)
            self.answer(job, outputs, load: load)
        }
        self.expertRows.add(jobs, experts: model.expertCount)
        self.metrics.computed(
            kind,
            calls: jobs.count,
            rows: jobs.reduce(0) { $0 + $1.work.rows },
            named: jobs.reduce(0) { $0 + $1.work.groups.count },
            reads: outcome.expertReads,
            time: time
        )
    }

    /// Computes a pass for a trainer.
    private func computeWithPauses(
        _ jobs: some Collection<ForwardJob>,
        _ model: HostModel,
        _ courtesy: CourtesyOfThread
    ) -> (ExpertCompute.Outcome, pauseTime: Duration) {
        var pauseTime = Duration.zero
        let isServing = self.queue.isServing
        let pauses = WorkPauses { pauseTime += self.pause(isServing: isServing, courtesy) }
        return (model.compute.compute(jobs, pauses: pauses), pauseTime)
    }

    private func answer(_ job: ForwardJob, _ outputs: Result<ByteBuffer, RPCError>, load: HostLoad) {
        var outputs = outputs
        if let failure = job.model.mapped.failure {
            outputs = .failure(RPCError(.unavailable, "the host stops, because \(failure)"))
        }
        if let trace = job.trace { self.log(job, trace, load: load) }
        switch outputs {
        case .success(let rows):
            let envelope = ForwardResponseEnvelope(
                outputsShape: TensorShape(rows: job.work.rows, columns: job.model.compute.modelWidth),
                outputsDType: WireDType(job.work.rowType),
                load: load
            )
            let header = self.headers.withLock { $0.header(envelope, tensorByteCount: rows.readableBytes) }
            let failed = job.model.compute.rowsNotFinite(in: rows, of: job)
            self.metrics.count(failed.isEmpty ? .ok : .failed, job.kind)
            if !failed.isEmpty { self.log(job, failed: failed) }
            job.responder.finish(.success(Payload(segments: [header, rows])))
        case .failure(let error):
            var metadata = job.trace?.logMetadata ?? [:]
            metadata["error"] = "\(error)"
            self.logger.error("a call failed", metadata: metadata)
            self.metrics.count(.failed, job.kind)
            job.responder.finish(.failure(error))
        }
    }

    /// Logs that rows of a call are not finite, with the experts that computed them.
    private func log(_ job: ForwardJob, failed rows: [Int]) {
        var experts: [Int] = []
        var end = 0
        for group in job.work.groups {
            let range = end..<end + group.rows
            if rows.contains(where: { range.contains($0) }) { experts.append(group.expert) }
            end = range.upperBound
        }
        var metadata = job.trace?.logMetadata ?? [:]
        metadata["layer"] = "\(job.work.layer.stack) \(job.work.layer.block)"
        metadata["experts"] = "\(experts.prefix(16).map { "\($0)" }.joined(separator: ","))"
        metadata["work"] = "\(job.kind)"
        metadata["rows"] = "\(rows.count) of \(job.work.rows)"
        self.logger.error(
            "rows of a call are not finite; the tokens or this host's weights are damaged",
            metadata: metadata
        )
    }

    /// Logs what a traced call took.
    private func log(_ job: ForwardJob, _ trace: TraceContext, load: HostLoad) {
        guard self.logger.logLevel <= .debug else { return }
        var metadata = trace.logMetadata
        metadata["layer"] = "\(job.work.layer.stack) \(job.work.layer.block)"
        metadata["work"] = "\(job.kind)"
        metadata["rows"] = "\(job.work.rows)"
        metadata["pass_calls"] = "\(load.passCalls)"
        metadata["queue_us"] = "\(load.queueMicroseconds)"
        metadata["compute_us"] = "\(load.computeMicroseconds)"
        self.logger.debug("computed a traced call", metadata: metadata)
    }
}
