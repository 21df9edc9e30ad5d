// SPDX-License-Identifier: Apache-2.0

/// Decides which sequences wait, which join and which run: continuous batching as a pure machine.
///
/// A sequence is **queued** until it is **admitted** into batch slots between two steps, and runs in every step until it
/// is retired (it finished), evicted (its client left, or it failed) or expires (its deadline passed).
///
/// Admission is strictly first come, first served. A sequence at the head that needs more slots than are free waits, and
/// nobody overtakes it: the slots that running sequences give back are kept for it, so a wide request cannot starve.
/// The same holds for the encode budget of a step: an input that does not fit into what is left of it stays at the head
/// and is the first of the next step, where even an input above the whole budget is encoded, alone.
///
/// The order of ideas (budgeted admission between steps, the entry that does not fit goes back in front) is that of the
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

    /// The bounds that are kept.
    public let configuration: SchedulerConfiguration

    private var waiting: [Waiting] = []
    private var active: [Running] = []
    private var usedSlots = 0
    private var isDraining = false
    /// Moving average of the time that a slot was taken, in seconds; nil before the first sequence retired.
    private var slotSeconds: Double?

    /// Creates a scheduler without sequences.
    ///
    /// - Parameter configuration: The bounds to keep.
    public init(configuration: SchedulerConfiguration) {
        self.configuration = configuration
    }

    /// Sequences that wait.
    public var queuedCount: Int { self.waiting.count }

    /// Sequences that run.
    public var runningCount: Int { self.active.count }

    /// Batch slots that nobody occupies.
    public var freeSlots: Int { self.configuration.batchSlots - self.usedSlots }

    /// Whether nobody waits or runs.
    public var isIdle: Bool { self.waiting.isEmpty && self.active.isEmpty }

    /// The earliest deadline of all sequences, at which a step plan is due even if nothing else happens.
    public var nextDeadline: ContinuousClock.Instant? {
        (self.waiting.compactMap(\.deadline) + self.active.compactMap(\.deadline)).min()
    }

    /// Asks for a place for a sequence.
    ///
    /// - Parameters:
    ///   - id: The sequence; it must not be known yet.
    ///   - slots: Decoder rows that it needs at once, at least 1.
    ///   - inputTokens: Length of its input.
    ///   - deadline: When its client gives up, or nil.
    ///   - now: The present.
    /// - Returns: Whether it waits or was turned away.
    public mutating func enqueue(
        _ id: SequenceID,
        slots: Int,
        inputTokens: Int,
        deadline: ContinuousClock.Instant?,
        now: ContinuousClock.Instant
    ) -> Admission {
        if self.isDraining {
            return .rejected(.draining, retryAfter: nil)
        }
        guard slots <= self.configuration.batchSlots else {
            return .rejected(.tooWide(slots: slots, limit: self.configuration.batchSlots), retryAfter: nil)
        }
        guard self.waiting.count < self.configuration.queueLimit else {
            return .rejected(.queueFull(limit: self.configuration.queueLimit), retryAfter: self.retryHint)
        }
        self.waiting.append(Waiting(id: id, slots: max(1, slots), inputTokens: inputTokens, deadline: deadline))
        return .queued(ahead: self.waiting.count - 1)
    }

    /// Plans the next step: expires, admits, and lists who is encoded and who is decoded.
    ///
    /// - Parameter now: The present.
    /// - Returns: The plan; empty where there is nothing to do.
    public mutating func nextStep(now: ContinuousClock.Instant) -> StepPlan {
        var plan = StepPlan()
        plan.expired = self.removeExpired(now: now)
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
    ///   - id: The sequence; one that is not running is ignored.
    ///   - now: The present.
    public mutating func retired(_ id: SequenceID, now: ContinuousClock.Instant) {
        guard let index = self.active.firstIndex(where: { $0.id == id }) else { return }
        let sequence = self.active.remove(at: index)
        self.usedSlots -= sequence.slots
        let time = sequence.admitted.duration(to: now)
        let seconds = Double(time.components.seconds) + Double(time.components.attoseconds) * 1e-18
        self.slotSeconds = self.slotSeconds.map { 0.9 * $0 + 0.1 * seconds } ?? seconds
    }

    /// A sequence leaves early, waiting or running: its client left, or it failed.
    ///
    /// - Parameter id: The sequence; an unknown one is ignored.
    public mutating func evicted(_ id: SequenceID) {
        self.waiting.removeAll { $0.id == id }
        guard let index = self.active.firstIndex(where: { $0.id == id }) else { return }
        self.usedSlots -= self.active.remove(at: index).slots
    }

    /// From now on everyone is turned away; those who wait or run finish.
    public mutating func beginDraining() {
        self.isDraining = true
    }

    /// When a place in the queue should be free: the time that the slots need to work off one queue's length, between
    /// 50 ms and 30 s.
    private var retryHint: Duration {
        let waves = Double(self.configuration.queueLimit) / Double(self.configuration.batchSlots)
        let seconds = (self.slotSeconds ?? 1) * max(1, waves) / 2
        return .milliseconds(Int64(min(30_000, max(50, seconds * 1000))))
    }

    private mutating func removeExpired(now: ContinuousClock.Instant) -> [SequenceID] {
        var expired: [SequenceID] = []
        self.waiting.removeAll { entry in
            guard let deadline = entry.deadline, deadline <= now else { return false }
            expired.append(entry.id)
            return true
        }
        var freed = 0
        self.active.removeAll { entry in
            guard let deadline = entry.deadline, deadline <= now else { return false }
            expired.append(entry.id)
            freed += entry.slots
            return true
        }
        self.usedSlots -= freed
        return expired
    }
}
