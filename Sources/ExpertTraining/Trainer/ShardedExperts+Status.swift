// SPDX-License-Identifier: Apache-2.0

internal import ServiceKit
public import Telemetry

extension ShardedExperts {
    /// What every replica does, by shard.
    public var replicas: [ReplicaStatus] {
        self.links.flatMap { link in
            link.state.withLock { state in
                link.targets.enumerated()
                    .map { index, target in
                        ReplicaStatus(
                            shard: link.name,
                            target: target,
                            state: state.book?.replicas[index].phase.name ?? "away",
                            lag: state.book?.lag(of: index),
                            trouble: state.troubles[index]
                        )
                    }
            }
        }
    }

    /// Adds the current values.
    ///
    /// - Parameter snapshot: Where they go.
    public func collect(into snapshot: inout MetricSnapshot) {
        let table = MetricCatalog.trainingShards
        snapshot.set(table.logLimit, self.logLimit)
        for replica in self.replicas {
            for state in ShardBook.Phase.names {
                snapshot.set(
                    table.replicaState,
                    [replica.shard, replica.target, state],
                    state == replica.state ? 1 : 0
                )
            }
            if let lag = replica.lag { snapshot.set(table.replicaLag, [replica.shard, replica.target], lag) }
        }
        for link in self.links {
            link.state.withLock { state in
                snapshot.set(table.failuresTotal, [link.name], state.failures)
                snapshot.set(table.repeatedCallsTotal, [link.name], state.repeats)
                snapshot.set(table.logBytes, [link.name], state.book?.byteCount ?? 0)
                snapshot.set(table.logSteps, [link.name], state.book.map { $0.keptSteps - 1 } ?? 0)
                snapshot.set(table.bytesTotal, [link.name, "sent"], state.sentBytes)
                snapshot.set(table.bytesTotal, [link.name, "received"], state.receivedBytes)
            }
        }
    }
}

extension ShardBook.Phase {
    /// All names.
    static let names = ["live", "loading", "waiting", "opening", "away"]

    /// A name for people and metrics.
    var name: String {
        switch self {
        case .live: "live"
        case .loading: "loading"
        case .waiting: "waiting"
        case .opening: "opening"
        case .away: "away"
        }
    }
}
