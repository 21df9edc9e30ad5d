// SPDX-License-Identifier: Apache-2.0

/// Identifies a sequence for the life of the process.
public struct SequenceID: Hashable, Sendable, Comparable, CustomStringConvertible {
    /// A number that no other sequence has.
    public let value: UInt64

    /// Creates an identifier.
    ///
    /// - Parameter value: A number that no other sequence has.
    public init(_ value: UInt64) {
        self.value = value
    }

    /// The number with a hash sign before it.
    public var description: String { "#\(self.value)" }

    /// Orders by number.
    public static func < (left: SequenceID, right: SequenceID) -> Bool {
        left.value < right.value
    }
}

/// How soon a sequence joins, compared with others of the same caller.
public enum CallPriority: Int, Sendable, Hashable, CaseIterable {
    /// Before others.
    case high
    /// As it comes.
    case normal
    /// After others.
    case low

    /// How many later sequences of the next higher priority may come before a sequence of the same caller.
    ///
    /// So one of low priority is passed by twice as many of high priority at most, and always gets its turn.
    public static let reach = 16
}

/// What a sequence needs, and of whom.
public struct SequenceNeeds: Sendable, Hashable {
    /// Decoder rows that it needs at once, at least 1: one for each beam or returned sequence.
    public var slots: Int
    /// Length of its input, at least 0.
    public var inputTokens: Int
    /// The work that it may take at most, in tokens times rows.
    public var work: Int
    /// Who sent it.
    public var caller: String
    /// How soon it joins, compared with others of the same caller.
    public var priority: CallPriority
    /// When its client gives up, or nil.
    public var deadline: ContinuousClock.Instant?
    /// How long it may wait to join, or nil.
    public var queueTimeout: Duration?

    /// Creates needs.
    ///
    /// - Parameters:
    ///   - slots: Decoder rows that it needs at once.
    ///   - inputTokens: Length of its input.
    ///   - work: The work that it may take at most; nil stands for its input and a token for each row.
    ///   - caller: Who sent it.
    ///   - priority: How soon it joins, compared with others of the same caller.
    ///   - deadline: When its client gives up.
    ///   - queueTimeout: How long it may wait to join.
    public init(
        slots: Int,
        inputTokens: Int,
        work: Int? = nil,
        caller: String = "",
        priority: CallPriority = .normal,
        deadline: ContinuousClock.Instant? = nil,
        queueTimeout: Duration? = nil
    ) {
        self.slots = slots
        self.inputTokens = inputTokens
        self.work = work ?? (inputTokens + slots)
        self.caller = caller
        self.priority = priority
        self.deadline = deadline
        self.queueTimeout = queueTimeout
    }
}

/// What happened to a sequence that asked for batch slots.
public enum Admission: Sendable, Equatable {
    /// It waits; `ahead` others come first.
    case queued(ahead: Int)
    /// It was rejected; retrying makes sense after the given time, if at all.
    case rejected(RejectionReason, retryAfter: Duration?)
}

/// Why a sequence was rejected.
public enum RejectionReason: Sendable, Hashable, CustomStringConvertible {
    /// The queue is full.
    case queueFull(limit: Int)
    /// Several sequences that come together need more room than the queue has.
    case noRoom(sequences: Int, waiting: Int, limit: Int)
    /// It needs more batch slots than there are.
    case tooWide(slots: Int, limit: Int)
    /// It waited in the full queue, and its place went to a caller with fewer places.
    case displaced(limit: Int)
    /// It did not join within its queue time-out.
    case waitedTooLong(Duration)
    /// The process is leaving.
    case draining

    /// A sentence for the caller.
    public var description: String {
        switch self {
        case .queueFull(let limit):
            "the queue is full: \(limit) requests wait; try again later"
        case .noRoom(let sequences, let waiting, let limit):
            "the call has \(sequences) inputs, but \(waiting) requests wait and the limit is \(limit); send fewer inputs, or try "
                + "again later"
        case .tooWide(let slots, let limit):
            "the request needs \(slots) batch slots (beams or returned sequences), but there are \(limit)"
        case .displaced(let limit):
            "the queue is full: \(limit) requests wait, and this caller had more of the places than another that came; try again "
                + "later"
        case .waitedTooLong(let limit):
            "the request waited for its queue time-out of \(limit) and did not join; try again later, or let it wait longer"
        case .draining:
            "the gateway is draining; try another one"
        }
    }
}

/// A sequence that was rejected after it had waited.
public struct LateRejection: Sendable, Hashable {
    /// The sequence.
    public var id: SequenceID
    /// Why.
    public var reason: RejectionReason
    /// When retrying makes sense.
    public var retryAfter: Duration

    /// Creates a rejection.
    ///
    /// - Parameters:
    ///   - id: The sequence.
    ///   - reason: Why.
    ///   - retryAfter: When retrying makes sense.
    public init(id: SequenceID, reason: RejectionReason, retryAfter: Duration) {
        self.id = id
        self.reason = reason
        self.retryAfter = retryAfter
    }
}

/// What one step does.
public struct StepPlan: Sendable, Equatable {
    /// Sequences that join now and must be encoded, in the order of their arrival.
    public var encodes: [SequenceID] = []
    /// Sequences whose decoder rows run in this step: the running ones, then those that join.
    public var decodes: [SequenceID] = []
    /// Sequences whose deadline has passed, waiting or running; they have already left the scheduler.
    public var expired: [SequenceID] = []
    /// Sequences that waited and do not any longer; they have already left the scheduler.
    public var rejected: [LateRejection] = []

    /// Creates a plan.
    ///
    /// - Parameters:
    ///   - encodes: Sequences that join now and must be encoded.
    ///   - decodes: Sequences whose decoder rows run in this step.
    ///   - expired: Sequences whose deadline has passed.
    ///   - rejected: Sequences that waited and do not any longer.
    public init(
        encodes: [SequenceID] = [],
        decodes: [SequenceID] = [],
        expired: [SequenceID] = [],
        rejected: [LateRejection] = []
    ) {
        self.encodes = encodes
        self.decodes = decodes
        self.expired = expired
        self.rejected = rejected
    }

    /// Whether there is nothing to do.
    public var isEmpty: Bool {
        self.encodes.isEmpty && self.decodes.isEmpty && self.expired.isEmpty && self.rejected.isEmpty
    }
}
