// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import ExpertPooling
internal import RPCTransport
internal import SwitchyardProtos
internal import SwitchyardTypes
internal import Synchronization
internal import Telemetry

extension AttemptOutcome {
    /// The labels of all outcomes; some share one.
    static let labels = [
        "ok", "deadline", "unavailable", "overloaded", "bad_reply", "wrong_reply", "refused", "given_up",
    ]

    /// The outcome as a metric label.
    var label: String {
        switch self {
        case .answered: "ok"
        case .failed(.deadline), .outOfTime: "deadline"
        case .failed(.unavailable): "unavailable"
        case .failed(.overloaded): "overloaded"
        case .failed(.badReply): "bad_reply"
        case .failed(.wrongReply): "wrong_reply"
        case .failed(.refused): "refused"
        case .overtaken, .cancelled: "given_up"
        }
    }
}

extension HistogramCounts {
    /// A replica's times as a metric.
    init(_ times: CallTimes) {
        self.init(.callSeconds, sum: times.sum, count: times.count) { times.count(upTo: $0) }
    }
}

extension ExpertPooling.ReplicaState {
    /// The state as sent on the wire, and why it is not ready, for people.
    var message: (state: SwitchyardProtos.ReplicaState, detail: String) {
        switch self {
        case .disconnected: (.disconnected, "no connection")
        case .unverified: (.unverified, "being asked what it holds")
        case .ready: (.ready, "")
        case .ejected: (.ejected, "failed too often or was too slow; will be probed")
        case .probing: (.ejected, "being probed for recovery")
        case .draining: (.draining, "finishing its calls in flight")
        case .mismatched(let reason): (.mismatched, reason)
        case .spare(let first): (.spare, "another address of \(first.address), which gets the calls")
        case .quarantined: (.quarantined, "an audit found wrong outputs; serves again once it has proved itself")
        }
    }
}

extension ReplicaReport {
    /// The state as sent on the wire, and why it is not ready, for people.
    ///
    /// - Parameter trouble: Why there is no connection, if that is known.
    /// - Returns: The state, and the reason in words.
    func message(trouble: String?) -> (state: SwitchyardProtos.ReplicaState, detail: String) {
        let (state, detail) = self.state.message
        let reason: String? =
            switch self.state {
            case .disconnected: trouble
            case .unverified, .ejected, .probing: self.trouble
            case .quarantined: self.proofs.map { "\($0) right answers in a row so far" }
            case .ready, .draining, .mismatched, .spare: nil
            }
        guard let reason, !reason.isEmpty else { return (state, detail) }
        return (state, "\(detail): \(reason)")
    }
}

extension ExpertCluster {
    /// The pools that have a ready replica.
    var readyPools: Set<String> {
        self.state.withLock { state in
            Set(state.pools.reports.lazy.filter { $0.state == .ready }.map(\.id.pool))
        }
    }

    /// Reports the state of the expert pools.
    func collect(into snapshot: inout MetricSnapshot) {
        let view = self.view
        snapshot.set(MetricCatalog.pools.expertsComplete, view.isComplete ? 1 : 0)
        for pool in self.configuration.pools.map(\.name) {
            let counts = view.counts[pool] ?? PoolCounts()
            snapshot.set(MetricCatalog.pools.callsTotal, [pool], counts.calls)
            snapshot.set(MetricCatalog.pools.hedgesTotal, [pool], counts.hedges)
            snapshot.set(MetricCatalog.pools.hedgesWonTotal, [pool], counts.hedgesWon)
            snapshot.set(MetricCatalog.pools.preferencesTotal, [pool, "kept"], counts.keptExperts)
            snapshot.set(MetricCatalog.pools.preferencesTotal, [pool, "yielded"], counts.yieldedExperts)
            snapshot.set(MetricCatalog.pools.retriesTotal, [pool], counts.retries)
            snapshot.set(MetricCatalog.pools.droppedRowsTotal, [pool], counts.droppedRows)
            self.collectAudits(of: pool, counts.audits, into: &snapshot)
            snapshot.set(MetricCatalog.pools.disputed, [pool], view.disputed.contains(pool) ? 1 : 0)
            let states = view.reports.filter { $0.id.pool == pool }.map(\.state.name)
            for name in ExpertPooling.ReplicaState.names {
                snapshot.set(MetricCatalog.pools.replicas, [pool, name], states.count { $0 == name })
            }
        }
        for report in view.reports {
            let replica = [report.id.pool, report.id.address]
            let load = view.loads[report.id] ?? ReplicaLoad()
            for label in AttemptOutcome.labels {
                let attempts = report.attempts.total { $0.label == label }
                snapshot.set(MetricCatalog.pools.attemptsTotal, replica + [label], attempts)
            }
            snapshot.set(MetricCatalog.pools.callSeconds, replica, HistogramCounts(report.times))
            snapshot.set(MetricCatalog.pools.openCalls, replica, report.outstanding)
            snapshot.set(MetricCatalog.pools.openRows, replica, report.outstandingRows)
            snapshot.set(MetricCatalog.pools.rowsTotal, replica, report.rows)
            snapshot.set(MetricCatalog.pools.sentBytesTotal, replica, load.traffic.sentBytes)
            snapshot.set(MetricCatalog.pools.receivedBytesTotal, replica, load.traffic.receivedBytes)
            snapshot.set(MetricCatalog.pools.ejectionsTotal, replica, report.ejections)
            snapshot.set(MetricCatalog.pools.catchesTotal, replica, report.catches)
        }
        for layer in self.layers {
            guard let rates = view.rowsPerSecond[layer], let busiest = rates.max() else { continue }
            let all = rates.reduce(0, +)
            guard all > 0 else { continue }
            let labels = ["\(layer.stack)", "\(layer.block)"]
            snapshot.set(MetricCatalog.engine.busiestExpertRatio, labels, busiest / all)
        }
    }

    private func collectAudits(of pool: String, _ audits: AuditCounts, into snapshot: inout MetricSnapshot) {
        for result in AuditResult.allCases {
            snapshot.set(MetricCatalog.pools.auditsTotal, [pool, "\(result)"], audits[result])
        }
        snapshot.set(MetricCatalog.pools.auditedRowsTotal, [pool], audits.rows)
        snapshot.set(MetricCatalog.pools.recomputedTotal, [pool], audits.recomputed)
        for result in ExpertPools.ProofResult.allCases {
            snapshot.set(MetricCatalog.pools.proofsTotal, [pool, "\(result)"], audits.proofs[result.rawValue])
        }
    }
}
