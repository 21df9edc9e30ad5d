// SPDX-License-Identifier: Apache-2.0

public import RPCCore
internal import SwitchyardTypes

/// An attempt of one of a layer's calls.
public struct AttemptID: Sendable, Hashable {
    /// Index of the call among the layer's assignments.
    public let call: Int
    /// Number of the attempt among the call's attempts.
    public let number: Int
}

/// An action that a layer's calls request from their runner.
public enum LayerAction: Sendable, Hashable {
    /// Send the call's rows to this replica.
    case send(AttemptID, to: ReplicaID)
    /// Cancel this attempt; its outcome need not be reported.
    case cancel(AttemptID)
    /// Drop the rows of a call.
    case drop(call: Int, DropCause)
    /// Compute the rows of an audited call, and report them with ``LayerCalls/recomputed(_:opinion:conflicting:pools:now:)``.
    case recompute(call: Int)
    /// Use the answer of an audited call that has this number.
    case accept(call: Int, opinion: Int)
    /// This replica's answer to an audited call was wrong: keep the call and its right answer as evidence.
    case caught(call: Int, ReplicaID)
    /// Use the rows of an audited call on which its answers agree; the others are dropped by the action that follows.
    case dispute(call: Int)
    /// Send an answered call to a caught replica as well, outside the layer, and report how its answer compares with
    /// ``ExpertPools/proofEnded(_:_:now:)``.
    case prove(call: Int, ReplicaID)
    /// An action for the pools' runner.
    case pool(PoolAction)
}

/// When a layer's runner computes rows of audited calls itself.
public enum RecomputePolicy: Sendable, Hashable {
    /// It cannot.
    case never
    /// Where two replicas differ.
    case inConflicts
    /// Also where there is no second replica.
    case always
}

/// Why the rows of a call are dropped.
public enum DropCause: Sendable, Hashable, CaseIterable {
    /// The layer's deadline passed.
    case timeout
    /// No replica is ready, or connections broke.
    case unavailable
    /// Every replica is at its limit of calls in flight, or sheds load.
    case overloaded
    /// The last replica that was tried gave an unusable answer.
    case badReply
}

extension CallFailure {
    /// The failure that a replica's status means to the pools.
    ///
    /// - Parameter code: The status of a call that ended with anything but `OK`.
    public init(_ code: Status.Code) {
        switch code {
        case .deadlineExceeded: self = .deadline
        case .unavailable: self = .unavailable
        case .resourceExhausted: self = .overloaded
        default: self = .refused
        }
    }

    /// Why rows are dropped if this failure was the last.
    public var dropCause: DropCause {
        switch self {
        case .deadline: .timeout
        case .unavailable: .unavailable
        case .overloaded: .overloaded
        case .badReply, .refused, .wrongReply: .badReply
        }
    }

    /// Whether the same replica may succeed a little later.
    var mayHealOnTheSameReplica: Bool {
        switch self {
        case .unavailable, .overloaded: true
        case .deadline, .badReply, .refused, .wrongReply: false
        }
    }
}
