// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import Foundation
internal import RPCCore
internal import SwitchModel
internal import SwitchTraining
internal import SwitchyardProtos
internal import TensorKernels

/// What brings a state to a replica, and takes it away again.
extension ShardReplica {
    /// `TrainingHost.Open`.
    func open(_ request: OpenShardRequest) throws(RPCError) -> ShardState {
        guard let session = request.session, session.run != 0, session.trainer != 0 else {
            throw RPCError(.invalidArgument, "session: run and trainer must not be 0; draw both")
        }
        let plan = (request.configuration + [0] + request.plan).withUnsafeBytes { XXHash64.hash($0) }
        if var run = self.current, run.session.run == session.run, run.plan == plan {
            run.session = session
            run.name = request.shard
            run.base.checksum = request.baseChecksum
            try self.takeBase(&run)
            self.current = run
            return try self.state(of: run)
        }
        var run: Run
        do {
            let configuration = try ModelConfiguration.load(contents: request.configuration, name: "configuration")
            let decoded = try JSONDecoder().decode(ShardPlan.self, from: Data(request.plan))
            try self.checkBases(of: decoded)
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
            throw RPCError(.invalidArgument, "plan: \(error.words); use the same version on both sides")
        } catch let error as RPCError {
            throw error
        } catch {
            throw RPCError(.invalidArgument, "\(error)")
        }
        run.base.checksum = request.baseChecksum
        try self.takeBase(&run)
        self.current = run
        return try self.state(of: run)
    }

    /// What the host says of itself.
    func state(of run: Run, checksum: UInt64 = 0) throws(RPCError) -> ShardState {
        do {
            return ShardState(
                isLoaded: run.place != nil,
                step: UInt64(run.place?.step ?? 0),
                attempt: UInt32(clamping: run.place?.attempt ?? 0),
                records: UInt64(run.place?.records ?? 0),
                snapshots: (run.folder?.steps() ?? []).map { UInt64($0) },
                stateBytes: UInt64(try run.shard.stateByteCount()),
                checksum: checksum,
                needsBase: run.shard.needsBase,
                baseBytes: UInt64(run.shard.baseByteCount)
            )
        } catch {
            throw RPCError(.internal, "\(error)")
        }
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
        if request.isBase { return try self.storeBase(request, &run) }
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
        guard !run.shard.needsBase else {
            throw RPCError(
                .failedPrecondition,
                "the weights below the adapter have not come yet; bring them with Store"
            )
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

extension DecodingError {
    /// What could not be read, and where in the JSON.
    fileprivate var words: String {
        let (context, what): (Context, String) =
            switch self {
            case .keyNotFound(let key, let context): (context, "\(key.stringValue) is missing")
            case .valueNotFound(let type, let context): (context, "is null, but must be a \(type)")
            case .typeMismatch(let type, let context): (context, "is no \(type)")
            case .dataCorrupted(let context): (context, context.debugDescription)
            @unknown default: (Context(codingPath: [], debugDescription: ""), "\(self)")
            }
        let path = context.codingPath.map { $0.intValue.map { "\($0)" } ?? $0.stringValue }.joined(separator: ".")
        return path.isEmpty ? what : "\(path): \(what)"
    }
}
