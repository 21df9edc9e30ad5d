// SPDX-License-Identifier: Apache-2.0

/// How long replicas of a shard take until they are of use again: to take over a state, and to repeat what came since.
///
/// A value that takes events and time. It compares the repetition with the time that the same calls took when they were first made.
struct RecoveryTimes: Sendable {
    /// One replica that took over a state, and can compute the current step's rows again.
    struct Recovery: Sendable, Hashable {
        var replica: Int
        /// Steps that were applied to the state.
        var step: Int
        /// Steps that it repeated.
        var steps: Int
        /// Calls that it repeated.
        var calls: Int
        /// Until it had taken over the state.
        var load: Duration
        /// From then until it could compute the current step's rows.
        var replay: Duration
        /// The same calls when they were first made, from when each was sent until it was answered, added up.
        var firstCalls: Duration
        /// From when the first of them was sent for the first time until the last was answered.
        var firstSteps: Duration
        /// When it ended.
        var end: ContinuousClock.Instant
    }

    private struct Running {
        var step: Int
        var begin: ContinuousClock.Instant
        var loaded: ContinuousClock.Instant?
        var calls = 0
        var firstCalls = Duration.zero
        var firstSent: ContinuousClock.Instant?
        var lastAnswer: ContinuousClock.Instant?
    }

    private struct Call {
        var sent: ContinuousClock.Instant
        var answered: ContinuousClock.Instant?
    }

    /// How many are kept.
    static let most = 256

    private var running: [Int: Running] = [:]
    private var calls: [Int: Call] = [:]
    /// The last ones, the oldest first.
    private(set) var latest: [Recovery] = []
    /// All.
    private(set) var count = 0

    /// A replica begins to take over a state.
    mutating func loads(_ replica: Int, step: Int, now: ContinuousClock.Instant) {
        self.running[replica] = Running(step: step, begin: now)
    }

    /// It has taken it over.
    mutating func loaded(_ replica: Int, now: ContinuousClock.Instant) { self.running[replica]?.loaded = now }

    /// It failed.
    mutating func failed(_ replica: Int) { self.running[replica] = nil }

    /// An entry was sent; where it was not answered before, it is made for the first time now.
    mutating func sent(_ index: Int, now: ContinuousClock.Instant) {
        if self.calls[index]?.answered == nil { self.calls[index] = Call(sent: now) }
    }

    /// An entry was answered.
    mutating func answered(_ index: Int, by replica: Int, now: ContinuousClock.Instant) {
        guard let call = self.calls[index] else { return }
        guard let first = call.answered else {
            self.calls[index]?.answered = now
            return
        }
        guard var running = self.running[replica], running.loaded != nil else { return }
        running.calls += 1
        running.firstCalls += first - call.sent
        running.firstSent = min(running.firstSent ?? call.sent, call.sent)
        running.lastAnswer = max(running.lastAnswer ?? first, first)
        self.running[replica] = running
    }

    /// A replica can compute the rows of a step.
    mutating func serves(_ replica: Int, step: Int, now: ContinuousClock.Instant) {
        guard let running = self.running[replica], let loaded = running.loaded else { return }
        self.running[replica] = nil
        self.count += 1
        let span = running.firstSent.flatMap { sent in running.lastAnswer.map { $0 - sent } } ?? .zero
        self.latest.append(
            Recovery(
                replica: replica,
                step: running.step,
                steps: step - running.step,
                calls: running.calls,
                load: loaded - running.begin,
                replay: now - loaded,
                firstCalls: running.firstCalls,
                firstSteps: span,
                end: now
            )
        )
        if self.latest.count > Self.most { self.latest.removeFirst() }
    }

    /// Entries that are gone, at either end of the log.
    mutating func keep(_ indices: Range<Int>) {
        if self.calls.keys.contains(where: { !indices.contains($0) }) {
            self.calls = self.calls.filter { indices.contains($0.key) }
        }
    }
}
