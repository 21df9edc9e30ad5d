// SPDX-License-Identifier: Apache-2.0

internal import ExpertPooling
internal import Metrics

/// What the expert plane reports to the process's metrics, once a second.
///
/// | Label | Kind | Dimensions | |
/// |---|---|---|---|
/// | `switchyard_expert_calls_total` | counter | `pool` | grouped calls, one for each layer and pool |
/// | `switchyard_expert_hedges_total` | counter | `pool` | calls sent to a second replica while the first was silent |
/// | `switchyard_expert_hedges_won_total` | counter | `pool` | of these, answered first by the second one |
/// | `switchyard_expert_retries_total` | counter | `pool` | attempts after a failed one |
/// | `switchyard_expert_dropped_rows_total` | counter | `pool` | token rows that were given up |
/// | `switchyard_expert_failures_total` | counter | `pool`, `replica` | attempts that failed |
/// | `switchyard_expert_ejections_total` | counter | `pool`, `replica` | times that a replica was left alone |
/// | `switchyard_expert_serving_replicas` | gauge | `pool` | replicas that take calls |
struct ExpertPlaneMetrics {
    private var pools: [String: PoolCounts] = [:]
    private var replicas: [ReplicaID: (failed: UInt64, ejections: UInt64)] = [:]

    /// Reports what has changed since the last time.
    mutating func report(_ view: ExpertCluster.View) {
        for (pool, counts) in view.counts {
            let last = self.pools[pool] ?? PoolCounts()
            let dimensions = [("pool", pool)]
            Self.add(counts.calls, last.calls, "calls", dimensions)
            Self.add(counts.hedges, last.hedges, "hedges", dimensions)
            Self.add(counts.hedgesWon, last.hedgesWon, "hedges_won", dimensions)
            Self.add(counts.retries, last.retries, "retries", dimensions)
            Self.add(counts.droppedRows, last.droppedRows, "dropped_rows", dimensions)
            self.pools[pool] = counts
            Gauge(label: "switchyard_expert_serving_replicas", dimensions: dimensions)
                .record(view.reports.count { $0.id.pool == pool && $0.state == .serving })
        }
        var seen: [ReplicaID: (failed: UInt64, ejections: UInt64)] = [:]
        for report in view.reports {
            let last = self.replicas[report.id] ?? (0, 0)
            let dimensions = [("pool", report.id.pool), ("replica", report.id.address)]
            Self.add(report.failed, last.failed, "failures", dimensions)
            Self.add(report.ejections, last.ejections, "ejections", dimensions)
            seen[report.id] = (report.failed, report.ejections)
        }
        self.replicas = seen
    }

    private static func add(_ value: UInt64, _ last: UInt64, _ name: String, _ dimensions: [(String, String)]) {
        // A replica that came back under its address begins anew.
        let increment = value >= last ? value - last : value
        Counter(label: "switchyard_expert_\(name)_total", dimensions: dimensions)
            .increment(by: Int64(clamping: increment))
    }
}

extension ExpertCluster {
    /// Reports to the process's metrics until the task is cancelled.
    func reportMetrics() async {
        var metrics = ExpertPlaneMetrics()
        while !Task.isCancelled {
            metrics.report(self.view)
            try? await Task.sleep(for: .seconds(1))
        }
    }
}
