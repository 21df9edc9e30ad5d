// SPDX-License-Identifier: Apache-2.0

/// Decides which sequences wait, join and run: continuous batching as a pure machine.
///
/// A sequence is **queued** until it is **admitted** into batch slots between two steps, and runs in every step until it
/// is retired (it finished), evicted (its client left, or it failed) or expires (its deadline passed).
///
/// Admission is strictly first come, first served. A sequence at the head that needs more slots than are free waits,
/// and none overtakes it: the slots that running sequences give back are kept for it, so a wide request cannot starve.
/// The same holds for the encode budget of a step: an input that does not fit into the rest of it stays at the head and
/// comes first in the next step, where even an input above the whole budget is encoded, alone.
///
/// The approach (budgeted admission between steps, the entry that does not fit goes back in front) is that of the
/// continuous batching queue in https://github.com/huggingface/text-generation-inference, without its clock: time is a
/// parameter here.
public struct BatchScheduler: Sendable {
    private struct Waiting: Sendable {
        var id: SequenceID
        var slots: Int
        var inputTokens: Int
        var deadline: ContinuousClock.Instant?
    }

    private struct Running: Sendable {
        var id: SequenceID
        var slots: Int
        var deadline: ContinuousClock.Instant?
        var admitted: ContinuousClock.Instant
    }

    /// The bounds to enforce.
    public let configuration: SchedulerConfiguration

    private var waiting: [Waiting] = []
    private var active: [Running] = []
    private var usedSlots = 0
    /// Sequences that expired between two steps; the next plan lists them.
    private var expiredEarly: [SequenceID] = []
    /// Moving average of the time from admission to retirement, in seconds; nil before the first sequence retired.
    private var serviceSeconds: Double?

    /// Whether every sequence is rejected, since ``beginDraining()``.
    public private(set) var isDraining = false

    /// Creates a scheduler without sequences.
    ///
    /// - Parameter configuration: The bounds to enforce.
    public init(configuration: SchedulerConfiguration) {
        self.configuration = configuration
    }

    /// Sequences that wait.
    public var queuedCount: Int { self.waiting.count }

    /// Sequences that run.
    public var runningCount: Int { self.active.count }

    /// Free batch slots.
    public var freeSlots: Int { self.configuration.batchSlots - self.usedSlots }

    /// Whether no sequence waits or runs, and no expiry is left to report.
    public var isIdle: Bool { self.waiting.isEmpty && self.active.isEmpty && self.expiredEarly.isEmpty }

    /// The rejection that any sequence would get now, whatever it needs.
    ///
    /// For callers that reject requests before doing any work for them, and for sequences that come together.
    ///
    /// - Parameters:
    ///   - count: How many sequences need a place.
    ///   - now: The present.
    /// - Returns: The rejection; nil if there may be a place for all of them.
    public func rejection(of count: Int = 1, now: ContinuousClock.Instant) -> Admission? {
        if self.isDraining {
            return .rejected(.draining, retryAfter: nil)
        }
        let limit = self.configuration.queueLimit
        let waiting = self.waiting.count { !Self.hasPassed($0.deadline, now) }
        guard waiting > limit - count else {
            return nil
        }
        let reason: RejectionReason =
            waiting >= limit ? .queueFull(limit: limit) : .noRoom(sequences: count, waiting: waiting, limit: limit)
        return .rejected(reason, retryAfter: self.retryHint)
    }

    /// Enqueues a sequence.
    ///
    /// - Parameters:
    ///   - id: The sequence; it must neither wait nor run.
    ///   - slots: Decoder rows that it needs at once, at least 1: one for each beam or returned sequence.
    ///   - inputTokens: Length of its input, at least 0.
    ///   - deadline: When its client gives up, or nil.
    ///   - now: The present.
    /// - Returns: Whether it waits or was rejected.
    public mutating func enqueue(
        _ id: SequenceID,
        slots: Int,
        inputTokens: Int,
        deadline: ContinuousClock.Instant?,
        now: ContinuousClock.Instant
    ) -> Admission {
        precondition(slots >= 1 && inputTokens >= 0, "a sequence needs a slot and cannot have a negative length")
        precondition(!self.isKnown(id), "the sequence \(id) is already waiting or running")
        if self.isDraining {
            return .rejected(.draining, retryAfter: nil)
        }
        guard slots <= self.configuration.batchSlots else {
            return .rejected(.tooWide(slots: slots, limit: self.configuration.batchSlots), retryAfter: nil)
        }
        if self.waiting.count >= self.configuration.queueLimit {
            // Sequences whose client has given up must not keep others out.
            self.expiredEarly += self.removeExpiredWaiting(now: now)
        }
        guard self.waiting.count < self.configuration.queueLimit else {
            return .rejected(.queueFull(limit: self.configuration.queueLimit), retryAfter: self.retryHint)
        }
        self.waiting.append(Waiting(id: id, slots: slots, inputTokens: inputTokens, deadline: deadline))
        return .queued(ahead: self.waiting.count - 1)
    }

    /// Plans the next step: expires, admits, and lists which sequences are encoded and decoded.
    ///
    /// - Parameter now: The present.
    /// - Returns: The plan; empty where there is nothing to do.
    public mutating func nextStep(now: ContinuousClock.Instant) -> StepPlan {
        var plan = StepPlan()
        plan.expired = self.expiredEarly + self.removeExpiredWaiting(now: now) + self.removeExpiredRunning(now: now)
        self.expiredEarly = []
        var budget = self.configuration.encodeTokensPerStep
        var admitted = 0
        while admitted < self.waiting.count {
            let head = self.waiting[admitted]
            guard head.slots <= self.freeSlots else { break }
            guard head.inputTokens <= budget || admitted == 0 else { break }
            budget -= head.inputTokens
            self.usedSlots += head.slots
            self.active.append(Running(id: head.id, slots: head.slots, deadline: head.deadline, admitted: now))
            plan.encodes.append(head.id)
            admitted += 1
        }
        self.waiting.removeFirst(admitted)
        plan.decodes = self.active.map(\.id)
        return plan
    }

    /// A sequence finished: its slots are free again.
    ///
    /// - Parameters:
    ///   - id: The sequence; one that is not running is ignored, since it may have expired or left meanwhile.
    ///   - now: The present.
    public mutating func retired(_ id: SequenceID, now: ContinuousClock.Instant) {
        guard let sequence = self.removeRunning(id) else { return }
        let time = sequence.admitted.duration(to: now).components
        let seconds = Double(time.seconds) + Double(time.attoseconds) * 1e-18
        self.serviceSeconds = self.serviceSeconds.map { 0.9 * $0 + 0.1 * seconds } ?? seconds
    }

    /// A sequence leaves early, waiting or running: its client left, or it failed.
    ///
    /// - Parameter id: The sequence; an unknown one is ignored, since it may have ended meanwhile.
    public mutating func evicted(_ id: SequenceID) {
        self.waiting.removeAll { $0.id == id }
        _ = self.removeRunning(id)
    }

    /// Rejects every sequence from now on; waiting and running ones finish.
    public mutating func beginDraining() {
        self.isDraining = true
    }

    // MARK: - Inside

    /// How long the batch slots need to work off the queue: mean service time × slots asked for ÷ slots there are.
    private var retryHint: Duration {
        let wanted = self.waiting.reduce(0) { $0 + $1.slots }
        let rounds = Double(wanted) / Double(self.configuration.batchSlots)
        let hint = Duration.seconds(rounds * (self.serviceSeconds ?? Self.assumedServiceSeconds))
        let bounds = self.configuration.retryHintBounds
        return min(hint.roundedUpToFewValues(from: bounds.lowerBound), bounds.upperBound)
    }

    /// The assumed service time before any sequence has retired.
    private static let assumedServiceSeconds = 1.0

    private func isKnown(_ id: SequenceID) -> Bool {
        self.waiting.contains { $0.id == id } || self.active.contains { $0.id == id }
    }

    private mutating func removeRunning(_ id: SequenceID) -> Running? {
        guard let index = self.active.firstIndex(where: { $0.id == id }) else { return nil }
        let sequence = self.active.remove(at: index)
        self.usedSlots -= sequence.slots
        return sequence
    }

    private mutating func removeExpiredWaiting(now: ContinuousClock.Instant) -> [SequenceID] {
        let expired = self.waiting.filter { Self.hasPassed($0.deadline, now) }.map(\.id)
        self.waiting.removeAll { Self.hasPassed($0.deadline, now) }
        return expired
    }

    private mutating func removeExpiredRunning(now: ContinuousClock.Instant) -> [SequenceID] {
        let expired = self.active.filter { Self.hasPassed($0.deadline, now) }
        self.active.removeAll { Self.hasPassed($0.deadline, now) }
        self.usedSlots -= expired.reduce(0) { $0 + $1.slots }
        return expired.map(\.id)
    }

    private static func hasPassed(_ deadline: ContinuousClock.Instant?, _ now: ContinuousClock.Instant) -> Bool {
        deadline.map { $0 <= now } ?? false
    }
}

extension Duration {
    /// The next of the values 1, 1.5, 2, 3, 4, 6, 8, … times a unit, so that answers which hold it repeat.
    fileprivate func roundedUpToFewValues(from unit: Duration) -> Duration {
        guard unit > .zero else { return self }
        var value = unit
        while value < self {
            if value + value / 2 >= self { return value + value / 2 }
            value = value * 2
        }
        return value
    }
}
