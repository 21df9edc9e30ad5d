// SPDX-License-Identifier: Apache-2.0

internal import BatchScheduling
public import Checkpoints
internal import ExpertPooling
public import Logging
public import Metrics
internal import RPCCore
internal import RPCTransport
internal import ServiceKit
public import ServiceLifecycle
internal import SwitchModel
internal import SwitchyardProtos
internal import SwitchyardTypes
internal import Synchronization
internal import TensorKernels
internal import Tokenization

/// The model as one service: embeddings, attention, routing and generation here, the experts on their hosts.
///
/// It listens at once, but takes requests (and says `SERVING`) only when every expert is held by a verified host, or
/// after a while regardless: then tokens for the missing experts are dropped, as each request's policy allows.
public final class Gateway: Sendable {
    /// The gateway's configuration.
    public let configuration: GatewayConfiguration

    /// The fingerprint of the checkpoint that is served.
    public let fingerprint: UInt64

    /// The engine, for embedding the gateway in other programs.
    public let engine: InferenceEngine

    /// The connections to the expert hosts.
    public let cluster: ExpertCluster

    private let logger: Logger
    let gate: ServingGate
    let weights: WeightWatch
    let server: RPCServer
    let health: HealthRegistry
    let listeners = Mutex<[any GatewayListener]>([])

    /// The gateway's calls, for listeners beside the one of gRPC.
    public let calls: GatewayCalls

    private static let unboundedNotice =
        "the experts' outputs are checked for finite values only, since no placement.json bounds them; serve the "
        + "gateway's part of a checkpoint cut by this version to have them checked for size too"

    /// Loads the model; ``run()`` serves it.
    ///
    /// - Parameters:
    ///   - configuration: What to load and how to serve it.
    ///   - logger: Logs what happens.
    ///   - metrics: Where ``GatewayMetrics`` go; the process's own if omitted.
    ///   - progress: Receives loading progress.
    /// - Throws: ``GatewayError`` if the configuration is wrong or does not fit the placement; `CheckpointError`,
    ///   `ModelError` and `TokenizerError` if the folder cannot be loaded.
    public init(
        configuration: GatewayConfiguration,
        logger: Logger,
        metrics: any MetricsFactory = MetricsSystem.factory,
        progress: (@Sendable (WorkProgress) -> Void)? = nil
    ) throws {
        let files = try ModelFiles(configuration, logger: logger, progress: progress)
        let (checkpoint, placement, tokenizer) = (files.checkpoint, files.placement, files.tokenizer)
        let batchSlots = configuration.engine.scheduler.batchSlots
        let (model, compared) = try PartCheck.during([checkpoint]) {
            try SwitchTransformer(
                checkpoint: checkpoint,
                pool: WorkPool(
                    threads: configuration.threads,
                    pinned: configuration.pinsThreads,
                    spin: configuration.cluster.spin
                ),
                storage: configuration.storage,
                progress: progress
            )
        }
        logger.debug("files agree with the manifest", metadata: ["bytes": "\(compared)"])
        let cluster = ExpertCluster(
            configuration: configuration.cluster,
            model: checkpoint.configuration,
            fingerprint: checkpoint.fingerprint,
            placement: placement?.table,
            checkpoint: checkpoint,
            logger: logger
        )
        let bounds = placement?.bounds ?? [:]
        if checkpoint.configuration.hasExperts {
            if bounds.isEmpty { logger.notice("\(Self.unboundedNotice)") }
            for sentence in configuration.couplings { logger.warning("\(sentence)") }
        }
        if checkpoint.configuration.hasExperts { cluster.logAudits() }
        let experts = RemoteExperts(cluster: cluster, fingerprint: checkpoint.fingerprint, bounds: bounds)
        let engine = InferenceEngine(
            model: model,
            experts: experts,
            tokenizer: tokenizer,
            configuration: configuration.engine,
            metricsFactory: metrics,
            logger: logger
        )
        var limits = configuration.limits
        // The inputs of a call wait together.
        limits.maxInputs = min(limits.maxInputs, configuration.engine.scheduler.queueLimit)
        let gate = ServingGate()
        let weights = WeightWatch([checkpoint], isCompared: true)
        let health = HealthRegistry(services: [GatewayMethods.service])
        let service = GatewayService(
            handler: RequestHandler(
                reader: RequestReader(
                    tokenizer: tokenizer,
                    model: checkpoint.configuration,
                    limits: limits,
                    batchSlots: batchSlots
                ),
                engine: engine,
                receipts: ReceiptMaker(
                    fingerprint: checkpoint.fingerprint,
                    model: checkpoint.configuration,
                    gatewayWeights: model.weightType,
                    rowType: configuration.cluster.wireType,
                    capacity: configuration.engine.capacityPolicy,
                    expertWeights: { cluster.expertWeightTypes }
                )
            ),
            gate: gate,
            weights: weights,
            model: ModelDescription(
                checkpoint,
                name: configuration.modelName ?? Self.name(of: checkpoint),
                weightType: model.weightType,
                limits: limits,
                batchSlots: batchSlots
            ),
            cluster: ClusterReporter(engine: engine, cluster: cluster, fingerprint: checkpoint.fingerprint),
            logger: logger
        )
        self.calls = GatewayCalls(service: service, engine: engine)
        var authorize: (@Sendable (ServerContext) -> RPCError?)?
        if let tokens = configuration.tokens { authorize = { tokens.check($0) } }
        let methods = service.methods + service.inferenceMethods + HealthService(registry: health).methods
        self.configuration = configuration
        self.fingerprint = checkpoint.fingerprint
        self.engine = engine
        self.cluster = cluster
        self.logger = logger
        self.gate = gate
        self.weights = weights
        self.health = health
        var listener = RPCServerConfiguration(
            host: configuration.host,
            port: configuration.port,
            timing: .clientPlane(of: configuration),
            drainGrace: configuration.drainTimeout,
            security: configuration.security,
            authorize: authorize
        )
        listener.probeServices = [HealthService.name]
        listener.limits.maxConnections = configuration.maxConnections
        listener.limits.connectionShare = configuration.connectionShare
        listener.reservation = configuration.reservation
        listener.admit = { GatewayService.refusal(of: $0, engine: engine) }
        listener.limits.receiveBudgetBytes = configuration.receiveBudgetBytes
        self.server = RPCServer(
            configuration: listener,
            methods: configuration.reflection
                ? methods + (try ReflectionService(describing: methods)).methods : methods,
            logger: logger
        )
    }

    /// Loads the tokenizer of a checkpoint, and says what is unusual about it.
    ///
    /// - Parameters:
    ///   - checkpoint: The whole checkpoint or its gateway part.
    ///   - logger: Takes a warning where there is no tokenizer, or where it has ids that the model lacks.
    /// - Returns: The tokenizer; nil where the checkpoint has none.
    /// - Throws: `TokenizerError` if its files are malformed.
    static func tokenizer(of checkpoint: Checkpoint, logger: Logger) throws -> Tokenizer? {
        guard let tokenizer = try Tokenizer.find(in: checkpoint.directory) else {
            logger.warning(
                "the model has no tokenizer.json, no spiece.model and no list of characters: requests take ids only, and responses have no text"
            )
            return nil
        }
        let limit = checkpoint.configuration.vocabularySize
        if tokenizer.vocabularySize > limit {
            logger.warning(
                "the tokenizer has ids that the model lacks; texts that need one are refused",
                metadata: ["tokenizer_ids": "\(tokenizer.vocabularySize)", "vocab_size": "\(limit)"]
            )
        }
        return tokenizer
    }

    /// The address that the gateway listens on; suspends until it does.
    ///
    /// - Returns: The host's name and port.
    /// - Throws: What prevented the gateway from listening.
    public func boundAddress() async throws -> (host: String, port: Int) {
        try await self.server.boundAddress()
    }

    /// Lets another listener share the gateway's life: ``run()`` runs it, and ``beginDraining()`` drains it.
    ///
    /// - Parameter listener: The listener; it must come before ``run()``.
    public func attach(_ listener: any GatewayListener) { self.listeners.withLock { $0.append(listener) } }

    /// Suspends until the gateway takes requests, or never will.
    ///
    /// - Throws: `CancellationError` if the task was cancelled first.
    public func waitUntilServing() async throws {
        await self.gate.waitUntilDecided()
        try Task.checkCancellation()
    }

    /// Refuses new requests and finishes current ones; then ``run()`` returns.
    public func beginDraining() {
        self.logger.info("draining")
        self.gate.close()
        self.health.beginDraining()
        self.engine.beginDraining()
        self.server.beginGracefulShutdown()
        for listener in self.listeners.withLock({ $0 }) { listener.beginDraining() }
    }

    /// Serves until draining has ended, or until the task is cancelled.
    ///
    /// - Throws: What prevents the gateway from listening, and `ComputeThread.StartError`.
    public func run() async throws {
        guard let tokens = self.configuration.tokens else { return try await self.serve() }
        try await tokens.whileWatched { try await self.serve() }
    }

    private func serve() async throws {
        defer {
            self.gate.close()
        }
        try await withGracefulShutdownHandler {
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
                    await self.becomeReady()
                    return false
                }
                group.addTask {
                    try await self.weights.during {
                        self.logger.warning("\($0)")
                    } onCompared: {
                        self.logger.info(
                            "mapped weights agree with their checksums",
                            metadata: [
                                "tensors": "\($0.tensors)", "bytes": "\($0.bytes)", "took": "\($0.duration)",
                            ]
                        )
                    } onFailure: {
                        self.logger.error("\($0)")
                        self.beginDraining()
                    } _: {
                        try await self.server.run()
                    }
                    return true
                }
                let listeners = self.listeners.withLock { $0 }
                for listener in listeners {
                    group.addTask {
                        try await listener.run()
                        return true
                    }
                }
                // The servers end last: by then every request has been answered.
                var running = 1 + listeners.count
                for try await isServer in group where isServer {
                    running -= 1
                    if running == 0 { group.cancelAll() }
                }
            }
        } onGracefulShutdown: {
            self.beginDraining()
        }
    }

    /// Waits for the expert hosts, for as long as the configuration says, and opens the gate.
    private func becomeReady() async {
        let start = ContinuousClock.now
        await withTaskGroup(of: Void.self) { group in
            group.addTask { await self.cluster.waitUntilComplete() }
            group.addTask { try? await Task.sleep(for: self.configuration.readyTimeout) }
            await group.next()
            group.cancelAll()
        }
        guard !Task.isCancelled else {
            return
        }
        if !self.cluster.view.isComplete {
            self.logger.warning(
                "some experts have no verified host; their tokens are dropped until one joins",
                metadata: ["waited": "\(start.duration(to: .now))"]
            )
        }
        // First the health service, so that it agrees with an open gate.
        self.health.setAll(.serving)
        self.gate.open()
        self.logger.info("serving", metadata: ["pools": "\(self.configuration.cluster.pools.count)"])
    }

    static func name(of checkpoint: Checkpoint) -> String {
        let path = checkpoint.manifest?.source ?? checkpoint.directory
        return path.split(separator: "/").last.map(String.init) ?? path
    }
}

extension Gateway: Service {}

extension ConnectionTiming {
    /// The timing of clients' connections, with the age that a gateway's configuration allows them.
    fileprivate static func clientPlane(of configuration: GatewayConfiguration) -> ConnectionTiming {
        var timing = Self.clientPlane
        guard configuration.maxConnectionAge > .zero else { return timing }
        timing.maxAge = configuration.maxConnectionAge
        timing.maxAgeGrace = configuration.maxConnectionAgeGrace
        return timing
    }
}
