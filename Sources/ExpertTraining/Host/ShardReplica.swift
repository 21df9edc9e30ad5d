// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import Foundation
internal import RPCCore
internal import SwitchModel
internal import SwitchTraining
internal import SwitchyardProtos
internal import SwitchyardTypes
internal import TensorKernels

/// A training host's replica of a shard: what answers the trainer's calls, one at a time, without sockets.
///
/// After any error the state is as before the call, or gone: it is never between two calls.
final class ShardReplica {
    /// What a host holds of one run.
    struct Run {
        var session: TrainingSession
        var name: String
        var plan: UInt64
        var shard: ExpertShard
        var folder: SnapshotFolder?
        /// Where it is; nil before a state has come.
        var place: ShardPlace?
        /// The checksum of the state after the last step.
        var checksum: UInt64 = 0
        /// A state that comes in pieces.
        var arriving: [UInt8] = []
        /// What the weights below an adapter must be, and how many bytes of them have come.
        var base: (checksum: UInt64, arrived: Int) = (0, 0)
        /// The newest copy.
        var copy: (step: Int, state: [UInt8])?
    }

    /// The most bytes of a piece of a state.
    static let mostPieceBytes = 4 << 20

    let pool: WorkPool
    let level: KernelLevel
    let root: String?
    let memory: UInt64
    let bases: [Checkpoint]
    /// What it holds.
    var current: Run?

    /// Makes a replica of nothing.
    ///
    /// - Parameters:
    ///   - pool: Threads that share the work.
    ///   - level: The instruction set.
    ///   - folder: The folder for snapshots; nil for none.
    ///   - bases: Parts of a checkpoint on this machine, which need not come where an adapter is trained beside its weights.
    ///   - memory: Bytes that weights and gradients may take; this machine's if omitted.
    init(
        pool: WorkPool,
        level: KernelLevel = .best,
        folder: String?,
        bases: [Checkpoint] = [],
        memory: UInt64 = ProcessInfo.processInfo.physicalMemory
    ) {
        self.memory = memory
        self.bases = bases
        self.pool = pool
        self.level = level
        self.root = folder
    }

    /// Where the replica is, for people and metrics.
    var summary: (shard: String, run: UInt64, step: Int?, bytes: Int)? {
        self.current.map { run in
            (run.name, run.session.run, run.place?.step, run.shard.layout.count * MemoryLayout<Float>.stride)
        }
    }

    /// The run that a call is for.
    func run(of session: TrainingSession?) throws(RPCError) -> Run {
        guard let run = self.current else {
            throw RPCError(.failedPrecondition, "the host holds no shard; call Open first")
        }
        guard session?.run == run.session.run else {
            throw RPCError(.failedPrecondition, "the call is for another run than the one that the host trains")
        }
        guard session?.trainer == run.session.trainer else {
            throw RPCError(.failedPrecondition, "another trainer of this run has opened the host since")
        }
        return run
    }

    // MARK: - Steps

    /// Where a run is.
    func place(_ run: Run) throws(RPCError) -> ShardPlace {
        guard let place = run.place else {
            throw RPCError(.failedPrecondition, "the host holds no state yet; call Load first")
        }
        return place
    }

    /// `TrainingHost.Forward`.
    func forward(_ envelope: TrainingRowsEnvelope, tokens: FloatMatrix) throws(RPCError) -> FloatMatrix {
        let run = try self.run(of: envelope.session)
        try Self.passed(try self.place(run).forward(step: Int(clamping: envelope.step)))
        return run.shard.forward(try self.batch(envelope, tokens, run), step: Int(clamping: envelope.step))
    }

    /// `TrainingHost.Backward`.
    ///
    /// - Returns: The rows' gradients; nil for a replay.
    func backward(
        _ envelope: TrainingRowsEnvelope,
        tokens: FloatMatrix,
        outputGradients: FloatMatrix
    ) throws(RPCError) -> FloatMatrix? {
        var run = try self.run(of: envelope.session)
        var place = try self.place(run)
        let batch = try self.batch(envelope, tokens, run)
        let step = Int(clamping: envelope.step)
        let verdict = place.backward(
            step: step,
            attempt: Int(envelope.attempt),
            record: Int(clamping: envelope.record)
        )
        try Self.passed(verdict)
        var accumulates = false
        if case .taken(let forgets) = verdict {
            accumulates = true
            if forgets { run.shard.beginStep() }
        }
        let gradients = run.shard.backward(
            batch,
            outputGradients: outputGradients,
            step: step,
            accumulates: accumulates,
            answers: !envelope.isReplay
        )
        run.place = place
        self.current = run
        return gradients
    }

    private func batch(
        _ envelope: TrainingRowsEnvelope,
        _ tokens: FloatMatrix,
        _ run: Run
    ) throws(RPCError) -> ExpertShard.Batch {
        guard let stack = envelope.rows.stack.stack else {
            throw RPCError(.invalidArgument, "stack is not given; send ENCODER or DECODER")
        }
        let batch = ExpertShard.Batch(
            SparseLayer(stack: stack, block: Int(envelope.rows.layer)),
            groups: envelope.rows.groups.map { ExpertRows(expert: Int($0.expert), rows: Int($0.rows)) },
            tokens: tokens,
            places: envelope.places.isEmpty ? nil : envelope.rowPlaces
        )
        do {
            try run.shard.check(batch)
        } catch {
            throw RPCError(.invalidArgument, error.message)
        }
        return batch
    }

    /// Refuses what a place refuses.
    static func passed(_ verdict: ShardPlace.Verdict) throws(RPCError) {
        if case .refused(let reason) = verdict { throw RPCError(.failedPrecondition, reason) }
    }

    /// `TrainingHost.Prepare`.
    func prepare(_ request: PrepareStepRequest) throws(RPCError) -> PrepareStepResponse {
        var run = try self.run(of: request.session)
        var place = try self.place(run)
        let verdict = place.prepare(
            step: Int(clamping: request.step),
            attempt: Int(request.attempt),
            records: Int(clamping: request.records)
        )
        try Self.passed(verdict)
        if case .taken(forgets: true) = verdict { run.shard.beginStep() }
        run.place = place
        self.current = run
        try self.compareMemory(&run)
        let squares = run.shard.squares()
        return PrepareStepResponse(
            squares: squares.map { $0 ?? 0 },
            touched: squares.indices.filter { squares[$0] != nil }.map { UInt32($0) }
        )
    }

    /// Makes sure that weights and optimizer state are as the last step left them; otherwise they are given up.
    func compareMemory(_ run: inout Run) throws(RPCError) {
        let sum: UInt64
        do {
            sum = try run.shard.checksum(pool: self.pool)
        } catch {
            throw RPCError(.internal, "\(error)")
        }
        guard sum == run.checksum, run.shard.hasSoundWeights() else {
            run.place = nil
            run.shard.forgetBase()
            self.current = run
            throw RPCError(
                .dataLoss,
                "weights or optimizer state have changed by themselves since the last step; test this machine's memory"
            )
        }
    }

    /// `TrainingHost.Apply`.
    func apply(_ request: ApplyStepRequest) throws(RPCError) -> ShardState {
        var run = try self.run(of: request.session)
        var place = try self.place(run)
        guard request.learningRate.isFinite, request.gradientScale.isFinite else {
            throw RPCError(.invalidArgument, "learning_rate and gradient_scale must be finite")
        }
        let verdict = place.apply(
            step: Int(clamping: request.step),
            attempt: Int(request.attempt),
            records: Int(clamping: request.records)
        )
        try Self.passed(verdict)
        guard case .taken(let forgets) = verdict else { return try self.state(of: run, checksum: run.checksum) }
        // The checksum of the new state must not vouch for what changed since the step's gradients were formed.
        try self.compareMemory(&run)
        if forgets { run.shard.beginStep() }
        run.shard.apply(rate: request.learningRate, scale: request.gradientScale)
        do {
            run.checksum = try run.shard.checksum(pool: self.pool)
        } catch {
            throw RPCError(.internal, "\(error)")
        }
        run.place = place
        self.current = run
        return try self.state(of: run, checksum: run.checksum)
    }
}
