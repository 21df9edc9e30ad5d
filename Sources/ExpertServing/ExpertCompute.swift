// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import NIOCore
internal import RPCCore
internal import RPCTransport
internal import SwitchModel
internal import SwitchyardProtos
internal import SwitchyardTypes
internal import Synchronization
internal import TensorKernels

/// Computes a pass on the compute thread: experts' feed-forwards, or gradients through them, from the received bytes into the replies' bytes.
struct ExpertCompute: Sendable {
    /// The result of a pass.
    struct Outcome: Sendable {
        /// For each call, its output rows or its error.
        var outputs: ShortList<Result<ByteBuffer, RPCError>>
        /// Experts whose weights were read.
        var expertReads: Int
    }

    let experts: LocalExperts

    /// Elements of one token, the model's width.
    let modelWidth: Int

    /// The memory of the last answers, for the next ones.
    private let memory = OutputMemory()

    init(experts: LocalExperts, modelWidth: Int) {
        self.experts = experts
        self.modelWidth = modelWidth
    }

    /// Memory of outputs, which are filled one pass after another.
    private final class OutputMemory: Sendable {
        let shelf = Mutex(BufferShelf(count: 2, limitBytes: 1 << 16))
    }

    /// Computes the calls of one pass.
    ///
    /// A single call is computed straight from the bytes that the socket wrote to the bytes that the socket reads,
    /// unless they are not floats or not aligned; then they are widened or moved first. The rows of several calls are
    /// gathered by expert, computed together, and split again; the bits are the same (``ForwardBatch``).
    ///
    /// - Parameters:
    ///   - jobs: At least one call, all for the same layer and of the same kind; their work has been checked.
    ///   - pauses: Where to pause; nowhere if nil.
    /// - Returns: The output rows of each call. Values that are not finite are among them as they are: they are the
    ///   sign by which a caller knows the rows that failed, and its other rows are good.
    func compute(_ jobs: some Collection<ForwardJob>, pauses: WorkPauses?) -> Outcome {
        if jobs.count == 1, let job = jobs.first, !job.work.isBackward {
            return Outcome(outputs: ShortList(self.computeOne(job, pauses)), expertReads: job.work.groups.count)
        }
        let jobs = Array(jobs)
        let batch = ForwardBatch(jobs.map(\.work.groups))
        let outputs =
            jobs.first?.work.isBackward == true
            ? self.computeGradients(jobs, batch, pauses) : self.computeTogether(jobs, batch, pauses)
        return Outcome(outputs: ShortList(contentsOf: outputs), expertReads: batch.groups.count)
    }

    private func computeOne(_ job: ForwardJob, _ pauses: WorkPauses?) -> Result<ByteBuffer, RPCError> {
        guard job.work.rowType == .float32 else {
            return self.computeWidened(job, pauses)
        }
        let byteCount = self.byteCount(of: job.work)
        var outputs = self.memory.shelf.withLock { $0.take(capacity: byteCount) }
        var failure: RPCError?
        outputs.writeWithUnsafeMutableBytes(minimumWritableBytes: byteCount) { target in
            job.withUnsafeTokens { tokens in
                do throws(ExpertError) {
                    try self.forward(job.work, tokens: tokens, outputs: target, pauses)
                } catch {
                    failure = RPCError(error)
                }
            }
            return failure == nil ? byteCount : 0
        }
        if let failure { return .failure(failure) }
        self.memory.shelf.withLock { $0.keep(outputs) }
        return .success(outputs)
    }

    private func forward(
        _ work: ForwardCheck.Work,
        tokens: UnsafeRawBufferPointer,
        outputs: UnsafeMutableRawBufferPointer,
        _ pauses: WorkPauses?
    ) throws(ExpertError) {
        guard let tokenBase = tokens.baseAddress, let outputBase = outputs.baseAddress else {
            return
        }
        let result = outputBase.bindMemory(to: Float.self, capacity: work.rows * self.modelWidth)
        if Int(bitPattern: tokenBase) % MemoryLayout<Float>.alignment == 0 {
            let source = tokenBase.assumingMemoryBound(to: Float.self)
            try self.experts.forward(
                layer: work.layer,
                groups: work.groups,
                tokens: source,
                outputs: result,
                pauses: pauses
            )
            return
        }
        let aligned = FloatMatrix(uninitializedRows: work.rows, columns: self.modelWidth)
        UnsafeMutableRawPointer(aligned.pointer).copyMemory(from: tokenBase, byteCount: tokens.count)
        try self.experts.forward(
            layer: work.layer,
            groups: work.groups,
            tokens: aligned.pointer,
            outputs: result,
            pauses: pauses
        )
    }

    /// Computes a call whose rows are not sent as float32.
    private func computeWidened(_ job: ForwardJob, _ pauses: WorkPauses?) -> Result<ByteBuffer, RPCError> {
        let count = job.work.rows * self.modelWidth
        let tokens = FloatMatrix(uninitializedRows: job.work.rows, columns: self.modelWidth)
        let results = FloatMatrix(uninitializedRows: job.work.rows, columns: self.modelWidth)
        job.withUnsafeTokens { bytes in
            if let base = bytes.baseAddress {
                job.work.rowType.read(base, count: count, into: tokens.pointer)
            }
        }
        do throws(ExpertError) {
            try self.experts.forward(
                layer: job.work.layer,
                groups: job.work.groups,
                tokens: tokens.pointer,
                outputs: results.pointer,
                pauses: pauses
            )
        } catch {
            return .failure(RPCError(error))
        }
        let whole = ForwardBatch.Run(callRow: 0, row: 0, rows: job.work.rows)
        return self.reply(to: job, runs: [whole], from: results)
    }

    private func computeTogether(
        _ jobs: [ForwardJob],
        _ batch: ForwardBatch,
        _ pauses: WorkPauses?
    ) -> [Result<ByteBuffer, RPCError>] {
        guard let layer = jobs.first?.work.layer else {
            return []
        }
        let tokens = FloatMatrix(uninitializedRows: batch.rows, columns: self.modelWidth)
        let results = FloatMatrix(uninitializedRows: batch.rows, columns: self.modelWidth)
        for (call, job) in jobs.enumerated() {
            self.gather(job, batch.runs[call], skipping: 0, into: tokens)
        }
        do throws(ExpertError) {
            try self.experts.forward(
                layer: layer,
                groups: batch.groups,
                tokens: tokens.pointer,
                outputs: results.pointer,
                pauses: pauses
            )
        } catch {
            return jobs.map { _ in .failure(RPCError(error)) }
        }
        return jobs.enumerated().map { self.reply(to: $1, runs: batch.runs[$0], from: results) }
    }

    /// Computes the gradients of all calls' rows together.
    private func computeGradients(
        _ jobs: [ForwardJob],
        _ batch: ForwardBatch,
        _ pauses: WorkPauses?
    ) -> [Result<ByteBuffer, RPCError>] {
        guard let layer = jobs.first?.work.layer else {
            return []
        }
        let tokens = FloatMatrix(uninitializedRows: batch.rows, columns: self.modelWidth)
        let outputGradients = FloatMatrix(uninitializedRows: batch.rows, columns: self.modelWidth)
        let results = FloatMatrix(uninitializedRows: batch.rows, columns: self.modelWidth)
        for (call, job) in jobs.enumerated() {
            // The gradients follow the token rows, in the same order.
            self.gather(job, batch.runs[call], skipping: 0, into: tokens)
            self.gather(job, batch.runs[call], skipping: job.work.rows, into: outputGradients)
        }
        do throws(ExpertError) {
            try self.experts.backward(
                layer: layer,
                groups: batch.groups,
                tokens: tokens.pointer,
                outputGradients: outputGradients.pointer,
                inputGradients: results.pointer,
                pauses: pauses
            )
        } catch {
            return jobs.map { _ in .failure(RPCError(error)) }
        }
        return jobs.enumerated().map { self.reply(to: $1, runs: batch.runs[$0], from: results) }
    }

    /// Copies a call's rows to their places in a pass, in float32.
    private func gather(
        _ job: ForwardJob,
        _ runs: [ForwardBatch.Run],
        skipping skipped: Int,
        into rows: FloatMatrix
    ) {
        job.withUnsafeTokens { bytes in
            guard let base = bytes.baseAddress else { return }
            for run in runs {
                job.work.rowType.read(
                    base + (skipped + run.callRow) * self.rowByteCount(job.work.rowType),
                    count: run.rows * self.modelWidth,
                    into: rows.pointer + run.row * self.modelWidth
                )
            }
        }
    }

    /// A call's outputs in wire form, picked from the outputs of a pass.
    private func reply(
        to job: ForwardJob,
        runs: [ForwardBatch.Run],
        from results: FloatMatrix
    ) -> Result<ByteBuffer, RPCError> {
        let byteCount = self.byteCount(of: job.work)
        let rowBytes = self.rowByteCount(job.work.rowType)
        var outputs = ByteBufferAllocator().buffer(capacity: byteCount)
        outputs.writeWithUnsafeMutableBytes(minimumWritableBytes: byteCount) { target in
            guard let base = target.baseAddress else {
                return 0
            }
            for run in runs {
                job.work.rowType.write(
                    results.pointer + run.row * self.modelWidth,
                    count: run.rows * self.modelWidth,
                    to: base + run.callRow * rowBytes
                )
            }
            return byteCount
        }
        return .success(outputs)
    }

    /// Which rows of a call's outputs are not finite.
    ///
    /// - Parameters:
    ///   - outputs: The outputs of ``compute(_:)``.
    ///   - job: The call.
    /// - Returns: The rows' indices in the call, ascending.
    func rowsNotFinite(in outputs: ByteBuffer, of job: ForwardJob) -> [Int] {
        let type = job.work.rowType
        return outputs.withUnsafeReadableBytes {
            FiniteCheck.rowsNotFinite($0, rowBytes: self.rowByteCount(type), of: type)
        }
    }

    private func byteCount(of work: ForwardCheck.Work) -> Int {
        work.rows * self.rowByteCount(work.rowType)
    }

    private func rowByteCount(_ type: DType) -> Int {
        self.modelWidth * type.byteCount
    }
}

extension ForwardJob {
    /// Lends the bytes of the token rows, at any alignment.
    fileprivate func withUnsafeTokens(_ body: (UnsafeRawBufferPointer) -> Void) {
        self.message.withUnsafeReadableBytes { body(UnsafeRawBufferPointer(rebasing: $0[self.tensor])) }
    }
}

extension RPCError {
    fileprivate init(_ error: ExpertError) {
        self.init(
            error.code == .notTrainable ? .failedPrecondition : .internal,
            "the experts cannot compute: \(error)"
        )
    }
}
