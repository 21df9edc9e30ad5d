// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import ServiceKit
internal import SwitchModel
internal import SwitchyardProtos
internal import SwitchyardTypes
internal import Synchronization
public import Telemetry

/// Token rows computed by each expert; the compute thread adds to them once per pass.
final class ExpertRowCounts: Sendable {
    private let rows = Mutex<[SparseLayer: [UInt64]]>([:])

    /// The rows so far, by layer and expert index.
    var current: [SparseLayer: [UInt64]] { self.rows.withLock { $0 } }

    /// Counts the calls of a pass.
    ///
    /// - Parameters:
    ///   - jobs: The calls, all of one layer.
    ///   - experts: Experts of a layer.
    func add(_ jobs: some Collection<ForwardJob>, experts: Int) {
        guard let layer = jobs.first?.work.layer else { return }
        self.rows.withLock { rows in
            for job in jobs {
                for group in job.work.groups where group.expert < experts {
                    rows[layer, default: Array(repeating: 0, count: experts)][group.expert] += UInt64(group.rows)
                }
            }
        }
    }
}

extension ExpertHost {
    /// This service's name in metrics.
    public static let component = "expert-host"

    /// Whether the host takes calls, and why not; agrees with the health service.
    public var readiness: Readiness {
        if self.health.status(of: "") == .serving { return Readiness(isReady: true) }
        return Readiness(isReady: false, notes: [self.queue.load.draining ? "draining" : "not listening yet"])
    }

    /// Adds the current state of the host, in addition to what ``ExpertHostMetrics`` count.
    ///
    /// - Parameters:
    ///   - snapshot: Where the values go.
    ///   - expertSeriesLimit: Limit of series with rows by expert; experts share series above it.
    public func collect(into snapshot: inout MetricSnapshot, expertSeriesLimit: Int = 2000) {
        snapshot.setProcess()
        snapshot.setService(Self.component, isReady: self.readiness.isReady)
        let models = self.models.all
        for model in models {
            snapshot.setModel(
                fingerprint: model.fingerprint,
                weightType: model.weightType.map { "\($0)" } ?? "none"
            )
        }
        snapshot.set(self.server, security: self.configuration.security)
        let waiting = self.queue.waiting
        snapshot.set(MetricCatalog.host.waitingCalls, waiting.calls)
        snapshot.set(MetricCatalog.host.waitingRows, waiting.rows)
        snapshot.set(MetricCatalog.host.queueLimit, self.configuration.queueLimit)
        snapshot.set(MetricCatalog.host.queueRowLimit, self.configuration.queueRowLimit)
        snapshot.set(MetricCatalog.host.weightBytes, models.reduce(0) { $0 + $1.weightBytes })
        snapshot.set(MetricCatalog.host.heldExperts, self.held.values.reduce(0) { $0 + $1.count })
        let served = self.models.served
        let division = ExpertSeries(layers: served.layers.count, experts: served.expertCount, limit: expertSeriesLimit)
        let rows = self.expertRows.current
        for layer in served.layers {
            guard let counts = rows[layer] else { continue }
            // Experts that the host does not hold never get rows here.
            for series in division.series(of: counts) where self.holds(layer, series.experts) {
                let labels = ["\(layer.stack)", "\(layer.block)", series.label]
                snapshot.set(MetricCatalog.host.expertRowsTotal, labels, series.value)
            }
        }
    }

    private func holds(_ layer: SparseLayer, _ experts: Range<Int>) -> Bool {
        self.held[layer]?.contains { experts.contains($0) } ?? false
    }
}
