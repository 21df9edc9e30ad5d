// SPDX-License-Identifier: Apache-2.0

/// Decides which sequences wait, join and run: continuous batching as a pure machine.
///
/// A sequence is **queued** until it is **admitted** into batch slots between two steps, and runs in every step until it
/// is retired (it finished), evicted (its client left, or it failed) or expires (its deadline passed).
///
/// Callers take turns (``FairTurns``): the next sequence is that of the caller which has been given the least work,
/// counted in tokens times rows. Among a caller's own sequences priority decides, and otherwise their arrival
/// (``CallPriority/reach``). Four rules keep one caller from holding up the others:
///
/// - A sequence whose turn it is and that needs more slots than are free waits, and none overtakes it: the slots that
///   running sequences give back are kept for it, so a wide request cannot starve.
/// - Meanwhile callers that hold no slot at all may join with up to ``SchedulerConfiguration/guestSlots`` rows beside the
///   batch slots, so that none waits for the end of another's wide or long request.
/// - A caller gets no more than ``SchedulerConfiguration/callerShare`` of the slots, except for its only sequence, while
///   others wait whose sequences fit.
/// - In a full queue, a caller with at least two places less than the one with the most takes a place from it.
///
/// An input that does not fit into the rest of a step's encode budget stays at the head and comes first in the next step,
/// where even an input above the whole budget is encoded, alone.
///
/// The approach (budgeted admission between steps, the entry that does not fit goes back in front) is that of the
/// continuous batching queue in https://github.com/huggingface/text-generation-inference, without its clock: time is a
/// parameter here.
public struct BatchScheduler: Sendable {
    private struct Running: Sendable {
        var id: SequenceID
        var needs: SequenceNeeds
        var admitted: ContinuousClock.Instant
        /// Whether it runs beside the batch slots.
        var isGuest: Bool
    }

    /// The bounds to enforce.
    public let configuration: SchedulerConfiguration

    private var waiting = CallerQueues()
    private var active: [Running] = []
    private var usedSlots = 0
    private var usedGuestSlots = 0
    /// Slots that run, by caller; none is 0.
    private var held: [String: Int] = [:]
    /// Sequences that expired between two steps; the next plan lists them.
    private var expiredEarly: [SequenceID] = []
    /// Sequences that were rejected between two steps, likewise.
    private var rejectedEarly: [LateRejection] = []
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

    /// Callers that wait.
    public var queuedCallers: Int { self.waiting.callerCount }

    /// Sequences that run.
    public var runningCount: Int { self.active.count }

    /// Free batch slots.
    public var freeSlots: Int { self.configuration.batchSlots - self.usedSlots }

    /// Rows that run beside the batch slots.
    public var guestSlots: Int { self.usedGuestSlots }

    /// Whether no sequence waits or runs, and no early end is left to report.
    public var isIdle: Bool {
        self.waiting.count == 0 && self.active.isEmpty && self.expiredEarly.isEmpty && self.rejectedEarly.isEmpty
    }

    /// The rejection that a caller's sequences would get now, whatever they need.
    ///
    /// For callers that reject requests before doing any work for them, and for sequences that come together. Its cost does
    /// not grow with the queue, unless sequences in it have expired.
    ///
    /// - Parameters:
    ///   - count: How many sequences need a place.
    ///   - caller: Who sends them.
    ///   - now: The present.
    /// - Returns: The rejection; nil if there may be a place for all of them.
    public func rejection(of count: Int = 1, from caller: String = "", now: ContinuousClock.Instant) -> Admission? {
        if self.isDraining {
            return .rejected(.draining, retryAfter: nil)
        }
        let limit = self.configuration.queueLimit
        let waiting = self.waiting.count(now: now)
        guard waiting > limit - count else {
            return nil
        }
        let free = max(0, limit - waiting)
        // More than the queue holds never fit.
        if count <= limit, self.waiting.mayDisplace(for: caller, free: free, taken: count - free) {
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
    ///   - needs: What it needs, and of whom.
    ///   - now: The present.
    /// - Returns: Whether it waits or was rejected.
    public mutating func enqueue(
        _ id: SequenceID,
        _ needs: SequenceNeeds,
        now: ContinuousClock.Instant
    ) -> Admission {
        precondition(
            needs.slots >= 1 && needs.inputTokens >= 0,
            "a sequence needs a slot and cannot have a negative length"
        )
        precondition(!self.isKnown(id), "the sequence \(id) is already waiting or running")
        if self.isDraining {
            return .rejected(.draining, retryAfter: nil)
        }
        guard needs.slots <= self.configuration.batchSlots else {
            return .rejected(.tooWide(slots: needs.slots, limit: self.configuration.batchSlots), retryAfter: nil)
        }
        let limit = self.configuration.queueLimit
        if self.waiting.count >= limit {
            // Sequences whose client has given up must not keep others out.
            self.removeOver(now: now)
        }
        if self.waiting.count >= limit {
            guard let displaced = self.waiting.displace(for: needs.caller) else {
                return .rejected(.queueFull(limit: limit), retryAfter: self.retryHint)
            }
            self.rejectedEarly.append(
                LateRejection(id: displaced.id, reason: .displaced(limit: limit), retryAfter: self.retryHint)
            )
        }
        self.waiting.add(id, needs, now: now)
        return .queued(ahead: self.waiting.count - 1)
    }

    /// Plans the next step: expires, admits, and lists which sequences are encoded and decoded.
    ///
    /// - Parameter now: The present.
    /// - Returns: The plan; empty where there is nothing to do.
    public mutating func nextStep(now: ContinuousClock.Instant) -> StepPlan {
        self.removeOver(now: now)
        var plan = StepPlan(
            expired: self.expiredEarly + self.removeExpiredRunning(now: now),
            rejected: self.rejectedEarly
        )
        self.expiredEarly = []
        self.rejectedEarly = []
        var budget = self.configuration.encodeTokensPerStep
        while let (caller, isGuest) = self.nextCaller(budget: budget, isFirst: plan.encodes.isEmpty) {
            guard let call = self.waiting.takeFirst(of: caller) else { break }
            budget -= call.needs.inputTokens
            self.admit(call, isGuest: isGuest, now: now)
            plan.encodes.append(call.id)
        }
        plan.decodes = self.active.map(\.id)
        return plan
    }

    /// A sequence finished: its slots are free again.
    ///
    /// - Parameters:
    ///   - id: The sequence; one that is not running is ignored, since it may have expired or left meanwhile.
    ///   - work: The work that it took, in tokens times rows; nil if that is not known.
    ///   - now: The present.
    public mutating func retired(_ id: SequenceID, work: Int? = nil, now: ContinuousClock.Instant) {
        guard let sequence = self.removeRunning(id) else { return }
        if let work { self.waiting.credited(sequence.needs.caller, work: sequence.needs.work - work) }
        let time = sequence.admitted.duration(to: now).components
        let seconds = Double(time.seconds) + Double(time.attoseconds) * 1e-18
        self.serviceSeconds = self.serviceSeconds.map { 0.9 * $0 + 0.1 * seconds } ?? seconds
    }

    /// A sequence leaves early, waiting or running: its client left, or it failed.
    ///
    /// - Parameter id: The sequence; an unknown one is ignored, since it may have ended meanwhile.
    public mutating func evicted(_ id: SequenceID) {
        guard self.waiting.remove(id) == nil, self.removeRunning(id) == nil else { return }
        // It may have lost its place since the last step; it must not end twice.
        self.rejectedEarly.removeAll { $0.id == id }
        self.expiredEarly.removeAll { $0 == id }
    }

    /// Rejects every sequence from now on; waiting and running ones finish.
    public mutating func beginDraining() {
        self.isDraining = true
    }

    // MARK: - Inside

    /// How long the batch slots need to work off the queue: mean service time × slots asked for ÷ slots there are.
    private var retryHint: Duration {
        let rounds = Double(self.waiting.slots) / Double(self.configuration.batchSlots)
        let hint = Duration.seconds(rounds * (self.serviceSeconds ?? Self.assumedServiceSeconds))
        let bounds = self.configuration.retryHintBounds
        return min(hint.roundedUpToFewValues(from: bounds.lowerBound), bounds.upperBound)
    }

    /// The assumed service time before any sequence has retired.
    private static let assumedServiceSeconds = 1.0

    private func isKnown(_ id: SequenceID) -> Bool {
        self.waiting.contains(id) || self.active.contains { $0.id == id }
    }

    /// Whose sequence joins next, and whether beside the batch slots.
    ///
    /// - Parameters:
    ///   - budget: What is left of the step's encode budget.
    ///   - isFirst: Whether none has joined in this step.
    /// - Returns: The caller; nil if no more joins in this step.
    private func nextCaller(budget: Int, isFirst: Bool) -> (caller: String, isGuest: Bool)? {
        guard self.waiting.count > 0, self.freeSlots > 0 || self.usedGuestSlots < self.configuration.guestSlots else {
            return nil
        }
        let heads = self.waiting.heads
        guard let first = heads.first else { return nil }
        // A caller that has its share lets others go first whose requests fit, but leaves no slot unused for them.
        let next =
            self.isWithinShare(first)
            ? first : heads.first { self.isWithinShare($0) && $0.needs.slots <= self.freeSlots } ?? first
        if next.needs.slots <= self.freeSlots {
            return next.needs.inputTokens <= budget || isFirst ? (next.needs.caller, false) : nil
        }
        // Its slots are kept for it; others can be guests.
        let room = self.configuration.guestSlots - self.usedGuestSlots
        let guest = heads.first { self.held[$0.needs.caller] == nil && $0.needs.slots <= room }
        guard let guest, guest.needs.inputTokens <= budget || isFirst else { return nil }
        return (guest.needs.caller, true)
    }

    /// Whether a caller holds no more than its share with its first sequence, or that one alone.
    private func isWithinShare(_ call: CallerQueues.Waiting) -> Bool {
        guard let held = self.held[call.needs.caller] else { return true }
        return held + call.needs.slots <= self.configuration.callerSlots
    }

    private mutating func admit(_ call: CallerQueues.Waiting, isGuest: Bool, now: ContinuousClock.Instant) {
        if isGuest { self.usedGuestSlots += call.needs.slots } else { self.usedSlots += call.needs.slots }
        self.held[call.needs.caller, default: 0] += call.needs.slots
        self.active.append(Running(id: call.id, needs: call.needs, admitted: now, isGuest: isGuest))
    }

    private mutating func removeRunning(_ id: SequenceID) -> Running? {
        guard let index = self.active.firstIndex(where: { $0.id == id }) else { return nil }
        let sequence = self.active.remove(at: index)
        self.free(sequence)
        return sequence
    }

    private mutating func free(_ sequence: Running) {
        let (slots, caller) = (sequence.needs.slots, sequence.needs.caller)
        if sequence.isGuest { self.usedGuestSlots -= slots } else { self.usedSlots -= slots }
        let left = (self.held[caller] ?? slots) - slots
        self.held[caller] = left > 0 ? left : nil
    }

    /// Ends the waits of sequences whose client gave up, or that have waited too long.
    private mutating func removeOver(now: ContinuousClock.Instant) {
        for call in self.waiting.removeOver(now: now) {
            if call.isExpired(now) {
                self.expiredEarly.append(call.id)
            } else {
                let timeout = call.needs.queueTimeout ?? .zero
                self.rejectedEarly.append(
                    LateRejection(id: call.id, reason: .waitedTooLong(timeout), retryAfter: self.retryHint)
                )
            }
        }
    }

    private mutating func removeExpiredRunning(now: ContinuousClock.Instant) -> [SequenceID] {
        let expired = self.active.filter { $0.needs.deadline.map { $0 <= now } ?? false }
        guard !expired.isEmpty else { return [] }
        self.active.removeAll { $0.needs.deadline.map { $0 <= now } ?? false }
        for sequence in expired { self.free(sequence) }
        return expired.map(\.id)
    }

    // MARK: - Rules

    /// What must hold after every event.
    ///
    /// - Returns: The first rule that does not hold; nil if all do.
    public func checkInvariants() -> String? {
        if let problem = self.waiting.checkInvariants() { return problem }
        let slots = self.active.filter { !$0.isGuest }.reduce(0) { $0 + $1.needs.slots }
        let guests = self.active.filter(\.isGuest).reduce(0) { $0 + $1.needs.slots }
        if slots != self.usedSlots || slots > self.configuration.batchSlots { return "\(slots) batch slots are used" }
        if guests != self.usedGuestSlots || guests > self.configuration.guestSlots {
            return "\(guests) guest slots are used"
        }
        if self.waiting.count > self.configuration.queueLimit { return "\(self.waiting.count) sequences wait" }
        var held: [String: Int] = [:]
        for sequence in self.active { held[sequence.needs.caller, default: 0] += sequence.needs.slots }
        if held != self.held { return "the callers hold \(held), but \(self.held) is counted" }
        return nil
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
