// SPDX-License-Identifier: Apache-2.0

public import SwitchyardTypes

/// The state of a replica, in the words of the wire contract.
///
/// Only the machine ``ExpertPools`` moves a replica from state to state:
///
/// - `disconnected` → `unverified` when its connection is up.
/// - `unverified` → `ready` when its description fits; → `ejected` when it fits, but an ejection has not ended; → `spare`
///   when the process is already a replica under another address; → `mismatched` when it does not fit; → `disconnected`
///   when the connection is lost. If the describe call fails, the replica stays unverified and is asked again later.
/// - `ready` → `ejected` when its calls fail or lag; → `draining` when it says that it is leaving; → `disconnected` when
///   the connection is lost.
/// - `ejected` → `probing` when its back-off is over; → `disconnected` when the connection is lost.
/// - `probing` → `ready` when its answer to the probe fits; → `mismatched` when it does not; → `ejected` when there is no
///   answer; → `unverified` when there is none and a spare address takes its place; → `spare` when one has; →
///   `disconnected` when the connection is lost.
/// - `ready`, `ejected` or `probing` → `quarantined` when an audit catches it with wrong rows; `unverified` → `quarantined` when
///   its description fits and it has not proved itself since. `quarantined` → `unverified` when it has; → `disconnected` when the
///   connection is lost.
/// - `draining` → `disconnected` when the connection is lost: another process may come up at that address.
/// - `mismatched` → `unverified` when what it was refused for no longer holds: a sibling has gone, or the placement has
///   changed; → `disconnected` when the connection is lost.
/// - `spare` → `ready`, `ejected` or `draining`, as the process was, when its other address loses its connection; → `ejected`,
///   to be probed at once, when the other address does not answer a probe; → `disconnected` when the connection is lost.
public enum ReplicaState: Sendable, Hashable {
    /// No connection yet, or the last one was lost.
    case disconnected
    /// Connected; being asked what it holds.
    case unverified
    /// Verified; takes calls.
    case ready
    /// Failed too often or was too slow; gets no calls before that time.
    case ejected(until: ContinuousClock.Instant)
    /// Ejected, and being probed for recovery; reported as ejected.
    case probing
    /// Finishes its calls in flight and gets no more.
    case draining
    /// Serves another model or lacks experts, as the text says; gets no calls.
    case mismatched(String)
    /// Another address of a process that is already a replica of the pool; gets no calls while the first one works.
    case spare(of: ReplicaID)
    /// Gave other bits than the right ones, and has not proved itself since; gets no calls whose answers are used.
    case quarantined

    /// The words for the states, as metrics, logs and `switchyard status` write them.
    public static let names = [
        "disconnected", "unverified", "ready", "ejected", "draining", "mismatched", "spare", "quarantined",
    ]

    /// The word for the state.
    public var name: String {
        switch self {
        case .disconnected: "disconnected"
        case .unverified: "unverified"
        case .ready: "ready"
        case .ejected, .probing: "ejected"
        case .draining: "draining"
        case .mismatched: "mismatched"
        case .spare: "spare"
        case .quarantined: "quarantined"
        }
    }
}

/// A replica's answer to a describe call.
public struct ReplicaDescription: Sendable, Equatable {
    /// Fingerprint of the checkpoint that its shard was cut from.
    public var fingerprint: UInt64
    /// The experts that it holds, by layer.
    public var experts: [SparseLayer: Set<Int>]
    /// Width of a token row.
    public var modelWidth: Int
    /// How it stores weights; nil if it does not say.
    public var weightType: DType?
    /// The types of token rows that it accepts; empty if it does not say.
    public var rowTypes: Set<DType>
    /// The zone that it runs in; nil if it does not say.
    public var zone: String?
    /// The process: another one at the same address has another id; nil if it does not say.
    public var instance: String?
    /// Why it cannot do what is asked of it here, found out beside its description; nil if nothing is known.
    public var trouble: String?

    /// Creates a description.
    ///
    /// - Parameters:
    ///   - fingerprint: Fingerprint of the checkpoint that its shard was cut from.
    ///   - experts: The experts that it holds, by layer.
    ///   - modelWidth: Width of a token row.
    ///   - weightType: How it stores weights.
    ///   - rowTypes: The types of token rows that it accepts.
    ///   - zone: The zone that it runs in.
    ///   - instance: The process's id.
    public init(
        fingerprint: UInt64,
        experts: [SparseLayer: Set<Int>],
        modelWidth: Int,
        weightType: DType? = nil,
        rowTypes: Set<DType> = [],
        zone: String? = nil,
        instance: String? = nil
    ) {
        self.fingerprint = fingerprint
        self.experts = experts
        self.modelWidth = modelWidth
        self.weightType = weightType
        self.rowTypes = rowTypes
        self.zone = zone
        self.instance = instance
    }
}

/// How a call to a replica failed.
public enum CallFailure: Int, Sendable, Hashable, CaseIterable {
    /// No answer within the layer's deadline.
    case deadline
    /// The connection broke or refused the call.
    case unavailable
    /// The replica sheds load.
    case overloaded
    /// The answer has the wrong shape or type, or is not finite.
    case badReply
    /// The replica answered with another status.
    case refused
    /// The answer has other bits than the right ones, as an audit found.
    case wrongReply
}

/// Why a replica is ejected.
public enum EjectionReason: Sendable, Hashable {
    /// Too many of its calls failed, the last one in this way.
    case failed(CallFailure)
    /// Other replicas kept answering its calls first.
    case overtaken
    /// Its calls take much longer than its siblings'.
    case slow
}

/// An action or report that the machine requests from its runner.
public enum PoolAction: Sendable, Hashable {
    /// Ask the replica to describe itself and report the answer.
    case describe(ReplicaID)
    /// The replica is ready: it takes calls from now on.
    case joined(ReplicaID)
    /// The replica gets no calls for a while.
    case ejected(ReplicaID, for: Duration, EjectionReason)
    /// The replica was caught with wrong rows and gets no calls until it has proved itself.
    case quarantined(ReplicaID)
    /// Send a caught replica the call that it got wrong, and report how its answer compares with
    /// ``ExpertPools/proofEnded(_:_:now:)``.
    case proveEvidence(ReplicaID)
    /// The replica has proved itself.
    case cleared(ReplicaID)
    /// Replicas of this pool differ, and nothing says which is right.
    case disputed(pool: String)
    /// The replica is leaving and gets no more calls.
    case draining(ReplicaID)
    /// The replica is another address of a process that already is one, under this name.
    case spare(ReplicaID, of: ReplicaID)
    /// The replica cannot take calls, for this reason.
    case mismatched(ReplicaID, reason: String)
}
