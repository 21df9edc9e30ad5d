// SPDX-License-Identifier: Apache-2.0

public import RPCCore

/// One grouped call of a sparse layer: the rows of one pool, tried on one replica after another inside one deadline.
public struct PoolCall: Sendable, Hashable {
    /// Name of the pool.
    public let pool: String
    /// When the layer stops waiting, whatever has been tried.
    public let deadline: ContinuousClock.Instant
    /// Replicas that the call was sent to, in that order.
    public internal(set) var tried: [ReplicaID] = []

    /// Creates a call that has not been sent.
    ///
    /// - Parameters:
    ///   - pool: Name of the pool.
    ///   - deadline: When the layer stops waiting.
    public init(pool: String, deadline: ContinuousClock.Instant) {
        self.pool = pool
        self.deadline = deadline
    }
}

/// What a runner does with a call next.
public enum CallDecision: Sendable, Hashable {
    /// Send it to this replica, which counts it as out.
    case send(to: ReplicaID)
    /// Give its rows up.
    case drop(DropCause)
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

/// Why no replica could be chosen for a call.
public enum NoReplica: Error, Sendable, Hashable {
    /// No replica of the pool takes calls.
    case noneServing
    /// Every serving replica has as many calls out as it may.
    case allBusy
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
}

extension ExpertPools {
    /// Decides where a call is sent first.
    ///
    /// - Parameters:
    ///   - call: The call; the chosen replica is noted in it.
    ///   - now: The present.
    ///   - generator: Source of randomness.
    /// - Returns: A replica, or why there is none.
    public mutating func start(
        _ call: inout PoolCall,
        now: ContinuousClock.Instant,
        using generator: inout some RandomNumberGenerator
    ) -> CallDecision {
        self.nextAttempt(of: &call, after: nil, now: now, using: &generator)
    }

    /// An attempt failed: decides whether the call is tried on another replica.
    ///
    /// It is, while the layer's deadline has not passed, fewer than `attemptsPerCall` replicas were tried, and one that was
    /// not tried takes calls.
    ///
    /// - Parameters:
    ///   - call: The call; a chosen replica is noted in it.
    ///   - replica: The replica that failed.
    ///   - failure: How.
    ///   - now: The present.
    ///   - generator: Source of randomness.
    /// - Returns: What becomes of the call, and the replica's ejection if this was one failure too many.
    public mutating func attemptFailed(
        of call: inout PoolCall,
        on replica: ReplicaID,
        _ failure: CallFailure,
        now: ContinuousClock.Instant,
        using generator: inout some RandomNumberGenerator
    ) -> (decision: CallDecision, actions: [PoolAction]) {
        let actions = self.callFailed(replica, failure, now: now)
        return (self.nextAttempt(of: &call, after: failure, now: now, using: &generator), actions)
    }

    private mutating func nextAttempt(
        of call: inout PoolCall,
        after failure: CallFailure?,
        now: ContinuousClock.Instant,
        using generator: inout some RandomNumberGenerator
    ) -> CallDecision {
        guard now < call.deadline else { return .drop(.timeout) }
        if let failure, call.tried.count >= self.configuration.attemptsPerCall {
            return .drop(failure.dropCause)
        }
        switch self.startCall(in: call.pool, excluding: Set(call.tried), using: &generator) {
        case .success(let replica):
            call.tried.append(replica)
            return .send(to: replica)
        case .failure(.noneServing):
            return .drop(failure?.dropCause ?? .unavailable)
        case .failure(.allBusy):
            return .drop(failure?.dropCause ?? .overloaded)
        }
    }
}
