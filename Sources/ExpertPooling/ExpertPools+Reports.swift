// SPDX-License-Identifier: Apache-2.0

/// What one pool's calls came to since the beginning.
public struct PoolCounts: Sendable, Equatable {
    /// Calls: one for each layer and pool.
    public var calls: UInt64 = 0
    /// Calls that were sent to a second replica while the first one was silent.
    public var hedges: UInt64 = 0
    /// Hedges that were answered first.
    public var hedgesWon: UInt64 = 0
    /// Attempts after a failed one.
    public var retries: UInt64 = 0
    /// Token rows that were given up.
    public var droppedRows: UInt64 = 0

    /// Creates counts of nothing.
    public init() {}
}

/// Counters and state of one replica, for people and metrics.
public struct ReplicaReport: Sendable, Equatable {
    /// The replica.
    public var id: ReplicaID
    /// Where it stands.
    public var state: ReplicaState
    /// Calls that are out.
    public var outstanding: Int
    /// Calls that were answered.
    public var succeeded: UInt64
    /// Calls that failed.
    public var failed: UInt64
    /// How often it was left alone.
    public var ejections: UInt64
    /// Token rows of the answered calls.
    public var rows: UInt64
    /// Moving average of an answered call's time; nil before the first.
    public var latency: Duration?
    /// What it holds, once it has said so.
    public var description: ReplicaDescription?
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
                    succeeded: replica.succeeded,
                    failed: replica.failed,
                    ejections: replica.ejectionCount,
                    rows: replica.rows,
                    latency: replica.latencySeconds.map { .fromSeconds($0) },
                    description: replica.description
                )
            }
    }

    /// What each pool's calls came to since the beginning, by the pools' names.
    public var counts: [String: PoolCounts] {
        Dictionary(uniqueKeysWithValues: self.pools.map { ($0.name, $0.counts) })
    }

    /// How long a pool's calls with some rows took lately.
    ///
    /// - Parameters:
    ///   - pool: Name of the pool.
    ///   - isDecoder: Whether the calls are the decoder's.
    ///   - rows: Their number of rows; calls with about as many are looked at.
    ///   - fraction: The percentile, above 0 and at most 1.
    /// - Returns: The percentile; nil before enough calls were seen.
    public mutating func observedTime(of pool: String, isDecoder: Bool, rows: Int, fraction: Double) -> Duration? {
        let call = CallClass(isDecoder: isDecoder, rows: rows)
        return self.pools[self.poolIndex(of: pool)].times[call.index]
            .percentile(fraction, minimumCount: self.configuration.samplesToBelieve)
    }
}
