// SPDX-License-Identifier: Apache-2.0

/// The bounds that a scheduler enforces.
public struct SchedulerConfiguration: Sendable, Equatable {
    /// Decoder rows that may run at once; a sequence takes one for each beam or returned sequence.
    public var batchSlots: Int
    /// Sequences that may wait; one more is rejected.
    public var queueLimit: Int
    /// Input tokens that one step may encode; a single longer input is encoded alone.
    public var encodeTokensPerStep: Int
    /// The shortest and the longest time after which a rejected client is told to try again.
    public var retryHintBounds: ClosedRange<Duration> = .milliseconds(50) ... .seconds(30)

    /// Creates a configuration.
    ///
    /// - Parameters:
    ///   - batchSlots: Decoder rows that may run at once, at least 1.
    ///   - queueLimit: Sequences that may wait, at least 1.
    ///   - encodeTokensPerStep: Input tokens that one step may encode, at least 1.
    public init(batchSlots: Int = 32, queueLimit: Int = 64, encodeTokensPerStep: Int = 2048) {
        precondition(batchSlots >= 1 && queueLimit >= 1 && encodeTokensPerStep >= 1, "scheduler bounds start at 1")
        self.batchSlots = batchSlots
        self.queueLimit = queueLimit
        self.encodeTokensPerStep = encodeTokensPerStep
    }
}

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

/// What happened to a sequence that asked for batch slots.
public enum Admission: Sendable, Equatable {
    /// It waits; `ahead` others come first.
    case queued(ahead: Int)
    /// It was rejected; retrying makes sense after the given time, if at all.
    case rejected(RejectionReason, retryAfter: Duration?)
}

/// Why a sequence was rejected.
public enum RejectionReason: Sendable, Equatable, CustomStringConvertible {
    /// The queue is full.
    case queueFull(limit: Int)
    /// Several sequences that come together need more room than the queue has.
    case noRoom(sequences: Int, waiting: Int, limit: Int)
    /// It needs more batch slots than there are.
    case tooWide(slots: Int, limit: Int)
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
        case .draining:
            "the gateway is draining; try another one"
        }
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

    /// Creates a plan.
    ///
    /// - Parameters:
    ///   - encodes: Sequences that join now and must be encoded.
    ///   - decodes: Sequences whose decoder rows run in this step.
    ///   - expired: Sequences whose deadline has passed.
    public init(encodes: [SequenceID] = [], decodes: [SequenceID] = [], expired: [SequenceID] = []) {
        self.encodes = encodes
        self.decodes = decodes
        self.expired = expired
    }

    /// Whether there is nothing to do.
    public var isEmpty: Bool { self.encodes.isEmpty && self.decodes.isEmpty && self.expired.isEmpty }
}
