// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import ExpertPooling
internal import RPCTransport
internal import SwitchyardProtos
internal import Synchronization
internal import Telemetry

/// How an attempt of a call ended, as metrics have it.
enum AttemptOutcome: Int, Sendable, CaseIterable {
    /// Answered, and the answer is good.
    case ok
    /// No answer within the layer's deadline.
    case deadline
    /// The connection broke, or there was none.
    case unavailable
    /// The replica sheds load.
    case overloaded
    /// The answer cannot be used.
    case badReply
    /// The replica answered with another status.
    case refused
    /// Nobody waits for it any more: another attempt was faster, or the requests have left.
    case givenUp

    init(_ failure: CallFailure) {
        switch failure {
        case .deadline: self = .deadline
        case .unavailable: self = .unavailable
        case .overloaded: self = .overloaded
        case .badReply: self = .badReply
        case .refused: self = .refused
        }
    }

    /// The outcome as Prometheus' users write it.
    var label: String {
        switch self {
        case .ok: "ok"
        case .deadline: "deadline"
        case .unavailable: "unavailable"
        case .overloaded: "overloaded"
        case .badReply: "bad_reply"
        case .refused: "refused"
        case .givenUp: "given_up"
        }
    }
}

extension ExpertPooling.ReplicaState {
    /// The state as the wire has it, and why it is not ready, for people.
    var message: (state: SwitchyardProtos.ReplicaState, detail: String) {
        switch self {
        case .disconnected: (.disconnected, "no connection")
        case .unverified: (.unverified, "has been asked what it holds")
        case .ready: (.ready, "")
        case .ejected: (.ejected, "failed too often or was too slow; is probed after a while")
        case .probing: (.ejected, "has been asked whether it has recovered")
        case .draining: (.draining, "finishes the calls it has")
        case .mismatched(let reason): (.mismatched, reason)
        }
    }
}

extension ExpertCluster {
    /// The pools that have a ready replica.
    var readyPools: Set<String> {
        self.state.withLock { state in
            Set(state.pools.reports.lazy.filter { $0.state == .ready }.map(\.id.pool))
        }
    }

    /// Gives what the expert pools are doing.
    func collect(into snapshot: inout MetricSnapshot) {
        let view = self.view
        snapshot.set(MetricCatalog.pools.expertsComplete, view.isComplete ? 1 : 0)
        for pool in self.configuration.pools.map(\.name) {
            let counts = view.counts[pool] ?? PoolCounts()
            snapshot.set(MetricCatalog.pools.callsTotal, [pool], counts.calls)
            snapshot.set(MetricCatalog.pools.hedgesTotal, [pool], counts.hedges)
            snapshot.set(MetricCatalog.pools.hedgesWonTotal, [pool], counts.hedgesWon)
            snapshot.set(MetricCatalog.pools.retriesTotal, [pool], counts.retries)
            snapshot.set(MetricCatalog.pools.droppedRowsTotal, [pool], counts.droppedRows)
            let states = view.reports.filter { $0.id.pool == pool }.map(\.state.name)
            for name in ExpertPooling.ReplicaState.names {
                snapshot.set(MetricCatalog.pools.replicas, [pool, name], states.count { $0 == name })
            }
        }
        for report in view.reports {
            let replica = [report.id.pool, report.id.address]
            let load = view.loads[report.id] ?? ReplicaLoad()
            for outcome in AttemptOutcome.allCases {
                let attempts = load.attempts[outcome.rawValue]
                snapshot.set(MetricCatalog.pools.attemptsTotal, replica + [outcome.label], attempts)
            }
            snapshot.set(MetricCatalog.pools.callSeconds, replica, load.times)
            snapshot.set(MetricCatalog.pools.openCalls, replica, report.outstanding)
            snapshot.set(MetricCatalog.pools.openRows, replica, load.outstandingRows)
            snapshot.set(MetricCatalog.pools.rowsTotal, replica, report.rows)
            snapshot.set(MetricCatalog.pools.sentBytesTotal, replica, load.traffic.sentBytes)
            snapshot.set(MetricCatalog.pools.receivedBytesTotal, replica, load.traffic.receivedBytes)
            snapshot.set(MetricCatalog.pools.ejectionsTotal, replica, report.ejections)
        }
        for layer in self.layers {
            guard let rates = view.rowsPerSecond[layer], let busiest = rates.max() else { continue }
            let all = rates.reduce(0, +)
            guard all > 0 else { continue }
            let labels = [layer.isDecoder ? "decoder" : "encoder", "\(layer.block)"]
            snapshot.set(MetricCatalog.engine.busiestExpertRatio, labels, busiest / all)
        }
    }
}
