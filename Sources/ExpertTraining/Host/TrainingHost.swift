// SPDX-License-Identifier: Apache-2.0

public import Checkpoints
public import Logging
public import Metrics
internal import RPCCore
public import RPCTransport
internal import ServiceKit
public import ServiceLifecycle
internal import SwitchyardProtos
internal import SwitchyardTypes
public import Telemetry
internal import TensorKernels

/// The configuration of a training host.
public struct TrainingHostConfiguration: Sendable {
    /// The address to listen on.
    public var host = "127.0.0.1"
    /// The port to listen on; 0 lets the system choose.
    public var port = 7401
    /// The port, bound before anything slow; nil binds it when the service begins to listen.
    public var reservation: PortReservation?
    /// Whether trainers' connections are encrypted.
    public var security = ServerSecurity.plaintext
    /// Threads that compute; one call uses all of them.
    public var threads = 1
    /// Whether each of them is pinned to its own processor.
    public var pinsThreads = false
    /// How long an idle one of them looks for work before it sleeps.
    public var spin = WorkPool.defaultSpin
    /// Parts of a checkpoint on this machine, or a whole one, for adapters that are trained beside its weights: the trainer need
    /// not bring these then.
    public var shardDirectories: [String] = []
    /// The folder for snapshots; nil for none on this machine.
    public var snapshotFolder: String?
    /// How long calls may take to finish once draining has begun.
    public var drainTimeout = Duration.seconds(20)
    /// Bytes of calls that have arrived in part.
    public var receiveBudgetBytes = 512 << 20
    /// Whether clients may ask for the services and messages through gRPC server reflection.
    public var reflection = true

    /// Creates a configuration; everything has its default.
    public init() {}
}

/// A process that holds some of a model's experts while they are trained.
///
/// It is told by the trainer which experts it holds, and gets their weights from it. What it holds is a function of that state
/// and of the calls since, so that a replica computes the same bits, and a new host those of one that died.
public final class TrainingHost: Sendable {
    /// This service's name in metrics.
    public static let component = "training-host"

    /// The host's configuration.
    public let configuration: TrainingHostConfiguration

    private let logger: Logger
    private let jobs: HostJobs
    private let metrics: TrainingHostMetrics
    private let bases: [Checkpoint]
    private let server: RPCServer
    private let health = HealthRegistry(services: [TrainingHostMethods.service])

    /// Makes a host; ``run()`` serves it.
    ///
    /// - Parameters:
    ///   - configuration: How it serves.
    ///   - logger: Logs what happens.
    ///   - metrics: Where its counts go; the process's own if omitted.
    /// - Throws: Where a folder for snapshots cannot be made, a part of a checkpoint cannot be used, or this build's descriptors
    ///   are damaged.
    public init(
        configuration: TrainingHostConfiguration,
        logger: Logger,
        metrics: any MetricsFactory = MetricsSystem.factory
    ) throws {
        if let folder = configuration.snapshotFolder { try SnapshotFolder.makeRoot(folder) }
        self.bases = try configuration.shardDirectories.map(Self.base)
        self.configuration = configuration
        self.logger = logger
        self.metrics = TrainingHostMetrics(factory: metrics)
        self.jobs = HostJobs()
        let service = TrainingHostService(jobs: self.jobs, metrics: self.metrics)
        let methods = service.methods + HealthService(registry: self.health).methods
        var limits = TransportLimits.dataPlane
        limits.receiveBudgetBytes = configuration.receiveBudgetBytes
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
        self.server = RPCServer(
            configuration: listener,
            methods: configuration.reflection
                ? methods + (try ReflectionService(describing: methods)).methods : methods,
            logger: logger
        )
    }

    /// Opens weights that an adapter is trained beside.
    ///
    /// - Parameter directory: A part of a checkpoint, or a whole one.
    /// - Returns: The part.
    /// - Throws: `CheckpointError` that names the file and what is wrong with it.
    public static func base(_ directory: String) throws(CheckpointError) -> Checkpoint {
        let checkpoint = try Checkpoint.open(directory)
        guard checkpoint.manifest?.packing == nil else {
            throw CheckpointError(
                code: .invalidArgument,
                message: "is packed for hosts that serve; cut a shard without --packed for one that trains",
                file: directory
            )
        }
        guard !checkpoint.heldExperts.isEmpty else {
            throw CheckpointError(
                code: .invalidArgument,
                message: "holds no experts; name a shard that does",
                file: directory
            )
        }
        try checkpoint.validate()
        return checkpoint
    }

    /// The address that the host listens on; suspends until it does.
    ///
    /// - Returns: The host's name and port.
    /// - Throws: What prevented the host from listening.
    public func boundAddress() async throws -> (host: String, port: Int) {
        let address = try await self.server.boundAddress()
        self.health.setAll(.serving)
        return address
    }

    /// Whether the host takes calls, and why not.
    public var readiness: Readiness {
        self.health.status(of: "") == .serving
            ? Readiness(isReady: true) : Readiness(isReady: false, notes: ["not listening, or draining"])
    }

    /// Adds the current state of the host.
    ///
    /// - Parameters:
    ///   - snapshot: Where the values go.
    ///   - expertSeriesLimit: Not used: there are no series by expert.
    public func collect(into snapshot: inout MetricSnapshot, expertSeriesLimit: Int = 2000) {
        snapshot.setProcess()
        snapshot.setService(Self.component, isReady: self.readiness.isReady)
        snapshot.set(self.server, security: self.configuration.security)
        self.metrics.collect(into: &snapshot, self.jobs)
    }

    /// Takes no new calls, answers those that wait, and lets ``run()`` return.
    public func beginDraining() {
        self.logger.info("draining", metadata: ["limit": "\(self.configuration.drainTimeout)"])
        self.health.beginDraining()
        self.server.beginGracefulShutdown()
    }

    /// Serves until draining has ended, or until the task is cancelled.
    ///
    /// - Throws: What prevents the host from listening, and `ComputeThread.StartError`.
    public func run() async throws {
        defer { self.jobs.beginDraining() }
        try await withGracefulShutdownHandler {
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask {
                    try await ComputeThread.run(name: "experts") {
                        let configuration = self.configuration
                        let pool = WorkPool(
                            threads: configuration.threads,
                            pinned: configuration.pinsThreads,
                            spin: configuration.spin
                        )
                        pool.bindCallingThread()
                        let folder = configuration.snapshotFolder
                        self.jobs.run(on: ShardReplica(pool: pool, folder: folder, bases: self.bases))
                    }
                }
                group.addTask {
                    defer { self.jobs.beginDraining() }
                    try await self.server.run()
                }
                group.addTask {
                    let address = try await self.boundAddress()
                    self.logger.info(
                        "waiting for a trainer",
                        metadata: [
                            "address": "\(AddressText.of(host: address.host, port: address.port))",
                            "snapshots": "\(self.configuration.snapshotFolder ?? "none")",
                            "kernels": "\(KernelReport.describe())",
                        ]
                    )
                }
                try await group.waitForAll()
            }
        } onGracefulShutdown: {
            self.beginDraining()
        }
    }
}

extension TrainingHost: Service {}
