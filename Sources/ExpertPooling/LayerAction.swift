// SPDX-License-Identifier: Apache-2.0

public import RPCCore

/// One attempt of one of a layer's calls.
public struct AttemptID: Sendable, Hashable {
    /// Index of the call in the assignments that the layer began with.
    public let call: Int
    /// Number of the attempt among the call's.
    public let number: Int
}

/// What a layer's calls ask their runner to do.
public enum LayerAction: Sendable, Hashable {
    /// Send the call's rows to this replica.
    case send(AttemptID, to: ReplicaID)
    /// Give this attempt up; its outcome need not be reported.
    case cancel(AttemptID)
    /// Give the rows of a call up.
    case drop(call: Int, DropCause)
    /// Something that concerns the pools.
    case pool(PoolAction)
}

/// Why the rows of a call are given up.
public enum DropCause: Sendable, Hashable, CaseIterable {
    /// The layer's deadline passed.
    case timeout
    /// No replica takes calls, or those that did broke off.
    case unavailable
    /// Every replica has as many calls out as it may, or sheds load.
    case overloaded
    /// The last replica that was tried gave an answer that cannot be used.
    case badReply
}

extension CallFailure {
    /// What a status of a replica means for the pools.
    ///
    /// - Parameter code: The status of a call that did not end with `OK`.
    public init(_ code: Status.Code) {
        switch code {
        case .deadlineExceeded: self = .deadline
        case .unavailable: self = .unavailable
        case .resourceExhausted: self = .overloaded
        default: self = .refused
        }
    }

    /// Why rows are given up when this failure was the last.
    public var dropCause: DropCause {
        switch self {
        case .deadline: .timeout
        case .unavailable: .unavailable
        case .overloaded: .overloaded
        case .badReply, .refused: .badReply
        }
    }

    /// Whether the same replica may do better a little later.
    var mayHealOnTheSameReplica: Bool {
        switch self {
        case .unavailable, .overloaded: true
        case .deadline, .badReply, .refused: false
        }
    }
}
