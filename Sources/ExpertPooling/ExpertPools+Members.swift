// SPDX-License-Identifier: Apache-2.0

internal import RPCCore

// The machine's state of each replica and pool.
extension ExpertPools {
    /// One replica; its slot is kept until its last call has ended.
    struct Replica: Sendable {
        let id: ReplicaID
        let pool: Int
        var state = ReplicaState.disconnected
        /// Attempts in flight, and their token rows.
        var outstanding = 0
        var outstandingRows = 0
        var failuresInARow = 0
        var badRepliesInARow = 0
        /// Deadlines missed without an answer in between, over all its connections: one that takes connections, ends each of
        /// them and never answers must not start afresh with every one.
        var missesInARow = 0
        var overtakesInARow = 0
        var successesInARow = 0
        /// Ejections not forgotten yet.
        var ejections = 0
        /// Ejections since the start.
        var ejectionCount: UInt64 = 0
        var ejectedAt: ContinuousClock.Instant?
        /// Whether it was ejected for missed deadlines, or did not answer a probe.
        var isStalled = false
        /// Probes in a row without an answer.
        var failedProbes = 0
        /// When it may get calls again after a pushback.
        var notBefore: ContinuousClock.Instant?
        /// Whether it has left its pool, and is kept only until its last call has ended.
        var isLeaving = false
        var describeAgain: ContinuousClock.Instant?
        /// Attempts that have ended, by outcome.
        var attempts = AttemptCounts()
        /// Token rows of the answered attempts.
        var rows: UInt64 = 0
        /// Times of the answered attempts.
        var times = CallTimes()
        /// Moving averages of them by ``CallClass``, in seconds, and how many each has seen: siblings are compared by them.
        var classSeconds = [Double](repeating: 0, count: CallClass.count)
        var classSamples = [Int](repeating: 0, count: CallClass.count)
        var description: ReplicaDescription?
    }

    /// One pool.
    struct Pool: Sendable {
        let name: String
        /// Slots of its replicas, except those that are leaving.
        var members: [Int] = []
        /// Slots of the replicas that are ready.
        var ready: [Int] = []
        /// When the last ready replica was lost; nil while there is one, and before the first.
        var lostAt: ContinuousClock.Instant?
        /// Times of calls by ``CallClass``.
        var times = [LatencyDigest](repeating: LatencyDigest(), count: CallClass.count)
        var retryBudget: RetryBudget
        var hedgeTokens: Double
        var counts = PoolCounts()
    }
}
