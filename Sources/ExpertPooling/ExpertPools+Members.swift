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
        /// Their work (``ExpertWork``).
        var outstandingWork = 0
        /// What experts' homes are chosen by (``ExpertAffinity/identity(_:)``).
        var identity: UInt64 = 0
        /// When it last answered a call.
        var lastAnswer: ContinuousClock.Instant?
        var failuresInARow = 0
        var badRepliesInARow = 0
        /// Deadlines missed without an answer in between, over all its connections and processes.
        var missesInARow = 0
        /// Calls that it shed without an answer in between.
        var shedsInARow = 0
        var overtakesInARow = 0
        var successesInARow = 0
        /// Ejections not forgotten yet.
        var ejections = 0
        /// Ejections since the start.
        var ejectionCount: UInt64 = 0
        var ejectedAt: ContinuousClock.Instant?
        /// Whether it was ejected for missed deadlines, or did not answer a probe.
        var isStalled = false
        /// Whether it was ejected for missed deadlines and has answered no call since.
        var isOnTrial = false
        /// Until when an ejection lasts while it has no connection, or is not verified.
        var ejectedUntil: ContinuousClock.Instant?
        /// Probes in a row without an answer.
        var failedProbes = 0
        /// Describe calls in a row without an answer, before it is verified.
        var failedDescribes = 0
        /// Why the last describe call failed; nil once one is answered.
        var trouble: String?
        /// The process that was last known at its address.
        var instance: String?
        /// Processes that were started there since its ejections were last forgotten.
        var restarts = 0
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
        /// What it must prove after an audit caught it; nil if none did, or it has proved itself since.
        var quarantine: Quarantine?
        /// How often it was caught since the start.
        var quarantineCount: UInt64 = 0
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
        /// Whether two replicas differ without a third opinion: then every call is audited.
        var isDisputed = false
        /// Where experts' rows preferably go.
        var homes = Homes()
    }
}

extension ExpertPools {
    /// What is held against the process at an address, which outlives connections.
    struct Record: Sendable {
        var failuresInARow = 0
        var missesInARow = 0
        var ejections = 0
        var restarts = 0
        var failedProbes = 0
        var ejectedAt: ContinuousClock.Instant?
        var ejectedUntil: ContinuousClock.Instant?
        var isOnTrial = false
        var isStalled = false
        var quarantine: Quarantine?
    }

    /// A replica that left its pool with something held against it.
    struct Departed: Sendable {
        /// The most replicas that are remembered.
        static let limit = 1024

        let record: Record
        /// The process that was last known at its address.
        let instance: String?
        let leftAt: ContinuousClock.Instant
    }
}

extension ExpertPools.Replica {
    /// What is held against the process.
    var record: ExpertPools.Record {
        get {
            ExpertPools.Record(
                failuresInARow: self.failuresInARow,
                missesInARow: self.missesInARow,
                ejections: self.ejections,
                restarts: self.restarts,
                failedProbes: self.failedProbes,
                ejectedAt: self.ejectedAt,
                ejectedUntil: self.ejectedUntil,
                isOnTrial: self.isOnTrial,
                isStalled: self.isStalled,
                quarantine: self.quarantine
            )
        }
        set {
            self.failuresInARow = newValue.failuresInARow
            self.missesInARow = newValue.missesInARow
            self.ejections = newValue.ejections
            self.restarts = newValue.restarts
            self.failedProbes = newValue.failedProbes
            self.ejectedAt = newValue.ejectedAt
            self.ejectedUntil = newValue.ejectedUntil
            self.isOnTrial = newValue.isOnTrial
            self.isStalled = newValue.isStalled
            self.quarantine = newValue.quarantine
        }
    }

    /// Takes over what is held against the process at another of its addresses.
    mutating func inherit(_ other: ExpertPools.Record) {
        let own = self.record
        self.record = other
        self.failuresInARow = max(own.failuresInARow, other.failuresInARow)
        self.missesInARow = max(own.missesInARow, other.missesInARow)
        self.ejections = max(own.ejections, other.ejections)
        self.restarts = max(own.restarts, other.restarts)
        self.isOnTrial = own.isOnTrial || other.isOnTrial
        self.quarantine = other.quarantine ?? own.quarantine
        // A proof that is in flight is the other address's.
        self.quarantine?.isProving = false
    }

    /// A probe was answered: the ejection is over, and failures are counted anew.
    mutating func probeAnswered() {
        self.failedProbes = 0
        self.failuresInARow = 0
        self.badRepliesInARow = 0
        self.missesInARow = 0
        self.shedsInARow = 0
        self.ejectedUntil = nil
        self.forgetSpeed()
    }

    /// Forgets how fast it was.
    mutating func forgetSpeed() {
        self.overtakesInARow = 0
        self.successesInARow = 0
        self.classSamples = [Int](repeating: 0, count: CallClass.count)
    }
}
