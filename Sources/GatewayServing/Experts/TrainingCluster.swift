// SPDX-License-Identifier: Apache-2.0

public import Checkpoints
internal import ExpertPooling
public import Logging
internal import SwitchModel
internal import SwitchyardTypes

/// Expert hosts that a training run computes with.
public enum TrainingCluster {
    /// How a training run waits for its hosts.
    public struct Patience: Sendable, Hashable {
        /// How long one call may take before it is made again.
        public var call = Duration.seconds(30)
        /// How long a layer waits while no row comes back, and the run for its first complete cluster.
        public var layer = Duration.seconds(600)

        /// The default values.
        public init() {}
    }

    /// Connects to the hosts of a checkpoint's experts and runs a body with them.
    ///
    /// - Parameters:
    ///   - pools: The hosts and how to reach them; how long layers wait and in which types rows and weights are is set here.
    ///   - checkpoint: The whole checkpoint that is trained on, from which the hosts' parts were cut.
    ///   - patience: How long to wait.
    ///   - isStopping: Whether the run has been told to end: then it does not wait for hosts any more.
    ///   - logger: Logs which hosts are ready, ejected, draining or mismatched.
    ///   - body: Trains; gets the experts once all of them are held by a verified host.
    /// - Returns: The body's result.
    /// - Throws: ``GatewayError`` for a configuration out of range, and where experts stay without a host; what the body
    ///   throws.
    public static func with<Result: Sendable>(
        _ pools: ExpertClusterConfiguration,
        of checkpoint: Checkpoint,
        patience: Patience,
        isStopping: @escaping @Sendable () -> Bool,
        logger: Logger,
        body: @escaping @Sendable (RemoteTrainingExperts) async throws -> Result
    ) async throws -> Result {
        let configuration = Self.configuration(pools, of: checkpoint, patience)
        try configuration.validate()
        let cluster = ExpertCluster(
            configuration: configuration,
            model: checkpoint.configuration,
            fingerprint: checkpoint.fingerprint,
            placement: nil,
            checkpoint: checkpoint,
            logger: logger
        )
        let running = Task { try await cluster.run() }
        defer {
            cluster.beginEnding()
            running.cancel()
        }
        await withTaskGroup(of: Void.self) { group in
            group.addTask { await cluster.waitUntilComplete() }
            group.addTask {
                let end = ContinuousClock.now.advanced(by: patience.layer)
                while !Task.isCancelled, !isStopping(), !cluster.isHopeless, ContinuousClock.now < end {
                    try? await Task.sleep(for: min(.milliseconds(100), patience.layer))
                }
            }
            await group.next()
            group.cancelAll()
        }
        try Task.checkCancellation()
        guard cluster.view.isComplete else {
            throw GatewayError(
                .experts,
                "some experts have no host\(isStopping() || cluster.isHopeless ? "" : " after \(patience.layer)"); \(cluster.troubleInWords) start hosts that hold all experts"
                    + " of \(checkpoint.directory), and name them all"
            )
        }
        return try await body(
            RemoteTrainingExperts(
                cluster: cluster,
                fingerprint: checkpoint.fingerprint,
                patience: patience.layer,
                isStopping: isStopping
            )
        )
    }

    /// What training asks of hosts: the same bits as here, however long it takes.
    static func configuration(
        _ pools: ExpertClusterConfiguration,
        of checkpoint: Checkpoint,
        _ patience: Patience
    ) -> ExpertClusterConfiguration {
        var configuration = pools
        configuration.wireType = .float32
        configuration.rowsWait = true
        configuration.needsGradients = true
        let policy = LayerPolicy(deadline: patience.call, attempts: 16, patience: patience.call)
        configuration.choice.encoder = policy
        configuration.choice.decoder = policy
        configuration.choice.layerDeadlines = [:]
        // Numbers that bfloat16 holds are the same in float32.
        let isNarrow = GatewayExperts.types(of: checkpoint) == [.bfloat16]
        configuration.choice.weightTypes = isNarrow ? [.bfloat16, .float32] : [.float32]
        return configuration
    }
}

extension ExpertCluster {
    /// Whether experts have no host although all hosts are known, and what is wrong with one does not pass with time.
    var isHopeless: Bool {
        let view = self.view
        let states = view.reports.map(\.state)
        let isRefused = states.contains { if case .mismatched = $0 { true } else { false } }
        let isKnown = states.allSatisfy { if case .mismatched = $0 { true } else { $0 == .ready } }
        return !view.isComplete && isRefused && isKnown
    }

    /// Why replicas are not used, as a sentence; empty if all are.
    var troubleInWords: String {
        let view = self.view
        let troubles = view.reports.compactMap { report -> String? in
            switch report.state {
            case .ready: nil
            case .mismatched(let reason): "\(report.id): \(reason)"
            default:
                "\(report.id) is \(report.state.name)\((report.trouble ?? view.troubles[report.id]).map { " (\($0))" } ?? "")"
            }
        }
        return troubles.isEmpty ? "" : troubles.joined(separator: "; ") + "."
    }
}
