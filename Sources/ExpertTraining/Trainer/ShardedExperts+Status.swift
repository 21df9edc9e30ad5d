// SPDX-License-Identifier: Apache-2.0

internal import ServiceKit
public import Telemetry

extension ShardedExperts {
    /// What one replica does.
    public struct ReplicaStatus: Sendable, Hashable, Codable {
        /// Its shard.
        public var shard: String
        /// Its address.
        public var target: String
        /// live, loading, waiting, opening or away.
        public var phase: String
        /// serving, behind, recovering or away.
        public var state: String
        /// Steps that it is behind; nil where it holds no state.
        public var lag: Int?
        /// Calls of the log that it has not taken; nil where it holds no state.
        public var callsBehind: Int?
        /// Steps of the last snapshot on its disk; nil where it has none.
        public var snapshotStep: Int?
        /// Seconds since it was written; nil where that was before this trainer.
        public var snapshotAge: Double?
        /// Comparisons of its memory with the checksum of its last step that were right.
        public var memoryChecks: Int
        /// Those that were wrong.
        public var memoryChanges: Int
        /// Steps after which its state had the checksum that was given for that step before.
        public var agreements: Int
        /// Those after which it had another one.
        public var differences: Int
        /// Why it is not used, or what is wrong with its disk.
        public var trouble: String?
    }

    /// A replica that took over a state, and is of use again.
    public struct Recovery: Sendable, Hashable, Codable {
        /// Its address.
        public var target: String
        /// Steps that were applied to the state.
        public var step: Int
        /// Steps that it repeated.
        public var steps: Int
        /// Calls that it repeated.
        public var calls: Int
        /// Seconds until it had taken over the state.
        public var loadSeconds: Double
        /// Seconds from then until it could compute the current step's rows.
        public var replaySeconds: Double
        /// Seconds that the same calls took when they were first made, added up.
        public var firstCallsSeconds: Double
        /// Seconds from the first of them to the last answer, when they were first made.
        public var firstStepsSeconds: Double
        /// Seconds since then.
        public var age: Double
    }

    /// What one shard does.
    public struct ShardStatus: Sendable, Hashable, Codable {
        /// Its name.
        public var name: String
        /// Steps that were taken.
        public var step: Int
        /// Bytes of its log.
        public var logBytes: Int
        /// Bytes of these that are in files.
        public var logFileBytes: Int
        /// Steps since the state that its log begins with.
        public var logSteps: Int
        /// Why its log's files are not used.
        public var logTrouble: String?
        /// Steps of the state that the trainer keeps.
        public var keptStep: Int
        /// Seconds since it came.
        public var keptAge: Double
        /// Calls that failed, and connections that were lost.
        public var failures: Int
        /// `Backward` calls that were sent again.
        public var repeatedCalls: Int
        /// Its replicas.
        public var replicas: [ReplicaStatus]
        /// The last recoveries of its replicas, the oldest first.
        public var recoveries: [Recovery]
        /// All of them.
        public var recoveryCount: Int
    }

    /// What every shard does.
    public var shards: [ShardStatus] {
        let now = ContinuousClock.now
        return self.links.map { link in link.state.withLock { link.status($0, now: now) } }
    }

    /// What every replica does, by shard.
    public var replicas: [ReplicaStatus] { self.shards.flatMap(\.replicas) }

    /// Adds the current values.
    ///
    /// - Parameter snapshot: Where they go.
    public func collect(into snapshot: inout MetricSnapshot) {
        let table = MetricCatalog.trainingShards
        snapshot.set(table.logLimit, self.logLimit.memory + self.logLimit.files)
        for shard in self.shards {
            for replica in shard.replicas {
                let labels = [shard.name, replica.target]
                for phase in ShardBook.Phase.names {
                    snapshot.set(table.replicaState, labels + [phase], phase == replica.phase ? 1 : 0)
                }
                if let lag = replica.lag { snapshot.set(table.replicaLag, labels, lag) }
                snapshot.set(table.checksTotal, labels + ["agreed"], replica.agreements)
                snapshot.set(table.checksTotal, labels + ["differed"], replica.differences)
                snapshot.set(table.checksTotal, labels + ["unchanged"], replica.memoryChecks)
                snapshot.set(table.checksTotal, labels + ["changed"], replica.memoryChanges)
            }
            snapshot.set(table.failuresTotal, [shard.name], shard.failures)
            snapshot.set(table.repeatedCallsTotal, [shard.name], shard.repeatedCalls)
            snapshot.set(table.recoveriesTotal, [shard.name], shard.recoveryCount)
            snapshot.set(table.logBytes, [shard.name], shard.logBytes)
            snapshot.set(table.logFileBytes, [shard.name], shard.logFileBytes)
            snapshot.set(table.logSteps, [shard.name], shard.logSteps)
        }
        for link in self.links {
            link.state.withLock { state in
                snapshot.set(table.bytesTotal, [link.name, "sent"], state.sentBytes)
                snapshot.set(table.bytesTotal, [link.name, "received"], state.receivedBytes)
                snapshot.set(table.stateBytesTotal, [link.name, "sent"], state.stateBytes.sent)
                snapshot.set(table.stateBytesTotal, [link.name, "received"], state.stateBytes.received)
                snapshot.set(table.frozenBytesTotal, [link.name], state.frozenBytes)
            }
        }
    }
}

extension ShardLink {
    /// The shard's state for people.
    func status(_ state: borrowing State, now: ContinuousClock.Instant) -> ShardedExperts.ShardStatus {
        let book = state.book
        return ShardedExperts.ShardStatus(
            name: self.name,
            step: book?.step ?? 0,
            logBytes: book?.byteCount ?? 0,
            logFileBytes: book?.log.fileByteCount ?? 0,
            logSteps: book.map { $0.keptSteps - 1 } ?? 0,
            logTrouble: state.logTrouble,
            keptStep: book?.keptStep ?? 0,
            keptAge: (now - state.keptTime).seconds,
            failures: state.failures,
            repeatedCalls: state.repeats,
            replicas: self.targets.indices.map { self.status(of: $0, state, now: now) },
            recoveries: state.recoveries.latest.map { recovery in
                ShardedExperts.Recovery(
                    target: self.targets[recovery.replica],
                    step: recovery.step,
                    steps: recovery.steps,
                    calls: recovery.calls,
                    loadSeconds: recovery.load.seconds,
                    replaySeconds: recovery.replay.seconds,
                    firstCallsSeconds: recovery.firstCalls.seconds,
                    firstStepsSeconds: recovery.firstSteps.seconds,
                    age: (now - recovery.end).seconds
                )
            },
            recoveryCount: state.recoveries.count
        )
    }

    private func status(
        of replica: Int,
        _ state: borrowing State,
        now: ContinuousClock.Instant
    ) -> ShardedExperts.ReplicaStatus {
        let book = state.book
        let record = state.records[replica] ?? Record()
        return ShardedExperts.ReplicaStatus(
            shard: self.name,
            target: self.targets[replica],
            phase: book?.replicas[replica].phase.name ?? "away",
            state: book?.state(of: replica) ?? "away",
            lag: book?.lag(of: replica),
            callsBehind: book?.callsBehind(of: replica),
            snapshotStep: record.snapshot?.step,
            snapshotAge: record.snapshot?.time.map { (now - $0).seconds },
            memoryChecks: record.checks,
            memoryChanges: record.changes,
            agreements: record.agreements,
            differences: record.differences,
            trouble: state.troubles[replica]
        )
    }
}

extension ShardBook {
    /// What a replica is for people: serving, behind, recovering or away.
    func state(of replica: Int) -> String {
        let place = self.replicas[replica]
        switch place.phase {
        case .live where place.isRepeating: return "recovering"
        case .live: return place.next < self.stepStart ? "behind" : "serving"
        case .loading, .waiting: return "recovering"
        case .opening where place.failures == 0 && place.hasAnswered: return "recovering"
        case .opening, .away: return "away"
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

extension Duration {
    /// The duration in seconds.
    fileprivate var seconds: Double { self / .seconds(1) }
}
