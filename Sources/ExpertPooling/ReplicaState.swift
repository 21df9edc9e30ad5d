// SPDX-License-Identifier: Apache-2.0

/// Where a replica stands.
///
/// A replica moves along these states, and only the machine ``ExpertPools`` moves it:
///
/// - `connecting` → `describing` when its connection is up.
/// - `describing` → `serving` when its description fits; → `refused` when it does not; → `connecting` when the connection
///   is lost; stays, and is asked again later, when the question fails.
/// - `serving` → `ejected` after failures in a row; → `connecting` when the connection is lost.
/// - `ejected` → `probing` when its back-off is over; → `connecting` when the connection is lost.
/// - `probing` → `serving` when the probe is answered and fits; → `ejected`, for longer, when it is not; → `refused` when
///   it does not fit; → `connecting` when the connection is lost.
/// - `refused` → `connecting` when the connection is lost: another process may come up at that address.
public enum ReplicaState: Sendable, Hashable {
    /// No connection yet, or no longer.
    case connecting
    /// Connected; asked what it holds.
    case describing
    /// Verified; calls go to it.
    case serving
    /// Failed too often; no call goes to it before that time.
    case ejected(until: ContinuousClock.Instant)
    /// Ejected, and asked whether it is well again.
    case probing
    /// It serves another model or lacks experts, as the text says; no call goes to it.
    case refused(String)
}

/// What a replica says of itself when it is asked.
public struct ReplicaDescription: Sendable, Equatable {
    /// Fingerprint of the checkpoint that its shard was cut from.
    public var fingerprint: UInt64
    /// The experts that it holds, by layer.
    public var experts: [ExpertLayer: Set<Int>]
    /// Width of a token row.
    public var modelWidth: Int

    /// Creates a description.
    ///
    /// - Parameters:
    ///   - fingerprint: Fingerprint of the checkpoint that its shard was cut from.
    ///   - experts: The experts that it holds, by layer.
    ///   - modelWidth: Width of a token row.
    public init(fingerprint: UInt64, experts: [ExpertLayer: Set<Int>], modelWidth: Int) {
        self.fingerprint = fingerprint
        self.experts = experts
        self.modelWidth = modelWidth
    }
}

/// How a call to a replica failed.
public enum CallFailure: Sendable, Hashable {
    /// No answer within the layer's deadline.
    case deadline
    /// The connection broke or refused the call.
    case unavailable
    /// The replica sheds load.
    case overloaded
    /// The answer was of the wrong shape or type, or not finite.
    case badReply
    /// The replica answered with another status.
    case refused
}

/// Counters and state of one replica, for people and metrics.
public struct ReplicaReport: Sendable, Equatable {
    /// The replica.
    public var id: ReplicaID
    /// Where it stands.
    public var state: ReplicaState
    /// Calls that are out.
    public var outstanding: Int
    /// Calls that were answered.
    public var succeeded: UInt64
    /// Calls that failed.
    public var failed: UInt64
    /// Token rows of the answered calls.
    public var rows: UInt64
    /// Moving average of an answered call's time; nil before the first.
    public var latency: Duration?
    /// What it holds, once it has said so.
    public var description: ReplicaDescription?
}

/// What the machine asks its runner to do.
public enum PoolAction: Sendable, Hashable {
    /// Ask the replica to describe itself and report the answer.
    case describe(ReplicaID)
    /// The replica takes calls from now on.
    case joined(ReplicaID)
    /// The replica takes no calls for a while.
    case ejected(ReplicaID, for: Duration, after: CallFailure)
    /// The replica can never take calls as it is; people should know why.
    case refused(ReplicaID, reason: String)
}
