// SPDX-License-Identifier: Apache-2.0

/// Where a replica stands.
///
/// A replica moves along these states, and only the machine ``ExpertPools`` moves it:
///
/// - `connecting` → `describing` when its connection is up.
/// - `describing` → `serving` when its description fits; → `refused` when it does not; → `connecting` when the connection
///   is lost; stays, and is asked again later, when the question fails.
/// - `serving` → `ejected` when its calls fail or lag; → `draining` when it says that it leaves; → `connecting` when the
///   connection is lost.
/// - `ejected` → `probing` when its back-off is over; → `connecting` when the connection is lost.
/// - `probing` → `serving` when the probe is answered and fits; → `ejected` when it is not; → `refused` when it does not
///   fit; → `connecting` when the connection is lost.
/// - `draining` → `connecting` when the connection is lost: another process may come up at that address.
/// - `refused` → `connecting` when the connection is lost.
public enum ReplicaState: Sendable, Hashable {
    /// No connection yet, or no longer.
    case connecting
    /// Connected; asked what it holds.
    case describing
    /// Verified; calls go to it.
    case serving
    /// Failed too often or too slow; no call goes to it before that time.
    case ejected(until: ContinuousClock.Instant)
    /// Ejected, and asked whether it is well again.
    case probing
    /// It finishes the calls that it has, and gets no more.
    case draining
    /// It serves another model or lacks experts, as the text says; no call goes to it.
    case refused(String)
}

/// How a host stores weights, or a message token rows.
public enum NumberType: String, Sendable, Hashable {
    /// IEEE 754 binary32.
    case float32
    /// The upper half of a binary32.
    case bfloat16
    /// Eight-bit integers with scales.
    case int8
}

/// What a replica says of itself when it is asked.
public struct ReplicaDescription: Sendable, Equatable {
    /// Fingerprint of the checkpoint that its shard was cut from.
    public var fingerprint: UInt64
    /// The experts that it holds, by layer.
    public var experts: [ExpertLayer: Set<Int>]
    /// Width of a token row.
    public var modelWidth: Int
    /// How it stores weights; nil where it does not say.
    public var weightType: NumberType?
    /// The types of token rows that it accepts; empty where it does not say.
    public var rowTypes: Set<NumberType>
    /// The zone that it stands in; nil where it does not say.
    public var zone: String?

    /// Creates a description.
    ///
    /// - Parameters:
    ///   - fingerprint: Fingerprint of the checkpoint that its shard was cut from.
    ///   - experts: The experts that it holds, by layer.
    ///   - modelWidth: Width of a token row.
    ///   - weightType: How it stores weights.
    ///   - rowTypes: The types of token rows that it accepts.
    ///   - zone: The zone that it stands in.
    public init(
        fingerprint: UInt64,
        experts: [ExpertLayer: Set<Int>],
        modelWidth: Int,
        weightType: NumberType? = nil,
        rowTypes: Set<NumberType> = [],
        zone: String? = nil
    ) {
        self.fingerprint = fingerprint
        self.experts = experts
        self.modelWidth = modelWidth
        self.weightType = weightType
        self.rowTypes = rowTypes
        self.zone = zone
    }
}

/// How a call to a replica failed.
public enum CallFailure: Sendable, Hashable, CaseIterable {
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

/// Why a replica is left alone for a while.
public enum EjectionReason: Sendable, Hashable {
    /// Its calls failed, the last one so.
    case failed(CallFailure)
    /// Other replicas answered in its place, again and again.
    case overtaken
    /// Its calls take much longer than those of its siblings.
    case slow
}

/// What the machine asks its runner to do.
public enum PoolAction: Sendable, Hashable {
    /// Ask the replica to describe itself and report the answer.
    case describe(ReplicaID)
    /// The replica takes calls from now on.
    case joined(ReplicaID)
    /// The replica takes no calls for a while.
    case ejected(ReplicaID, for: Duration, EjectionReason)
    /// The replica gets no more calls, since it leaves.
    case draining(ReplicaID)
    /// The replica can never take calls as it is; people should know why.
    case refused(ReplicaID, reason: String)
}
