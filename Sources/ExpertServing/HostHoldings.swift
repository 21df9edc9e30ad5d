// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

/// Which checkpoints a host holds, loads and lets go: a machine without weights.
///
/// It serves one, holds at most one other beside it, and loads no more than one at a time. A host's memory bounds that
/// number, and a change of checkpoints needs no more.
struct HostHoldings: Sendable, Equatable {
    /// A checkpoint.
    struct Checkpoint: Sendable, Equatable {
        /// The folder among the host's checkpoints; nil for what its settings name.
        var name: String?
        var fingerprint: UInt64
    }

    /// What to do when a gateway wants a checkpoint held.
    enum OnHold: Sendable, Equatable {
        /// It is held: describe it.
        case describe
        /// Load it; answer that it is being loaded.
        case load
        /// Answer that it is being loaded.
        case wait
        /// Answer with a reason.
        case refuse(String)
    }

    /// What to do when a gateway wants one checkpoint to stay alone.
    enum OnSettle: Sendable, Equatable {
        /// Record this as what is served after a restart, let the others go, and describe it.
        case settle(Checkpoint, letGo: [UInt64])
        case refuse(String)
    }

    /// What is served after a restart.
    private(set) var serving: Checkpoint
    /// The other one.
    private(set) var other: Checkpoint?
    /// The one that is being loaded beside ``serving``.
    private(set) var loading: Checkpoint?
    /// Why the last one could not be loaded, until something else is asked for or the time is over.
    private(set) var failure: (checkpoint: Checkpoint, reason: String, until: ContinuousClock.Instant)?

    /// How long a failure answers those who ask again.
    static let failureTime = Duration.seconds(2)
    /// How long a checkpoint must not have been called for before it is let go.
    static let quietTime = Duration.seconds(1)

    init(serving: Checkpoint) { self.serving = serving }

    static func == (one: Self, other: Self) -> Bool {
        one.serving == other.serving && one.other == other.other && one.loading == other.loading
            && one.failure?.checkpoint == other.failure?.checkpoint && one.failure?.reason == other.failure?.reason
            && one.failure?.until == other.failure?.until
    }

    /// The checkpoints that are held, the served one first.
    var held: [UInt64] { [self.serving.fingerprint] + (self.other.map { [$0.fingerprint] } ?? []) }

    /// A gateway wants a checkpoint held.
    mutating func wanted(_ checkpoint: Checkpoint, now: ContinuousClock.Instant) -> OnHold {
        if self.held.contains(checkpoint.fingerprint) { return .describe }
        if let loading = self.loading {
            guard loading.fingerprint == checkpoint.fingerprint else {
                return .refuse(
                    "the host is loading \(Self.words(loading)); wait until that is done, or go back from it first"
                )
            }
            return .wait
        }
        if let other = self.other {
            return .refuse(
                "the host already holds \(Self.words(self.serving)) and \(Self.words(other)); finish that rollout first "
                    + "(switchyard rollout --promote, or --back)"
            )
        }
        if let failure = self.failure, failure.checkpoint == checkpoint, now < failure.until {
            return .refuse(failure.reason)
        }
        self.failure = nil
        self.loading = checkpoint
        return .load
    }

    /// The checkpoint that was being loaded is held now.
    ///
    /// - Returns: Whether it is still wanted; if not, let it go.
    mutating func loaded(_ fingerprint: UInt64) -> Bool {
        guard let loading = self.loading, loading.fingerprint == fingerprint else { return false }
        self.loading = nil
        self.other = loading
        return true
    }

    /// The checkpoint that was being loaded cannot be held.
    mutating func failed(_ fingerprint: UInt64, _ reason: String, now: ContinuousClock.Instant) {
        guard let loading = self.loading, loading.fingerprint == fingerprint else { return }
        self.loading = nil
        self.failure = (loading, reason, now.advanced(by: Self.failureTime))
    }

    /// A gateway wants a checkpoint to stay alone; ``settled(_:)`` follows once that is recorded.
    ///
    /// - Parameters:
    ///   - fingerprint: The checkpoint.
    ///   - idle: The time since the other one was last called for; nil if it never was.
    /// - Returns: What to do.
    func stays(_ fingerprint: UInt64, idle: Duration?) -> OnSettle {
        let stays = [self.serving, self.other].compactMap { $0 }.first { $0.fingerprint == fingerprint }
        guard let stays else {
            return .refuse(
                "the checkpoint \(fingerprint.fingerprintText) is not held here; held are "
                    + self.held.map(\.fingerprintText).joined(separator: " and ")
            )
        }
        let leaving = self.held.filter { $0 != fingerprint }
        if let first = leaving.first, let idle, idle < Self.quietTime {
            return .refuse(
                "the checkpoint \(first.fingerprintText) was called for within the last second; another gateway still serves "
                    + "it: name every gateway (--gateway), or try again"
            )
        }
        return .settle(stays, letGo: leaving)
    }

    /// It is recorded that a checkpoint stays alone.
    mutating func settled(_ checkpoint: Checkpoint) {
        self.serving = checkpoint
        self.other = nil
        // What is still being loaded is let go when it comes.
        self.loading = nil
        self.failure = nil
    }

    /// The first invariant that does not hold, in words; nil if all hold.
    ///
    /// - No checkpoint is held twice, or held and loaded.
    /// - One is loaded only while none is held beside the served one.
    /// - A failure is not of something that is held or being loaded.
    func checkInvariants() -> String? {
        if Set(self.held).count != self.held.count { return "\(self.held) are held, one of them twice" }
        if let loading = self.loading {
            if self.other != nil { return "\(Self.words(loading)) is loaded as a third checkpoint" }
            if self.held.contains(loading.fingerprint) { return "\(Self.words(loading)) is held and loaded" }
            if self.failure != nil { return "a failure is kept while another checkpoint is loaded" }
        }
        if let failure = self.failure, self.held.contains(failure.checkpoint.fingerprint) {
            return "\(Self.words(failure.checkpoint)) is held, but could not be loaded"
        }
        return nil
    }

    private static func words(_ checkpoint: Checkpoint) -> String {
        let fingerprint = checkpoint.fingerprint.fingerprintText
        return checkpoint.name.map { "\($0) (\(fingerprint))" } ?? fingerprint
    }
}
