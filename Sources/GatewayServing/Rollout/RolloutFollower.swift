// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardProtos

/// How a gateway comes to what a file asks of it, as a machine: wishes and the rollout's state go in, the next step comes out.
///
/// A wish is followed once: when the file has changed, and when the gateway has started. What a person does afterwards with
/// `switchyard rollout` stays, until the file changes again. A wish that fails is not tried again by itself either, since loading
/// the same files would fail the same way, and would take the memory of what is served each time.
struct RolloutFollower: Sendable, Equatable {
    /// What to do.
    enum Action: Sendable, Equatable {
        /// Take a step; ``done(_:)`` or ``refused(_:_:)`` follows.
        case step(RolloutStep, checkpoint: String = "", share: Float = 0)
        /// Say that the gateway is where the file asks it to be.
        case reached
        /// Say why it will not get there.
        case failed(String)
    }

    private(set) var wish: RolloutWish?
    /// Whether there is nothing to do until the file changes.
    private(set) var isOver = true
    private var hasBegun = false
    private var hasGoneBack = false

    /// Takes what the file asks for.
    ///
    /// - Parameter wish: The wish; nil if there is no file, or an empty one.
    /// - Returns: Whether it is another one than before.
    mutating func follow(_ wish: RolloutWish?) -> Bool {
        guard wish != self.wish else { return false }
        self.wish = wish
        self.isOver = wish == nil
        self.hasBegun = false
        self.hasGoneBack = false
        return true
    }

    /// The next thing to do.
    ///
    /// - Parameter rollout: How far the gateway's rollout is.
    /// - Returns: The action; nil where there is something to wait for, or nothing to do.
    mutating func next(_ rollout: RolloutDescription) -> Action? {
        guard !self.isOver, let wish else { return nil }
        switch wish.aim {
        case .canary(let checkpoint, let share): return self.canary(checkpoint, share, rollout)
        case .promotion(let checkpoint): return self.promotion(checkpoint, rollout)
        case .back: return self.back(rollout)
        }
    }

    /// A step has been taken.
    ///
    /// - Parameter step: The step.
    /// - Returns: What to say of it.
    mutating func done(_ step: RolloutStep) -> Action? {
        switch step {
        case .rolloutBegin: self.hasBegun = true
        case .rolloutBack: self.hasGoneBack = true
        // The last one of every way but a canary's.
        case .rolloutSettle: return self.end(.reached)
        case .unspecified, .rolloutShare, .rolloutPromote, .rolloutFinish: break
        }
        return nil
    }

    /// A step was refused.
    ///
    /// - Parameters:
    ///   - step: The step.
    ///   - reason: Why.
    /// - Returns: What to say of it; nil where the step is tried again.
    mutating func refused(_ step: RolloutStep, _ reason: String) -> Action? {
        switch step {
        // Requests still run on the checkpoint that leaves, or another gateway still uses it.
        case .rolloutFinish, .rolloutSettle: nil
        case .unspecified, .rolloutBegin, .rolloutShare, .rolloutPromote, .rolloutBack: self.end(.failed(reason))
        }
    }

    private mutating func end(_ action: Action) -> Action {
        self.isOver = true
        return action
    }

    // MARK: - Ways

    private mutating func canary(_ checkpoint: String, _ share: Float, _ rollout: RolloutDescription) -> Action? {
        guard rollout.serving?.checkpoint != checkpoint else {
            return self.end(.failed("\(checkpoint) is what this gateway serves already"))
        }
        guard rollout.phase == .canary, rollout.other?.checkpoint == checkpoint else {
            return self.approach(checkpoint, share, rollout)
        }
        // What the gateway reports has gone through its own units.
        guard abs(rollout.share - share) < 1e-5 else { return .step(.rolloutShare, share: share) }
        return self.end(.reached)
    }

    private mutating func promotion(_ checkpoint: String, _ rollout: RolloutDescription) -> Action? {
        if rollout.serving?.checkpoint == checkpoint {
            switch rollout.phase {
            case .steady: return .step(.rolloutSettle)
            case .leaving: return Self.finish(rollout)
            // A change away from it.
            case .loading, .canary: return .step(.rolloutBack)
            case .unspecified: return nil
            }
        }
        guard rollout.phase == .canary, rollout.other?.checkpoint == checkpoint else {
            return self.approach(checkpoint, 0, rollout)
        }
        return .step(.rolloutPromote)
    }

    private mutating func back(_ rollout: RolloutDescription) -> Action? {
        switch rollout.phase {
        case .steady: return .step(.rolloutSettle)
        case .loading, .canary: return .step(.rolloutBack)
        case .leaving: return self.hasGoneBack ? Self.finish(rollout) : .step(.rolloutBack)
        case .unspecified: return nil
        }
    }

    /// Has a checkpoint loaded beside the served one; what is there instead goes first.
    private mutating func approach(_ checkpoint: String, _ share: Float, _ rollout: RolloutDescription) -> Action? {
        switch rollout.phase {
        case .steady:
            guard !self.hasBegun else {
                return self.end(
                    .failed(
                        rollout.detail.isEmpty ? "\(checkpoint) was taken back by another step" : rollout.detail
                    )
                )
            }
            return .step(.rolloutBegin, checkpoint: checkpoint, share: share)
        case .loading, .canary:
            // `canary` with this checkpoint is the caller's.
            return rollout.other?.checkpoint == checkpoint ? nil : .step(.rolloutBack)
        case .leaving: return Self.finish(rollout)
        case .unspecified: return nil
        }
    }

    private static func finish(_ rollout: RolloutDescription) -> Action? {
        (rollout.other?.running ?? 0) == 0 ? .step(.rolloutFinish) : nil
    }
}
