// SPDX-License-Identifier: Apache-2.0

internal import BatchScheduling
internal import Checkpoints
internal import Logging
internal import Metrics
internal import ServiceKit
internal import SwitchModel
internal import SwitchyardProtos
internal import SwitchyardTypes
internal import TensorKernels
internal import Tokenization

/// One checkpoint in a gateway: its dense half, an engine, and connections to the hosts that hold its experts.
///
/// A gateway has one, and a second one beside it while a rollout runs. The two share the threads that compute and nothing
/// else, so neither can change the other's bits.
final class ModelLane: Sendable {
    /// The folder among the gateway's checkpoints; nil for the model that the settings name.
    let checkpoint: String?
    let fingerprint: UInt64
    let engine: InferenceEngine
    let cluster: ExpertCluster
    let weights: WeightWatch
    let handler: RequestHandler
    let description: ModelDescription
    let reporter: ClusterReporter
    /// Whether the bounds of the experts' outputs are known.
    let isBounded: Bool

    private let (untilLetGo, letGoSource) = AsyncStream.makeStream(of: Never.self)

    /// Loads a model.
    ///
    /// - Parameters:
    ///   - checkpoint: The checkpoint's name; nil for what the settings name.
    ///   - files: The open files.
    ///   - configuration: The gateway's configuration.
    ///   - pool: Threads that compute.
    ///   - loadingPool: Threads that share the loading; nil for those that compute.
    ///   - metrics: Where the engine counts.
    ///   - logger: Logs what happens.
    ///   - progress: Receives loading progress.
    /// - Throws: `CheckpointError` and `ModelError`.
    init(
        checkpoint: String?,
        files: ModelFiles,
        configuration: GatewayConfiguration,
        pool: WorkPool,
        loadingPool: WorkPool? = nil,
        metrics: any MetricsFactory,
        logger: Logger,
        progress: (@Sendable (WorkProgress) -> Void)?
    ) throws {
        let source = files.checkpoint
        let batchSlots = configuration.engine.scheduler.batchSlots
        let (model, compared) = try PartCheck.during([source]) {
            try SwitchTransformer(
                checkpoint: source,
                pool: pool,
                loadingPool: loadingPool,
                storage: configuration.storage,
                progress: progress
            )
        }
        logger.debug("files agree with the manifest", metadata: ["bytes": "\(compared)"])
        let cluster = ExpertCluster(
            configuration: configuration.cluster,
            model: source.configuration,
            fingerprint: source.fingerprint,
            placement: files.placement?.table,
            checkpoint: source,
            holding: checkpoint,
            logger: logger
        )
        let bounds = files.placement?.bounds ?? [:]
        let name = checkpoint ?? Self.name(of: source)
        var engineConfiguration = configuration.engine
        engineConfiguration.modelName = name
        let engine = InferenceEngine(
            model: model,
            experts: RemoteExperts(cluster: cluster, fingerprint: source.fingerprint, bounds: bounds),
            tokenizer: files.tokenizer,
            configuration: engineConfiguration,
            metricsFactory: metrics,
            logger: logger
        )
        var limits = configuration.limits
        // The inputs of a call wait together.
        limits.maxInputs = min(limits.maxInputs, configuration.engine.scheduler.queueLimit)
        self.checkpoint = checkpoint
        self.fingerprint = source.fingerprint
        self.engine = engine
        self.cluster = cluster
        self.weights = WeightWatch([source], isCompared: true)
        self.isBounded = !bounds.isEmpty
        self.handler = RequestHandler(
            reader: RequestReader(
                tokenizer: files.tokenizer,
                model: source.configuration,
                limits: limits,
                batchSlots: batchSlots
            ),
            engine: engine,
            receipts: ReceiptMaker(
                fingerprint: source.fingerprint,
                model: source.configuration,
                gatewayWeights: model.weightType,
                rowType: configuration.cluster.wireType,
                capacity: configuration.engine.capacityPolicy,
                expertWeights: { cluster.expertWeightTypes }
            )
        )
        self.description = ModelDescription(
            source,
            name: name,
            weightType: model.weightType,
            limits: limits,
            batchSlots: batchSlots
        )
        self.reporter = ClusterReporter(engine: engine, cluster: cluster, fingerprint: source.fingerprint)
    }

    /// The last part of the path that a checkpoint was read from.
    static func name(of checkpoint: Checkpoint) -> String {
        let path = checkpoint.manifest?.source ?? checkpoint.directory
        return path.split(separator: "/").last.map(String.init) ?? path
    }

    /// The model's description with the experts served at the moment.
    ///
    /// It is put together from the reports of all hosts, which is too much for each request.
    var currentDescription: ModelDescription {
        var description = self.description
        description.sparseLayers = self.reporter.servedExperts
        return description
    }

    /// Computes and keeps the connections until ``letGo()``, or until the task is cancelled.
    ///
    /// - Parameters:
    ///   - logger: Says what happens to the files.
    ///   - onFailure: Called once where served files changed.
    /// - Throws: `ComputeThread.StartError`, and `CheckpointError` where served files changed.
    func run(logger: Logger, onFailure: @escaping @Sendable () -> Void) async throws {
        try await withThrowingTaskGroup(of: Bool.self) { group in
            group.addTask {
                try await self.cluster.run()
                return false
            }
            group.addTask {
                try await self.engine.run()
                return false
            }
            group.addTask {
                try await self.weights.during {
                    logger.warning("\($0)")
                } onCompared: {
                    logger.info(
                        "mapped weights agree with their checksums",
                        metadata: ["tensors": "\($0.tensors)", "bytes": "\($0.bytes)", "took": "\($0.duration)"]
                    )
                } onFailure: {
                    logger.error("\($0)")
                    onFailure()
                } _: {
                    for await _ in self.untilLetGo {}
                }
                return true
            }
            for try await isOver in group where isOver {
                self.cluster.beginEnding()
                group.cancelAll()
            }
        }
    }

    /// Ends ``run(logger:onFailure:)``; no request runs any more.
    func letGo() {
        self.engine.beginDraining()
        self.letGoSource.finish()
    }
}

extension ModelLane {
    /// Loads another checkpoint of a gateway beside the one that it serves.
    ///
    /// - Parameters:
    ///   - name: The checkpoint's folder among the gateway's.
    ///   - serving: The one that is served.
    ///   - settings: The gateway's configuration as it was given.
    ///   - pool: The gateway's threads.
    ///   - metrics: Where the engine counts.
    ///   - logger: Logs what happens.
    /// - Returns: The lane; nothing runs yet.
    /// - Throws: ``GatewayError`` and `CheckpointError` that say why it cannot be served.
    static func load(
        _ name: String,
        beside serving: ModelLane,
        _ settings: GatewayConfiguration,
        pool: WorkPool,
        metrics: any MetricsFactory,
        logger: Logger
    ) throws -> ModelLane {
        guard let path = settings.checkpointsDirectory else {
            throw GatewayError(
                .configuration,
                "this gateway has no folder of checkpoints; start it with --checkpoints DIR"
            )
        }
        let configuration = try settings.serving(name, from: CheckpointFolder(path: path))
        let files = try ModelFiles(configuration, logger: logger)
        let (new, old) = (files.checkpoint.configuration, serving.engine.model.configuration)
        guard files.checkpoint.fingerprint != serving.fingerprint else {
            throw GatewayError(
                .checkpoint,
                "\(configuration.modelDirectory) is the checkpoint that is served already (\(serving.fingerprint.fingerprintText))"
            )
        }
        let vocabularies = (files.tokenizer?.vocabularySize, serving.engine.tokenizer?.vocabularySize)
        guard new.vocabularySize == old.vocabularySize, vocabularies.0 == vocabularies.1 else {
            throw GatewayError(
                .checkpoint,
                "\(name) has \(new.vocabularySize) ids, and what is served has \(old.vocabularySize), or their tokenizers differ; "
                    + "clients count on one vocabulary, so serve it with a gateway of its own"
            )
        }
        guard new.modelWidth == old.modelWidth, new.hasExperts == old.hasExperts else {
            throw GatewayError(
                .checkpoint,
                "\(name) has d_model \(new.modelWidth), and what is served has \(old.modelWidth), or one of them has no experts; "
                    + "a model of another shape needs hosts and a gateway of its own"
            )
        }
        let needed = files.checkpoint.byteCountWithoutExperts
        if let room = MemoryRoom.bytes, needed > room {
            throw GatewayError(
                .configuration,
                "the dense half of \(name) takes \(needed >> 20) MiB, and \(room >> 20) MiB are free beside the one that is served; "
                    + "give the gateway more memory, or replace gateways one by one"
            )
        }
        let lane = try ModelLane(
            checkpoint: name,
            files: files,
            configuration: configuration,
            pool: pool,
            // Loading on the threads that serve would make their steps wait for whole matrices.
            loadingPool: WorkPool(threads: 1),
            metrics: metrics,
            logger: logger,
            progress: nil
        )
        if new.hasExperts { lane.cluster.logAudits() }
        return lane
    }
}
