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
    public var fingerprint: UInt64 { self.lanes.serving.fingerprint }

    /// The engine, for embedding the gateway in other programs.
    public var engine: InferenceEngine { self.lanes.serving.engine }

    /// The connections to the expert hosts.
    public var cluster: ExpertCluster { self.lanes.serving.cluster }

    private let logger: Logger
    let gate: ServingGate
    let lanes: ModelLanes
    var weights: WeightWatch { self.lanes.serving.weights }
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
        let given = configuration
        let (configuration, record) = try configuration.recorded()
        let files = try ModelFiles(configuration, logger: logger, progress: progress)
        if let record { try files.check(against: record, logger: logger) }
        let pool = WorkPool(
            threads: configuration.threads,
            pinned: configuration.pinsThreads,
            spin: configuration.cluster.spin
        )
        let lane = try ModelLane(
            checkpoint: record?.checkpoint,
            files: files,
            configuration: configuration,
            pool: pool,
            metrics: metrics,
            logger: logger,
            progress: progress
        )
        if files.checkpoint.configuration.hasExperts {
            if !lane.isBounded { logger.notice("\(Self.unboundedNotice)") }
            for sentence in configuration.couplings { logger.warning("\(sentence)") }
            lane.cluster.logAudits()
        }
        let lanes = ModelLanes(
            lane,
            alias: configuration.modelName,
            folder: configuration.checkpointsDirectory.map { CheckpointFolder(path: $0) },
            logger: logger
        ) { name, serving in
            try ModelLane.load(name, beside: serving, given, pool: pool, metrics: metrics, logger: logger)
        }
        let gate = ServingGate()
        let health = HealthRegistry(services: [GatewayMethods.service])
        let service = GatewayService(
            lanes: lanes,
            gate: gate,
            takesRemoteRollouts: configuration.takesRemoteRollouts,
            logger: logger
        )
        self.calls = GatewayCalls(service: service)
        var authorize: (@Sendable (ServerContext) -> RPCError?)?
        if let tokens = configuration.tokens { authorize = { tokens.check($0) } }
        let methods = service.methods + service.inferenceMethods + HealthService(registry: health).methods
        self.configuration = configuration
        self.lanes = lanes
        self.logger = logger
        self.gate = gate
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
        listener.admit = { GatewayService.refusal(of: $0, engine: lanes.serving.engine) }
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
        self.lanes.beginDraining()
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
                // It may be unloaded while the gateway runs on.
                group.addTask { [weak first = self.lanes.serving] in
                    try await first?.run(logger: self.logger) { self.beginDraining() }
                    return false
                }
                group.addTask {
                    await self.lanes.runOthers { self.beginDraining() }
                    return false
                }
                group.addTask {
                    await self.becomeReady()
                    return false
                }
                if let path = self.configuration.rolloutFile {
                    group.addTask {
                        await RolloutFile(path: path, lanes: self.lanes, logger: self.logger).run()
                        return false
                    }
                }
                group.addTask {
                    try await self.server.run()
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
                    guard running == 0 else { continue }
                    for lane in self.lanes.all { lane.letGo() }
                    group.cancelAll()
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
