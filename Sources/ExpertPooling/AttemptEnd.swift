// SPDX-License-Identifier: Apache-2.0

internal import RPCCore
internal import SwitchyardTypes

/// How an attempt of a call ended.
public enum AttemptOutcome: Sendable, Hashable, CaseIterable {
    /// Answered, and the answer is good.
    case answered
    /// Failed, or its answer cannot be used.
    case failed(CallFailure)
    /// Given up because another replica answered its call first, after a hedge.
    case overtaken
    /// Given up at the layer's deadline without a fair time to answer; says nothing about the replica.
    case outOfTime
    /// Given up because no client waits for it any more; says nothing about the replica.
    case cancelled

    /// Every outcome.
    public static let allCases: [AttemptOutcome] =
        [.answered] + CallFailure.allCases.map { .failed($0) } + [.overtaken, .outOfTime, .cancelled]

    /// The outcome's index in ``AttemptCounts``.
    var index: Int {
        switch self {
        case .answered: 0
        case .overtaken: 1
        case .outOfTime: 2
        case .cancelled: 3
        case .failed(let failure): 4 + failure.rawValue
        }
    }
}

/// How many attempts ended in each way.
public struct AttemptCounts: Sendable, Equatable {
    private var counts = [UInt64](repeating: 0, count: AttemptOutcome.allCases.count)

    /// How many attempts ended in one way.
    public internal(set) subscript(outcome: AttemptOutcome) -> UInt64 {
        get { self.counts[outcome.index] }
        set { self.counts[outcome.index] = newValue }
    }

    /// How many attempts ended in any of some ways.
    ///
    /// - Parameter isCounted: Whether attempts that ended in this way count.
    /// - Returns: Their number.
    public func total(where isCounted: (AttemptOutcome) -> Bool) -> UInt64 {
        AttemptOutcome.allCases.reduce(0) { isCounted($1) ? $0 + self[$1] : $0 }
    }

    /// How many attempts failed.
    public var failed: UInt64 {
        self.total { if case .failed = $0 { true } else { false } }
    }
}

/// The end of an attempt: everything counted, learned and decided when it ends follows from this value.
struct AttemptEnd: Sendable {
    /// Slot of the replica, which also says the pool.
    let slot: Int
    /// The class of calls that its time is compared with: the same stack, and about as many rows.
    let kind: CallClass
    /// Token rows that it carried.
    let rows: Int
    /// Their work (``ExpertWork``).
    let work: Int
    /// When it was sent.
    let started: ContinuousClock.Instant
    /// When it ended.
    let ended: ContinuousClock.Instant
    /// How it ended.
    let outcome: AttemptOutcome

    /// How long it took.
    var time: Duration { self.started.duration(to: self.ended) }
}

// The only place where an attempt ends.
extension ExpertPools {
    /// Ends an attempt: it is no longer in flight, counts, times and budgets are updated, and its replica may be
    /// ejected.
    ///
    /// - Parameter end: Which attempt, and how it ended.
    /// - Returns: The replica's ejection, if it failed once too often or is too slow.
    mutating func attemptEnded(_ end: AttemptEnd) -> [PoolAction] {
        self.release(end)
        guard !self.replicas[end.slot].isLeaving else { return [] }
        let pool = self.replicas[end.slot].pool
        let time = end.time
        switch end.outcome {
        case .answered:
            self.pools[pool].retryBudget.succeeded()
            self.pools[pool].times[end.kind.index].add(time)
        case .failed(let failure):
            self.pools[pool].retryBudget.failed()
            // It would have taken at least this long: percentiles without such calls would be too low.
            if failure == .deadline { self.pools[pool].times[end.kind.index].add(time) }
        case .overtaken:
            self.pools[pool].times[end.kind.index].add(time)
        case .outOfTime, .cancelled:
            break
        }
        self.replicas[end.slot].attemptEnded(end, seconds: time.inSeconds)
        if case .answered = end.outcome,
            self.replicas[end.slot].successesInARow >= self.configuration.successesToForgive
        {
            self.replicas[end.slot].ejections = 0
            self.replicas[end.slot].restarts = 0
        }
        return self.ejection(after: end)
    }

    private mutating func release(_ end: AttemptEnd) {
        guard self.replicas[end.slot].outstanding > 0 else { return }
        self.replicas[end.slot].outstanding -= 1
        self.replicas[end.slot].outstandingRows -= min(end.rows, self.replicas[end.slot].outstandingRows)
        self.replicas[end.slot].outstandingWork -= min(end.work, self.replicas[end.slot].outstandingWork)
        self.forgetIfDone(end.slot)
    }
}

extension ExpertPools.Replica {
    /// Counts an attempt, and what it says about the replica's health and speed.
    fileprivate mutating func attemptEnded(_ end: AttemptEnd, seconds: Double) {
        self.attempts[end.outcome] += 1
        switch end.outcome {
        case .answered:
            self.rows += UInt64(end.rows)
            self.lastAnswer = end.ended
            self.failuresInARow = 0
            self.badRepliesInARow = 0
            self.missesInARow = 0
            self.shedsInARow = 0
            self.isOnTrial = false
            self.overtakesInARow = 0
            self.successesInARow += 1
            self.times.add(seconds)
            self.addToAverage(of: end.kind, seconds)
        case .failed(.overloaded):
            // A healthy host sheds load when it gets too much.
            self.shedsInARow += 1
        case .failed(let failure):
            self.failuresInARow += 1
            self.successesInARow = 0
            if failure == .badReply { self.badRepliesInARow += 1 }
            if failure == .deadline { self.missesInARow += 1 }
        case .overtaken:
            self.overtakesInARow += 1
            self.successesInARow = 0
        case .outOfTime, .cancelled:
            break
        }
    }

    private mutating func addToAverage(of kind: CallClass, _ seconds: Double) {
        let samples = self.classSamples[kind.index]
        let average = self.classSeconds[kind.index]
        self.classSamples[kind.index] = samples + 1
        guard samples > 0 else {
            self.classSeconds[kind.index] = seconds
            return
        }
        // One stall must not look like a slow host: an average moves by a bounded step.
        let bounded = min(seconds, 4 * average + 0.001)
        self.classSeconds[kind.index] = average + 0.1 * (bounded - average)
    }
}
