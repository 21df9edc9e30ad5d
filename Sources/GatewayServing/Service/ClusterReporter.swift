// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import ExpertPooling
internal import SwitchyardProtos
internal import SwitchyardTypes

/// Describes the cluster as the gateway sees it.
struct ClusterReporter: Sendable {
    let engine: InferenceEngine
    let cluster: ExpertCluster
    let fingerprint: UInt64
    let start = ContinuousClock.now

    /// The current description.
    var description: ClusterDescription {
        let view = self.cluster.view
        let load = self.engine.load
        var description = ClusterDescription()
        description.modelFingerprint = self.fingerprint
        description.complete = view.isComplete
        description.rowDType = WireDType(self.cluster.configuration.wireType)
        description.gateway = self.gatewayLoad(load)
        description.routedTokens = load.routedTokens
        description.dropped = load.dropped.map(SwitchyardProtos.DroppedTokens.init)
        description.expertLoad = load.expertRows.sorted { $0.key < $1.key }
            .map { layer, rows in
                var entry = LayerLoad()
                entry.stack = WireStack(layer.stack)
                entry.layer = UInt32(layer.block)
                entry.rows = rows
                // The averages end at the last expert that ever got a row.
                let averages = view.rowsPerSecond[layer] ?? []
                entry.rowsPerSecond = rows.indices.map { $0 < averages.count ? Float(averages[$0]) : 0 }
                return entry
            }
        description.pools = self.cluster.configuration.pools.map(\.name)
            .map { name in
                let counts = view.counts[name] ?? PoolCounts()
                var pool = PoolDescription(
                    name: name,
                    experts: Self.messages(view.placement.experts(of: name)),
                    replicas: view.reports.filter { $0.id.pool == name }
                        .map { Self.message($0, view.loads[$0.id] ?? ReplicaLoad(), view.troubles[$0.id]) },
                    spare: Self.messages(view.spare[name] ?? [:]),
                    extra: Self.messages(view.placement.extras(on: name))
                )
                pool.calls = counts.calls
                pool.hedges = counts.hedges
                pool.hedgesWon = counts.hedgesWon
                pool.retries = counts.retries
                pool.droppedRows = counts.droppedRows
                return pool
            }
        return description
    }

    /// The experts that at least one verified host holds, by sparse layer.
    var servedExperts: [LayerExperts] {
        let view = self.cluster.view
        var served: [SparseLayer: Set<Int>] = [:]
        for pool in Set(view.reports.filter { $0.state == .ready }.map(\.id.pool)) {
            for (layer, experts) in view.placement.experts(of: pool) {
                served[layer, default: []].formUnion(experts)
            }
        }
        return Self.messages(served)
    }

    private func gatewayLoad(_ load: EngineLoad) -> GatewayLoad {
        var message = GatewayLoad()
        message.queued = UInt32(clamping: load.queued)
        message.queueLimit = UInt32(clamping: load.queueLimit)
        message.running = UInt32(clamping: load.running)
        message.usedSlots = UInt32(clamping: load.usedSlots)
        message.batchSlots = UInt32(clamping: load.batchSlots)
        message.draining = load.isDraining
        message.uptimeSeconds = UInt64(self.start.duration(to: .now).components.seconds)
        message.decodedTokens = load.decodedTokens
        message.steps = load.steps
        return message
    }

    private static func messages(_ experts: [SparseLayer: Set<Int>]) -> [LayerExperts] {
        experts.sorted { $0.key < $1.key }
            .map { layer, experts in
                LayerExperts(
                    stack: WireStack(layer.stack),
                    layer: UInt32(layer.block),
                    experts: experts.sorted().map { UInt32($0) }
                )
            }
    }

    private static func message(
        _ report: ReplicaReport,
        _ load: ReplicaLoad,
        _ trouble: String?
    ) -> SwitchyardProtos.ReplicaDescription {
        var message = SwitchyardProtos.ReplicaDescription()
        message.address = report.id.address
        (message.state, message.detail) = report.message(trouble: trouble)
        message.instanceID = report.description?.instance ?? ""
        message.outstandingCalls = UInt32(clamping: report.outstanding)
        message.outstandingRows = UInt64(clamping: report.outstandingRows)
        message.calls = report.succeeded + report.failed
        message.rows = report.rows
        message.failures = report.failed
        message.latencyP50Microseconds = report.times.recentPercentile(0.5)?.wholeMicroseconds ?? 0
        message.latencyP99Microseconds = report.times.recentPercentile(0.99)?.wholeMicroseconds ?? 0
        message.load = load.latest
        message.ejections = report.ejections
        message.zone = report.description?.zone ?? ""
        message.weightDType = report.description?.weightType.map { WireDType($0) } ?? .unspecified
        return message
    }
}
