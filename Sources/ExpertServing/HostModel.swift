// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import Logging
internal import SwitchModel
internal import SwitchyardTypes
internal import Synchronization
internal import TensorKernels

/// One checkpoint's experts on a host: their weights, and what is checked and said of them.
///
/// A call that waits or is computed keeps its model, so the weights of one that is let go are freed when the last such
/// call has its answer.
final class HostModel: Sendable {
    /// The folder among the host's checkpoints; nil for the experts that its settings name.
    let checkpoint: String?
    let fingerprint: UInt64
    let held: [SparseLayer: [Int]]
    let check: ForwardCheck
    let card: HostCard
    let compute: ExpertCompute
    let weightBytes: Int
    let weightType: DType?
    let isPacked: Bool
    let layers: [SparseLayer]
    let expertCount: Int
    /// The files from which weights are served; none where they are in memory.
    let mapped: WeightWatch

    /// Nanoseconds from the process's reference time to the last call; 0 before the first.
    private let lastCall = Atomic<Int64>(0)
    private static let reference = ContinuousClock.now
    private let (untilLetGo, letGoSource) = AsyncStream.makeStream(of: Never.self)

    /// Loads the experts of some folders.
    ///
    /// - Parameters:
    ///   - checkpoint: The checkpoint's name; nil for what the settings name.
    ///   - configuration: What to load, and how.
    ///   - maxMessageBytes: The longest message that the transport accepts; nil asks `limits`.
    ///   - instance: The process's id.
    ///   - pool: Threads that compute.
    ///   - loadingPool: Threads that share the loading; nil for those that compute.
    ///   - shards: The open folders.
    ///   - logger: Says what was compared.
    ///   - progress: Receives loading progress.
    /// - Throws: ``ExpertHostError`` where the folders hold no experts; `CheckpointError` and `ModelError`.
    init(
        checkpoint: String?,
        configuration: ExpertHostConfiguration,
        maxMessageBytes: Int,
        instance: String,
        pool: WorkPool,
        loadingPool: WorkPool? = nil,
        shards: HostShards,
        logger: Logger,
        progress: (@Sendable (WorkProgress) -> Void)?
    ) throws {
        let (experts, compared) = try PartCheck.during(shards.checkpoints) {
            if configuration.prefault { try shards.prefault(pool: loadingPool ?? pool, progress: progress) }
            return try LocalExperts(
                checkpoints: shards.checkpoints,
                pool: pool,
                loadingPool: loadingPool,
                storage: configuration.storage,
                progress: progress
            )
        }
        logger.debug("files agree with their manifests", metadata: ["bytes": "\(compared)"])
        let held = experts.held
        guard !held.isEmpty else { throw ExpertHostError.noExperts(in: configuration) }
        let model = shards.first.configuration
        self.checkpoint = checkpoint
        self.fingerprint = shards.first.fingerprint
        self.held = held
        self.check = ForwardCheck(
            fingerprint: shards.first.fingerprint,
            modelWidth: model.modelWidth,
            expertCount: model.expertCount,
            sparseLayers: Set(model.sparseLayers),
            held: held.mapValues { Set($0) },
            maxRows: configuration.maxRowsPerCall,
            weightType: experts.weightType
        )
        self.card = HostCard(
            shards: shards,
            held: held,
            weightType: experts.weightType,
            weightBytes: experts.byteCount,
            configuration: configuration,
            maxMessageBytes: maxMessageBytes,
            instance: instance
        )
        self.compute = ExpertCompute(experts: experts, modelWidth: model.modelWidth)
        self.weightBytes = experts.byteCount
        self.weightType = experts.weightType
        self.isPacked = shards.isPacked
        self.layers = model.sparseLayers
        self.expertCount = model.expertCount
        self.mapped = WeightWatch(
            shards.checkpoints.filter { $0.packing != nil },
            isCompared: configuration.prefault
        )
    }

    /// How the weights are kept, for people.
    var weights: String { self.weightType.map { "\($0)\(self.isPacked ? ", mapped" : "")" } ?? "none" }

    /// Notes that a call named this checkpoint.
    ///
    /// - Parameter time: When it came.
    func called(at time: ContinuousClock.Instant) {
        self.lastCall.store(Self.reference.duration(to: time).nanoseconds, ordering: .relaxed)
    }

    /// The time since the last call; nil if none came.
    var idleTime: Duration? {
        let last = self.lastCall.load(ordering: .relaxed)
        guard last != 0 else { return nil }
        return Self.reference.advanced(by: .nanoseconds(last)).duration(to: .now)
    }

    /// Ends the watch over the files.
    func letGo() { self.letGoSource.finish() }

    /// Suspends until ``letGo()``, or until the task is cancelled.
    static func waitUntilLetGo(_ model: HostModel) -> @Sendable () async -> Void {
        let stream = model.untilLetGo
        return { for await _ in stream {} }
    }
}

extension Duration {
    /// Whole nanoseconds; those that fit.
    fileprivate var nanoseconds: Int64 {
        let (seconds, attoseconds) = self.components
        let (product, overflow) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
        return overflow ? .max : product &+ attoseconds / 1_000_000_000
    }
}
