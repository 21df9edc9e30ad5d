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
    private struct Run {
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
        /// The newest copy.
        var copy: (step: Int, state: [UInt8])?
    }

    /// The most bytes of a piece of a state.
    static let mostPieceBytes = 4 << 20

    private let pool: WorkPool
    private let level: KernelLevel
    private let root: String?
    private let memory: UInt64
    private var current: Run?

    /// Makes a replica of nothing.
    ///
    /// - Parameters:
    ///   - pool: Threads that share the work.
    ///   - level: The instruction set.
    ///   - folder: The folder for snapshots; nil for none.
    ///   - memory: Bytes that weights and gradients may take; this machine's if omitted.
    init(
        pool: WorkPool,
        level: KernelLevel = .best,
        folder: String?,
        memory: UInt64 = ProcessInfo.processInfo.physicalMemory
    ) {
        self.memory = memory
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

    /// The shard, for tests of what becomes of damaged memory.
    var shardForTests: ExpertShard? { self.current?.shard }

    // MARK: - State

    /// `TrainingHost.Open`.
    func open(_ request: OpenShardRequest) throws(RPCError) -> ShardState {
        guard let session = request.session, session.run != 0, session.trainer != 0 else {
            throw RPCError(.invalidArgument, "session: run and trainer must not be 0; draw both")
        }
        let plan = (request.configuration + [0] + request.plan).withUnsafeBytes { XXHash64.hash($0) }
        if var run = self.current, run.session.run == session.run, run.plan == plan {
            run.session = session
            run.name = request.shard
            self.current = run
            return try self.state(of: run)
        }
        let run: Run
        do {
            let configuration = try ModelConfiguration.load(contents: request.configuration, name: "configuration")
            let decoded = try JSONDecoder().decode(ShardPlan.self, from: Data(request.plan))
            let needed = try ExpertShard.byteCount(configuration, plan: decoded)
            guard UInt64(needed) <= self.memory else {
                throw TrainingError(
                    code: .limitExceeded,
                    message:
                        "weights and gradients of the shard need \(needed) bytes, but this machine has"
                        + " \(self.memory); divide the experts among more pools"
                )
            }
            // The old state makes room first.
            self.current = nil
            run = Run(
                session: session,
                name: request.shard,
                plan: plan,
                shard: try ExpertShard(configuration, plan: decoded, pool: self.pool, level: self.level),
                folder: self.root.map { SnapshotFolder($0, run: session.run, plan: plan) }
            )
        } catch let error as DecodingError {
            throw RPCError(.invalidArgument, "plan: \(error.localizedDescription); use the same version on both sides")
        } catch {
            throw RPCError(.invalidArgument, "\(error)")
        }
        self.current = run
        return try self.state(of: run)
    }

    private func state(of run: Run, checksum: UInt64 = 0) throws(RPCError) -> ShardState {
        do {
            return ShardState(
                isLoaded: run.place != nil,
                step: UInt64(run.place?.step ?? 0),
                attempt: UInt32(clamping: run.place?.attempt ?? 0),
                records: UInt64(run.place?.records ?? 0),
                snapshots: (run.folder?.steps() ?? []).map { UInt64($0) },
                stateBytes: UInt64(try run.shard.stateByteCount()),
                checksum: checksum
            )
        } catch {
            throw RPCError(.internal, "\(error)")
        }
    }

    private func run(of session: TrainingSession?) throws(RPCError) -> Run {
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

    /// `TrainingHost.Store`.
    func store(_ request: StoreStateRequest) throws(RPCError) -> ShardState {
        var run = try self.run(of: request.session)
        let state = try self.state(of: run)
        guard request.piece.count <= Self.mostPieceBytes else {
            throw RPCError(
                .invalidArgument,
                "piece has \(request.piece.count) bytes, but may have \(Self.mostPieceBytes) at most"
            )
        }
        if request.offset == 0 { run.arriving = [] }
        guard request.offset == UInt64(run.arriving.count),
            UInt64(run.arriving.count + request.piece.count) <= state.stateBytes
        else {
            throw RPCError(
                .failedPrecondition,
                "a piece of \(request.piece.count) bytes at \(request.offset) does not follow the \(run.arriving.count) of"
                    + " \(state.stateBytes) that came; begin again at 0"
            )
        }
        self.current = nil
        run.arriving += request.piece
        self.current = run
        return state
    }

    /// `TrainingHost.Load`.
    func load(_ request: LoadStateRequest) throws(RPCError) -> ShardState {
        var run = try self.run(of: request.session)
        guard let step = Int(exactly: request.step), step < Int(UInt32.max) else {
            throw RPCError(.invalidArgument, "step is \(request.step), but must be below \(UInt32.max)")
        }
        let bytes: [UInt8]
        if request.isOnDisk {
            guard let folder = run.folder else {
                throw RPCError(.failedPrecondition, "the host keeps no snapshots; start it with a folder for them")
            }
            do throws(SnapshotFolder.Failure) {
                bytes = try folder.read(step)
            } catch {
                throw RPCError(.notFound, error.description)
            }
        } else {
            bytes = run.arriving
            run.arriving = []
        }
        // Whatever happens from here on, what was held before is gone.
        run.place = nil
        self.current = run
        do {
            try run.shard.restore(bytes)
            run.checksum = try run.shard.checksum(pool: self.pool)
        } catch {
            throw RPCError(.invalidArgument, "\(error)")
        }
        guard request.checksum == 0 || request.checksum == run.checksum else {
            throw RPCError(.dataLoss, "the state after step \(step) has another checksum than it was kept with")
        }
        run.place = ShardPlace(step: step)
        self.current = run
        return try self.state(of: run, checksum: run.checksum)
    }

    // MARK: - Steps

    private func place(_ run: Run) throws(RPCError) -> ShardPlace {
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

    private static func passed(_ verdict: ShardPlace.Verdict) throws(RPCError) {
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
    private func compareMemory(_ run: inout Run) throws(RPCError) {
        let sum: UInt64
        do {
            sum = try run.shard.checksum(pool: self.pool)
        } catch {
            throw RPCError(.internal, "\(error)")
        }
        guard sum == run.checksum else {
            run.place = nil
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

    // MARK: - Copies

    /// `TrainingHost.Snapshot`.
    ///
    /// - Returns: The answer, and what writes the copy to the disk where there is a folder for it: from any thread.
    func snapshot(_ request: SnapshotRequest) throws(RPCError) -> (SnapshotResponse, toDisk: (@Sendable () -> String?)?)
    {
        var run = try self.run(of: request.session)
        let step = Int(clamping: request.step)
        try Self.passed(try self.place(run).snapshot(step: step))
        try self.compareMemory(&run)
        let state: [UInt8]
        do {
            state = try run.shard.stateBytes()
        } catch {
            throw RPCError(.internal, "\(error)")
        }
        run.copy = (step, state)
        self.current = run
        let response = SnapshotResponse(stateBytes: UInt64(state.count), checksum: run.checksum)
        guard let folder = run.folder else { return (response, nil) }
        let write: @Sendable () -> String? = {
            do throws(SnapshotFolder.Failure) {
                try folder.write(state, step: step)
                return nil
            } catch {
                return error.description
            }
        }
        return (response, write)
    }

    /// `TrainingHost.Fetch`.
    func fetch(_ request: FetchStateRequest) throws(RPCError) -> FetchStateResponse {
        let run = try self.run(of: request.session)
        guard let copy = run.copy, copy.step == Int(clamping: request.step) else {
            throw RPCError(
                .failedPrecondition,
                "there is no copy of the state after step \(request.step); call Snapshot first"
            )
        }
        guard request.offset <= UInt64(copy.state.count) else {
            throw RPCError(.outOfRange, "offset is \(request.offset), but the copy has \(copy.state.count) bytes")
        }
        let start = Int(request.offset)
        let count = min(Int(clamping: request.bytes), Self.mostPieceBytes, copy.state.count - start)
        return FetchStateResponse(piece: Array(copy.state[start..<start + count]))
    }
}

extension TrainingRowsEnvelope {
    /// The run and its trainer.
    var session: TrainingSession { TrainingSession(run: self.rows.modelFingerprint, trainer: self.trainer) }

    /// Where each row's dropout comes from.
    var rowPlaces: [RowPlace] {
        self.places.withUnsafeBytes { bytes in
            (0..<bytes.count / 8)
                .map { row in
                    RowPlace(
                        sequence: UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 8 * row, as: UInt32.self)),
                        position: UInt32(
                            littleEndian: bytes.loadUnaligned(fromByteOffset: 8 * row + 4, as: UInt32.self)
                        )
                    )
                }
        }
    }
}
