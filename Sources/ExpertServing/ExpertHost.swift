// SPDX-License-Identifier: Apache-2.0

public import Checkpoints
public import Logging
internal import RPCCore
internal import RPCTransport
internal import ServiceKit
public import ServiceLifecycle
internal import SwitchModel
internal import SwitchyardProtos
internal import TensorKernels

/// A process that holds experts of the sparse layers and runs their feed-forwards; it keeps nothing between calls.
///
/// Calls are checked on the event loop they arrive on, wait in a bounded queue, and are computed one after the other on
/// a thread of its own.
public final class ExpertHost: Sendable {
    /// What the host was told.
    public let configuration: ExpertHostConfiguration

    /// The fingerprint of the checkpoint that the experts come from.
    public let fingerprint: UInt64

    /// The experts that are held, by sparse layer.
    public let held: [SparseLayer: [Int]]

    private let logger: Logger
    private let compute: ExpertCompute
    private let queue: ForwardQueue
    private let server: RPCServer
    private let health: HealthRegistry

    /// Loads the experts; ``run()`` serves them.
    ///
    /// - Parameters:
    ///   - configuration: What to load and how to serve it.
    ///   - logger: Tells people what happens.
    ///   - progress: Told how far loading is.
    /// - Throws: ``ExpertHostError`` where the configuration is wrong or the folder holds no experts; `CheckpointError`
    ///   and `ModelError` where the folder cannot be loaded.
    public init(
        configuration: ExpertHostConfiguration,
        logger: Logger,
        progress: (@Sendable (WorkProgress) -> Void)? = nil
    ) throws {
        try configuration.validate()
        let checkpoint = try Checkpoint.open(
            configuration.shardDirectory,
            overrides: configuration.modelOverrides,
            progress: progress
        )
        let experts = try LocalExperts(
            checkpoint: checkpoint,
            pool: WorkPool(threads: configuration.threads),
            storage: configuration.storage,
            progress: progress
        )
        let held = experts.held
        guard !held.isEmpty else {
            throw ExpertHostError(
                .noExperts,
                "\(configuration.shardDirectory) holds no experts; name a pool's folder, not the gateway's"
            )
        }
        let model = checkpoint.configuration
        let queue = ForwardQueue(
            limits: HostAdmission.Limits(calls: configuration.queueLimit, rows: configuration.queueRowLimit)
        )
        let limits = TransportLimits.forCalls(rows: configuration.maxRowsPerCall, width: model.modelWidth)
        let check = ForwardCheck(
            fingerprint: checkpoint.fingerprint,
            modelWidth: model.modelWidth,
            expertCount: model.expertCount,
            sparseLayers: Set(model.sparseLayers),
            held: held.mapValues { Set($0) },
            maxRows: configuration.maxRowsPerCall
        )
        let card = HostCard(
            checkpoint: checkpoint,
            held: held,
            configuration: configuration,
            maxMessageBytes: limits.maxReceiveMessageBytes
        )
        let health = HealthRegistry(services: [ExpertHostMethods.service])
        let service = ExpertHostService(check: check, queue: queue, card: card)
        let methods = service.methods + HealthService(registry: health).methods
        self.configuration = configuration
        self.fingerprint = checkpoint.fingerprint
        self.held = held
        self.logger = logger
        self.compute = ExpertCompute(experts: experts, modelWidth: model.modelWidth)
        self.queue = queue
        self.health = health
        self.server = RPCServer(
            configuration: RPCServerConfiguration(
                host: configuration.host,
                port: configuration.port,
                limits: limits,
                timing: .dataPlane,
                drainGrace: configuration.drainTimeout,
                security: configuration.security
            ),
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
        try await self.server.boundAddress()
    }

    /// Refuses new calls, finishes those it has; then ``run()`` returns.
    public func beginDraining() {
        self.logger.info("draining")
        self.health.beginDraining()
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
                    try await ComputeThread.run(name: "experts") { self.computeCalls() }
                }
                group.addTask {
                    // Calls that are under way end before the server does; then nothing is left to compute.
                    defer {
                        self.queue.beginDraining()
                    }
                    try await self.server.run()
                }
                group.addTask {
                    let address = try await self.server.boundAddress()
                    self.health.setAll(.serving)
                    self.logger.info(
                        "serving experts",
                        metadata: [
                            "address": "\(address.host):\(address.port)", "fingerprint": "\(hex(self.fingerprint))",
                            "experts": "\(self.held.values.reduce(0) { $0 + $1.count })",
                            "layers": "\(self.held.count)", "kernels": "\(KernelReport.describe())",
                        ]
                    )
                }
                try await group.waitForAll()
            }
        } onGracefulShutdown: {
            self.beginDraining()
        }
    }

    /// The compute thread.
    private func computeCalls() {
        while case .compute(let id, let job) = self.queue.next() {
            let start = ContinuousClock.now
            let result: Result<Payload, RPCError>
            do throws(RPCError) {
                result = .success(try self.compute.reply(to: job, load: self.queue.load, start: start))
            } catch {
                self.logger.error("a call failed", metadata: ["error": "\(error)"])
                result = .failure(error)
            }
            // The queue first: whoever sees the answer may look at the load.
            self.queue.finished(id)
            job.responder.finish(result)
        }
    }
}

extension ExpertHost: Service {}

extension TransportLimits {
    /// Limits under which a call of so many rows just fits.
    fileprivate static func forCalls(rows: Int, width: Int) -> TransportLimits {
        var limits = TransportLimits.dataPlane
        // The rows and, for each of the groups, no more than 32 bytes.
        let bytes = rows * width * MemoryLayout<Float>.size + (1 << 20)
        limits.maxReceiveMessageBytes = max(limits.maxReceiveMessageBytes, bytes)
        return limits
    }
}
