// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

/// Counts of one pool's calls since the start.
public struct PoolCounts: Sendable, Equatable {
    /// Calls: of each layer one per pool, or one per replica that its experts prefer.
    public var calls: UInt64 = 0
    /// Calls that were sent to a second replica while the first one was silent.
    public var hedges: UInt64 = 0
    /// Hedges that answered first.
    public var hedgesWon: UInt64 = 0
    /// Attempts after a failed one.
    public var retries: UInt64 = 0
    /// Token rows that were dropped.
    public var droppedRows: UInt64 = 0
    /// Experts whose rows of a layer all went to the replica that they prefer.
    public var keptExperts: UInt64 = 0
    /// Experts of which rows of a layer went to another one, since that would have got too much, was slow or took no calls.
    public var yieldedExperts: UInt64 = 0
    /// Its audits.
    public var audits = AuditCounts()

    /// Creates counts of zero.
    public init() {}
}

/// Counters and state of one replica, for `switchyard status` and metrics.
public struct ReplicaReport: Sendable, Equatable {
    /// The replica.
    public var id: ReplicaID
    /// Its state.
    public var state: ReplicaState
    /// Attempts in flight.
    public var outstanding: Int
    /// Token rows of the attempts in flight.
    public var outstandingRows: Int
    /// Attempts that have ended, by outcome.
    public var attempts: AttemptCounts
    /// How often it was ejected.
    public var ejections: UInt64
    /// Token rows of the answered attempts.
    public var rows: UInt64
    /// Times of the answered attempts.
    public var times: CallTimes
    /// How often an audit caught it.
    public var catches: UInt64
    /// Proofs in a row that it has given since it was last caught; nil if it need give none.
    public var proofs: Int?
    /// Its description, once it has sent one.
    public var description: ReplicaDescription?
    /// Why the last describe call failed; nil if the last one did not.
    public var trouble: String?

    /// Attempts that were answered.
    public var succeeded: UInt64 { self.attempts[.answered] }
    /// Attempts that failed.
    public var failed: UInt64 { self.attempts.failed }
}

extension ExpertPools {
    /// All replicas, ordered by pool and address.
    public var reports: [ReplicaReport] {
        self.replicas.filter { self.slot(of: $0.id) != nil && !$0.isLeaving }.sorted { $0.id < $1.id }
            .map { replica in
                ReplicaReport(
                    id: replica.id,
                    state: replica.state,
                    outstanding: replica.outstanding,
                    outstandingRows: replica.outstandingRows,
                    attempts: replica.attempts,
                    ejections: replica.ejectionCount,
                    rows: replica.rows,
                    times: replica.times,
                    catches: replica.quarantineCount,
                    proofs: replica.quarantine?.proofs,
                    description: replica.description,
                    trouble: replica.trouble
                )
            }
    }

    /// The pools whose replicas differ without a third opinion.
    public var disputedPools: Set<String> { Set(self.pools.lazy.filter(\.isDisputed).map(\.name)) }

    /// Counts of each pool's calls since the start, by pool name.
    public var counts: [String: PoolCounts] {
        Dictionary(uniqueKeysWithValues: self.pools.map { ($0.name, $0.counts) })
    }
}
