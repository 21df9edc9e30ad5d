// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import Logging
internal import RPCCore
internal import ServiceKit
internal import SwitchyardProtos
internal import SwitchyardTypes
internal import Synchronization
internal import TensorKernels

/// The checkpoints that a host holds: the runner of ``HostHoldings``.
final class HostModels: Sendable {
    private struct State {
        var holdings: HostHoldings
        var models: [UInt64: HostModel]
        /// Set where a served file changed; the host ends.
        var failure: String?
    }

    /// Loads the folders of a checkpoint as the host's own were loaded.
    typealias Load = @Sendable (_ checkpoint: String, _ fingerprint: UInt64, _ serving: HostModel) throws -> HostModel

    private let state: Mutex<State>
    private let folder: CheckpointFolder?
    private let logger: Logger
    private let load: Load
    private let work: AsyncStream<HostHoldings.Checkpoint>
    private let workSource: AsyncStream<HostHoldings.Checkpoint>.Continuation
    private let watched: AsyncStream<HostModel>
    private let watchedSource: AsyncStream<HostModel>.Continuation

    init(_ model: HostModel, folder: CheckpointFolder?, logger: Logger, load: @escaping Load) {
        let serving = HostHoldings.Checkpoint(name: model.checkpoint, fingerprint: model.fingerprint)
        self.state = Mutex(State(holdings: HostHoldings(serving: serving), models: [model.fingerprint: model]))
        self.serving = Mutex(model)
        self.folder = folder
        self.logger = logger
        self.load = load
        (self.work, self.workSource) = AsyncStream.makeStream(of: HostHoldings.Checkpoint.self)
        (self.watched, self.watchedSource) = AsyncStream.makeStream(of: HostModel.self)
        self.watchedSource.yield(model)
    }

    private let serving: Mutex<HostModel>

    /// The checkpoint that is served after a restart.
    var served: HostModel { self.serving.withLock { $0 } }

    /// Every checkpoint that is held, the served one first.
    var all: [HostModel] {
        self.state.withLock { state in state.holdings.held.compactMap { state.models[$0] } }
    }

    /// The checkpoint with a fingerprint; the served one where it is not held, whose check then refuses the call.
    func model(_ fingerprint: UInt64) -> HostModel {
        let served = self.served
        guard fingerprint != served.fingerprint else { return served }
        return self.state.withLock { $0.models[fingerprint] } ?? served
    }

    /// Describes a checkpoint that is held.
    func description(_ model: HostModel, load: HostLoad) -> HostDescription {
        var description = model.card.description(load: load)
        description.heldFingerprints = self.state.withLock { $0.holdings.held }
        return description
    }

    // MARK: - Steps

    /// A gateway wants a checkpoint held.
    ///
    /// - Parameter request: The checkpoint.
    /// - Returns: The checkpoint, once it is held.
    /// - Throws: ``RPCError``: `UNAVAILABLE` while it is loaded, `FAILED_PRECONDITION` where it cannot be held,
    ///   `INVALID_ARGUMENT` for a name that cannot be one.
    func hold(_ request: HoldRequest) throws(RPCError) -> HostModel {
        if let problem = CheckpointFolder.problem(withName: request.checkpoint) {
            throw RPCError(.invalidArgument, problem)
        }
        let wanted = HostHoldings.Checkpoint(name: request.checkpoint, fingerprint: request.modelFingerprint)
        let isHeld = self.state.withLock { $0.models[wanted.fingerprint] != nil }
        guard isHeld || self.folder != nil else {
            throw RPCError(
                .failedPrecondition,
                "this host has no folder of checkpoints to load \(request.checkpoint) from; start it with --checkpoints DIR"
            )
        }
        let (step, model) = self.state.withLock { state in
            (state.holdings.wanted(wanted, now: .now), state.models[wanted.fingerprint])
        }
        switch step {
        case .describe:
            guard let model else { throw RPCError(.internal, "a checkpoint that is held has no weights") }
            return model
        case .load:
            self.workSource.yield(wanted)
            fallthrough
        case .wait: throw RPCError(.unavailable, "the host is loading \(request.checkpoint); ask again soon")
        case .refuse(let reason): throw RPCError(.failedPrecondition, reason)
        }
    }

    /// A gateway wants a checkpoint to stay alone.
    ///
    /// - Parameter fingerprint: The checkpoint.
    /// - Returns: The checkpoint.
    /// - Throws: ``RPCError`` with `FAILED_PRECONDITION` where it is not held, another one is still called for, or this
    ///   cannot be recorded.
    func settle(_ fingerprint: UInt64) throws(RPCError) -> HostModel {
        let outcome = self.state.withLock { state -> Result<(HostModel, [HostModel]), RPCError> in
            let idle = state.holdings.held.filter { $0 != fingerprint }.compactMap { state.models[$0]?.idleTime }.min()
            switch state.holdings.stays(fingerprint, idle: idle) {
            case .refuse(let reason): return .failure(RPCError(.failedPrecondition, reason))
            case .settle(let checkpoint, let leaving):
                guard let stays = state.models[fingerprint] else {
                    return .failure(RPCError(.internal, "a checkpoint that is held has no weights"))
                }
                do {
                    // Under the lock, which a call takes only beside a second checkpoint: record and memory agree.
                    try self.folder?
                        .write(
                            checkpoint.name.map { .init(checkpoint: $0, fingerprint: fingerprint.fingerprintText) },
                            of: .experts
                        )
                } catch {
                    return .failure(
                        RPCError(.failedPrecondition, "what is served after a restart cannot be recorded: \(error)")
                    )
                }
                state.holdings.settled(checkpoint)
                self.serving.withLock { $0 = stays }
                return .success((stays, leaving.compactMap { state.models.removeValue(forKey: $0) }))
            }
        }
        let (stays, leaving) = try outcome.get()
        for model in leaving {
            model.letGo()
            self.logger.info(
                "a checkpoint is let go",
                metadata: ["fingerprint": "\(model.fingerprint.fingerprintText)", "bytes": "\(model.weightBytes)"]
            )
        }
        return stays
    }

    // MARK: - Life

    /// Loads what is wanted and watches the files of what is held, until ``finish()`` or until the task is cancelled.
    ///
    /// - Parameter onFailure: Called once where served files changed; makes the host end.
    func run(onFailure: @escaping @Sendable () -> Void) async {
        await withDiscardingTaskGroup { group in
            group.addTask {
                for await wanted in self.work { await self.load(wanted) }
            }
            for await model in self.watched {
                // The watch alone: the task must not keep the weights.
                let (mapped, letGo) = (model.mapped, HostModel.waitUntilLetGo(model))
                group.addTask { await self.watch(mapped, until: letGo, onFailure) }
            }
        }
    }

    /// Ends ``run(onFailure:)``.
    func finish() {
        self.workSource.finish()
        self.watchedSource.finish()
        for model in self.all { model.letGo() }
    }

    /// Why nothing that was computed may be given out; nil while all is well.
    var failure: String? { self.state.withLock { $0.failure } }

    private func watch(
        _ mapped: WeightWatch,
        until letGo: @escaping @Sendable () async -> Void,
        _ onFailure: @escaping @Sendable () -> Void
    ) async {
        try? await mapped.during {
            self.logger.warning("\($0)")
        } onCompared: {
            self.logger.info(
                "mapped weights agree with their checksums",
                metadata: ["tensors": "\($0.tensors)", "bytes": "\($0.bytes)", "took": "\($0.duration)"]
            )
        } onFailure: { failure in
            self.logger.error("\(failure)")
            self.state.withLock { $0.failure = $0.failure ?? failure }
            onFailure()
        } _: {
            await letGo()
        }
    }

    /// Loads a checkpoint on a thread of its own, so that no task waits for a file.
    private func load(_ wanted: HostHoldings.Checkpoint) async {
        let start = ContinuousClock.now
        let served = self.served
        let outcome = Mutex<Result<HostModel, any Error>?>(nil)
        do {
            try await ComputeThread.run(name: "load", givesWay: true) {
                let result = Result { try self.load(wanted.name ?? "", wanted.fingerprint, served) }
                outcome.withLock { $0 = result }
            }
            guard let model = try outcome.withLock({ $0 })?.get() else { return }
            let isKept = self.state.withLock { state in
                guard state.holdings.loaded(wanted.fingerprint) else { return false }
                state.models[wanted.fingerprint] = model
                return true
            }
            guard isKept else { return model.letGo() }
            self.watchedSource.yield(model)
            self.logger.info(
                "a second checkpoint is held",
                metadata: [
                    "checkpoint": "\(wanted.name ?? "")", "fingerprint": "\(wanted.fingerprint.fingerprintText)",
                    "bytes": "\(model.weightBytes)", "took": "\(start.duration(to: .now))",
                ]
            )
        } catch {
            self.state.withLock { $0.holdings.failed(wanted.fingerprint, "\(error)", now: .now) }
            self.logger.error(
                "a second checkpoint cannot be held",
                metadata: ["checkpoint": "\(wanted.name ?? "")", "error": "\(error)"]
            )
        }
    }
}

extension ExpertHost {
    /// Loads another checkpoint as the host's own was loaded.
    ///
    /// - Parameters:
    ///   - name: The checkpoint's folder among the host's.
    ///   - fingerprint: What it must have.
    ///   - serving: The one beside which it is loaded.
    ///   - settings: The host's configuration as it was given.
    ///   - pool: The host's threads.
    ///   - maxMessageBytes: The longest message that the transport accepts.
    ///   - instance: The process's id.
    ///   - logger: Logs what happens.
    /// - Returns: The checkpoint with its weights.
    /// - Throws: ``ExpertHostError`` and `CheckpointError` that say why it cannot be held.
    static func load(
        _ name: String,
        _ fingerprint: UInt64,
        beside serving: HostModel,
        _ settings: ExpertHostConfiguration,
        pool: WorkPool,
        maxMessageBytes: Int,
        instance: String,
        logger: Logger
    ) throws -> HostModel {
        var configuration = settings
        guard let path = settings.checkpointsDirectory else {
            throw ExpertHostError(
                .configuration,
                "this host has no folder of checkpoints; start it with --checkpoints DIR"
            )
        }
        configuration.shardDirectories =
            try CheckpointFolder(path: path).parts(like: settings.shardDirectories, of: name)
        let shards = try HostShards(configuration, progress: nil)
        guard shards.first.fingerprint == fingerprint else {
            throw ExpertHostError(
                .mixedShards,
                "\(shards.first.directory) comes from the checkpoint \(shards.first.fingerprint.fingerprintText), but the gateway's "
                    + "\(name) is \(fingerprint.fingerprintText); copy parts of one cut to all machines"
            )
        }
        guard shards.first.configuration.modelWidth == serving.check.modelWidth else {
            throw ExpertHostError(
                .configuration,
                "\(name) has d_model \(shards.first.configuration.modelWidth), and what is served has \(serving.check.modelWidth); "
                    + "a model of another width needs hosts of its own"
            )
        }
        let needed = shards.checkpoints.reduce(0) { $0 + $1.expertByteCount }
        if let room = MemoryRoom.bytes, needed > room {
            throw ExpertHostError(
                .configuration,
                "the experts of \(name) take \(needed >> 20) MiB, and \(room >> 20) MiB are free beside the \(serving.weightBytes >> 20) MiB "
                    + "that are served; give the host more memory, or replace hosts one by one"
            )
        }
        return try HostModel(
            checkpoint: name,
            configuration: configuration,
            maxMessageBytes: maxMessageBytes,
            instance: instance,
            pool: pool,
            // Loading on the threads that serve would make their calls wait for whole matrices.
            loadingPool: WorkPool(threads: 1),
            shards: shards,
            logger: logger,
            progress: nil
        )
    }
}
