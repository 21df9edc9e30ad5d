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

    /// The fingerprint of the checkpoint that the experts come from.
    public let fingerprint: UInt64

    /// The experts that the host holds, by sparse layer.
    public let held: [SparseLayer: [Int]]

    private let logger: Logger
    private let passes: HostPasses
    let weightBytes: Int
    let weightType: String
    private let weights: String
    private let pool: WorkPool
    let layers: [SparseLayer]
    let expertCount: Int
    var expertRows: ExpertRowCounts { self.passes.expertRows }
    let queue: ForwardQueue
    /// The files from which weights are served; none where they are in memory.
    let mapped: WeightWatch
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
        let shards = try HostShards(configuration, progress: progress)
        let pool = WorkPool(
            threads: configuration.threads,
            pinned: configuration.pinsThreads,
            spin: configuration.spin
        )
        self.pool = pool
        let (experts, compared) = try PartCheck.during(shards.checkpoints) {
            if configuration.prefault { try shards.prefault(pool: pool, progress: progress) }
            return try LocalExperts(
                checkpoints: shards.checkpoints,
                pool: pool,
                storage: configuration.storage,
                progress: progress
            )
        }
        logger.debug("files agree with their manifests", metadata: ["bytes": "\(compared)"])
        let held = experts.held
        guard !held.isEmpty else { throw ExpertHostError.noExperts(in: configuration) }
        let model = shards.first.configuration
        let hostMetrics = ExpertHostMetrics(factory: metrics)
        let queue = ForwardQueue(
            limits: .init(calls: configuration.queueLimit, rows: configuration.queueRowLimit),
            batching: .init(rows: configuration.batchRowLimit, window: configuration.batchWindow),
            metrics: hostMetrics
        )
        var limits = TransportLimits.forCalls(rows: configuration.maxRowsPerCall, width: model.modelWidth)
        limits.receiveBudgetBytes = configuration.receiveBudgetBytes
        let check = ForwardCheck(
            fingerprint: shards.first.fingerprint,
            modelWidth: model.modelWidth,
            expertCount: model.expertCount,
            sparseLayers: Set(model.sparseLayers),
            held: held.mapValues { Set($0) },
            maxRows: configuration.maxRowsPerCall,
            weightType: experts.weightType
        )
        let card = HostCard(
            shards: shards,
            held: held,
            weightType: experts.weightType,
            weightBytes: experts.byteCount,
            configuration: configuration,
            maxMessageBytes: limits.maxReceiveMessageBytes
        )
        let health = HealthRegistry(services: [ExpertHostMethods.service])
        let mapped = WeightWatch(
            shards.checkpoints.filter { $0.packing != nil },
            isCompared: configuration.prefault
        )
        let passes = HostPasses(
            experts: ExpertCompute(experts: experts, modelWidth: model.modelWidth),
            expertCount: model.expertCount,
            queue: queue,
            mapped: mapped,
            metrics: hostMetrics,
            logger: logger,
            stages: configuration.stages
        )
        let service = ExpertHostService(
            check: check,
            queue: queue,
            mapped: mapped,
            card: card,
            metrics: hostMetrics,
            logger: logger,
            // Bound threads compute where they are bound.
            passes: configuration.computesOnEventLoops && !configuration.pinsThreads ? passes : nil,
            stages: configuration.stages
        )
        let methods = service.methods + HealthService(registry: health).methods
        self.configuration = configuration
        self.fingerprint = shards.first.fingerprint
        self.held = held
        self.logger = logger
        self.passes = passes
        self.weightBytes = experts.byteCount
        self.weightType = experts.weightType.map { "\($0)" } ?? "none"
        self.layers = model.sparseLayers
        self.expertCount = model.expertCount
        self.weights = experts.weightType.map { "\($0)\(shards.isPacked ? ", mapped" : "")" } ?? "none"
        self.queue = queue
        self.mapped = mapped
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
                    }
                    try await self.mapped.during {
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
                }
                group.addTask {
                    let address = try await self.boundAddress()
                    self.logger.info(
                        "serving experts",
                        metadata: [
                            "address": "\(AddressText.of(host: address.host, port: address.port))",
                            "fingerprint": "\(self.fingerprint.fingerprintText)",
                            "experts": "\(self.held.values.reduce(0) { $0 + $1.count })",
                            "layers": "\(self.held.count)", "memory": "\(mebibytes(self.weightBytes))",
                            "weights": "\(self.weights)",
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
