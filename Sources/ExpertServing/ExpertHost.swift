// SPDX-License-Identifier: Apache-2.0

internal import BatchScheduling
public import Checkpoints
public import Logging
public import Metrics
internal import NIOCore
internal import RPCCore
internal import RPCTransport
internal import ServiceKit
public import ServiceLifecycle
internal import SwitchModel
internal import SwitchyardProtos
public import SwitchyardTypes
internal import Telemetry
internal import TensorKernels

/// A process that holds experts of the sparse layers and runs their feed-forwards; it keeps nothing between calls.
///
/// Calls are checked on the event loop they arrive on, wait in a bounded queue, and are computed on a dedicated
/// thread: one pass over the experts' weights after another, each for one call or for several that wait for the same
/// layer. A small call that nothing waits beside is computed on the event loop itself (`HostAdmission.nextAtOnce`).
public final class ExpertHost: Sendable {
    /// The host's configuration.
    public let configuration: ExpertHostConfiguration

    /// The fingerprint of the checkpoint that is served, after a restart too.
    public var fingerprint: UInt64 { self.models.served.fingerprint }

    /// The experts of that checkpoint that the host holds, by sparse layer.
    public var held: [SparseLayer: [Int]] { self.models.served.held }

    private let logger: Logger
    private let passes: HostPasses
    private let pool: WorkPool
    /// The checkpoints that the host holds.
    let models: HostModels
    var expertRows: ExpertRowCounts { self.passes.expertRows }
    let queue: ForwardQueue
    let server: RPCServer
    let health: HealthRegistry

    /// Loads the experts; ``run()`` serves them.
    ///
    /// - Parameters:
    ///   - configuration: What to load and how to serve it.
    ///   - logger: Logs what happens.
    ///   - metrics: Where ``ExpertHostMetrics`` go; the process's own if omitted.
    ///   - progress: Receives loading progress.
    /// - Throws: ``ExpertHostError`` if the configuration is wrong, or the folders hold no experts or come from
    ///   different checkpoints; `CheckpointError` and `ModelError` if a folder cannot be loaded.
    public init(
        configuration: ExpertHostConfiguration,
        logger: Logger,
        metrics: any MetricsFactory = MetricsSystem.factory,
        progress: (@Sendable (WorkProgress) -> Void)? = nil
    ) throws {
        try configuration.validate()
        let given = configuration
        let (configuration, record) = try configuration.recorded()
        let shards = try HostShards(configuration, progress: progress)
        if let record { try Self.check(shards, against: record, logger: logger) }
        let pool = WorkPool(
            threads: configuration.threads,
            pinned: configuration.pinsThreads,
            spin: configuration.spin
        )
        self.pool = pool
        var limits = TransportLimits.forCalls(
            rows: configuration.maxRowsPerCall,
            width: shards.first.configuration.modelWidth
        )
        limits.receiveBudgetBytes = configuration.receiveBudgetBytes
        let (instance, maxMessageBytes) = (HostCard.makeInstanceID(), limits.maxReceiveMessageBytes)
        let model = try HostModel(
            checkpoint: record?.checkpoint,
            configuration: configuration,
            maxMessageBytes: maxMessageBytes,
            instance: instance,
            pool: pool,
            shards: shards,
            logger: logger,
            progress: progress
        )
        let models = HostModels(
            model,
            folder: configuration.checkpointsDirectory.map { CheckpointFolder(path: $0) },
            logger: logger
        ) {
            try Self.load(
                $0,
                $1,
                beside: $2,
                given,
                pool: pool,
                maxMessageBytes: maxMessageBytes,
                instance: instance,
                logger: logger
            )
        }
        let hostMetrics = ExpertHostMetrics(factory: metrics)
        let queue = ForwardQueue(
            limits: .init(calls: configuration.queueLimit, rows: configuration.queueRowLimit),
            batching: .init(rows: configuration.batchRowLimit, window: configuration.batchWindow),
            metrics: hostMetrics
        )
        let health = HealthRegistry(services: [ExpertHostMethods.service])
        let passes = HostPasses(
            queue: queue,
            pool: pool,
            metrics: hostMetrics,
            logger: logger,
            stages: configuration.stages
        )
        let service = ExpertHostService(
            models: models,
            queue: queue,
            metrics: hostMetrics,
            logger: logger,
            // Bound threads compute where they are bound.
            passes: configuration.computesOnEventLoops && !configuration.pinsThreads ? passes : nil,
            stages: configuration.stages
        )
        let methods = service.methods + HealthService(registry: health).methods
        self.configuration = configuration
        self.logger = logger
        self.passes = passes
        self.models = models
        self.queue = queue
        self.health = health
        var listener = RPCServerConfiguration(
            host: configuration.host,
            port: configuration.port,
            limits: limits,
            timing: .dataPlane,
            drainGrace: configuration.drainTimeout,
            security: configuration.security
        )
        listener.probeServices = [HealthService.name]
        listener.reservation = configuration.reservation
        listener.stages = configuration.stages
        self.server = RPCServer(
            configuration: listener,
            methods: configuration.reflection
                ? methods + (try ReflectionService(describing: methods)).methods : methods,
            logger: logger
        )
    }

    /// The address that the host listens on; suspends until it does.
    ///
    /// - Returns: The host's name and port.
    /// - Throws: What prevented the host from listening.
    public func boundAddress() async throws -> (host: String, port: Int) {
        let address = try await self.server.boundAddress()
        // Once the address is known, the health service reports that the host takes calls, unless it already drains.
        self.health.setAll(.serving)
        return address
    }

    /// Drains: tells its clients, finishes calls in flight, and closes; then ``run()`` returns.
    ///
    /// From now on health reports `NOT_SERVING`, and every answer says that the host drains. Then connections get
    /// GOAWAY, in two steps a round trip apart, so that calls that a gateway made before it knew are still computed;
    /// a later one is never processed, and the gateway knows that. The drain limit ends anything that takes longer.
    public func beginDraining() {
        self.logger.info("draining", metadata: ["limit": "\(self.configuration.drainTimeout)"])
        self.health.beginDraining()
        self.queue.beginLeaving()
        self.server.beginGracefulShutdown()
    }

    /// Serves until draining has ended, or until the task is cancelled.
    ///
    /// - Throws: What prevents the host from listening, and `ComputeThread.StartError`.
    public func run() async throws {
        defer {
            self.queue.beginDraining()
        }
        try await withGracefulShutdownHandler {
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask {
                    try await ComputeThread.run(name: "experts") {
                        self.pool.bindCallingThread()
                        self.computeCalls()
                    }
                }
                group.addTask {
                    // Calls in flight end before the server does; then nothing is left to compute.
                    defer {
                        self.queue.beginDraining()
                        self.models.finish()
                    }
                    try await self.server.run()
                    if let failure = self.models.failure {
                        throw CheckpointError(code: .fingerprintMismatch, message: failure)
                    }
                }
                group.addTask { await self.models.run { self.beginDraining() } }
                group.addTask {
                    let address = try await self.boundAddress()
                    let model = self.models.served
                    self.logger.info(
                        "serving experts",
                        metadata: [
                            "address": "\(AddressText.of(host: address.host, port: address.port))",
                            "fingerprint": "\(model.fingerprint.fingerprintText)",
                            "experts": "\(model.held.values.reduce(0) { $0 + $1.count })",
                            "layers": "\(model.held.count)", "memory": "\(mebibytes(model.weightBytes))",
                            "weights": "\(model.weights)",
                            "zone": "\(self.configuration.zone ?? "none")", "kernels": "\(KernelReport.describe())",
                        ]
                    )
                }
                try await group.waitForAll()
            }
            let load = self.queue.load
            self.logger.info(
                "stopped",
                metadata: [
                    "calls": "\(load.computedCalls)", "rows": "\(load.computedRows)", "passes": "\(load.passes)",
                    "expert-reads": "\(load.expertReads)",
                ]
            )
        } onGracefulShutdown: {
            self.beginDraining()
        }
    }

    /// The compute thread.
    private func computeCalls() {
        let courtesy = CourtesyOfThread()
        while case .compute(let jobs) = self.queue.next() { self.passes.compute(jobs, courtesy) }
    }
}

/// A human-readable number of bytes.
private func mebibytes(_ bytes: Int) -> String {
    let tenths = (bytes * 10 + (1 << 19)) >> 20
    return "\(tenths / 10).\(tenths % 10) MiB"
}

extension ExpertHost: Service {}

extension TransportLimits {
    /// The smallest limits that a call of `rows` rows fits into.
    fileprivate static func forCalls(rows: Int, width: Int) -> TransportLimits {
        var limits = TransportLimits.dataPlane
        // The rows and as many gradients, and at most 32 bytes per group.
        let bytes = 2 * rows * width * MemoryLayout<Float>.size + (1 << 20)
        limits.maxReceiveMessageBytes = max(limits.maxReceiveMessageBytes, bytes)
        return limits
    }
}
