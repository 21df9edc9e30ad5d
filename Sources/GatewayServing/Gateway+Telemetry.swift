// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import ExpertPooling
internal import RPCTransport
internal import ServiceKit
internal import SwitchModel
internal import SwitchyardProtos
internal import SwitchyardTypes
internal import Synchronization
public import Telemetry

extension Gateway {
    /// This service's name in metrics.
    public static let component = "gateway"

    /// Whether the gateway takes requests, and why not; agrees with the health service.
    public var readiness: Readiness {
        switch self.gate.phase {
        case .waiting: Readiness(isReady: false, notes: ["waiting for expert hosts"] + self.missingPools)
        case .serving: Readiness(isReady: true, notes: self.missingPools)
        case .draining: Readiness(isReady: false, notes: ["draining"])
        }
    }

    /// A line for each pool without a ready replica.
    private var missingPools: [String] {
        let ready = self.cluster.readyPools
        return self.configuration.cluster.pools.map(\.name).filter { !ready.contains($0) }
            .map { "the pool \($0) has no replica that is ready" }
    }

    /// Adds the current state of the gateway, in addition to what ``GatewayMetrics`` count.
    ///
    /// - Parameters:
    ///   - snapshot: Where the values go.
    ///   - expertSeriesLimit: Limit of series for tokens by expert; experts share series above it.
    public func collect(into snapshot: inout MetricSnapshot, expertSeriesLimit: Int = 2000) {
        snapshot.setProcess()
        snapshot.setService(Self.component, isReady: self.readiness.isReady)
        snapshot.setModel(fingerprint: self.fingerprint, weightType: "\(self.engine.model.weightType)")
        snapshot.set(self.server, security: self.configuration.security)
        for listener in self.listeners.withLock({ $0 }) { listener.collect(into: &snapshot) }
        if case .tls(let tls) = self.configuration.cluster.channel.security, let end = tls.certificateEnd {
            snapshot.set(MetricCatalog.transport.tlsCertificateExpiryTimestampSeconds, ["experts"], end)
        }
        self.cluster.collect(into: &snapshot)
        let load = self.engine.load
        snapshot.set(MetricCatalog.engine.queuedRequests, load.queued)
        snapshot.set(MetricCatalog.engine.queueLimit, load.queueLimit)
        snapshot.set(MetricCatalog.engine.runningRequests, load.running)
        snapshot.set(MetricCatalog.engine.usedBatchSlots, load.usedSlots)
        snapshot.set(MetricCatalog.engine.batchSlots, load.batchSlots)
        snapshot.set(
            MetricCatalog.engine.expertTokensTotal,
            load.expertRows,
            layers: self.engine.model.configuration.sparseLayers,
            experts: self.engine.model.configuration.expertCount,
            limit: expertSeriesLimit
        )
    }
}

extension MetricSnapshot {
    /// Sets a number for each expert of each layer, or for ranges of experts if there are too many.
    fileprivate mutating func set(
        _ metric: MetricDefinition,
        _ rows: [SparseLayer: [UInt64]],
        layers: [SparseLayer],
        experts: Int,
        limit: Int
    ) {
        let division = ExpertSeries(layers: layers.count, experts: experts, limit: limit)
        let none = [UInt64](repeating: 0, count: experts)
        for layer in layers {
            for series in division.series(of: rows[layer] ?? none) {
                self.set(metric, ["\(layer.stack)", "\(layer.block)", series.label], series.value)
            }
        }
    }
}
