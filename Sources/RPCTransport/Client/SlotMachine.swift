// SPDX-License-Identifier: Apache-2.0

/// When a client connects and reconnects: a pure machine for one connection of a channel.
///
/// - state `idle`: not started; can go to `connecting`, `stopped`.
/// - state `connecting`: a socket is being connected or the peer's settings are awaited; can go to `ready`, `blocked`,
///   `waiting`, `stopped`.
/// - state `ready`: calls can be made; can go to `blocked`, to `connecting` or `waiting` (the connection goes away, is lost or
///   refused), `stopped`.
/// - state `blocked`: there is a connection, but the peer allows no stream on it; can go to `ready`, to `waiting` (it is
///   lost, or replaced since the peer does not change its mind), `stopped`.
/// - state `waiting`: the last attempt failed; can go to `connecting`, `stopped`.
/// - state `stopped`: stays.
struct SlotMachine: ~Copyable {
    /// What the runner has to do.
    enum Action: Sendable, Hashable {
        /// Nothing.
        case none
        /// Connect.
        case connect
        /// Fail the calls that do not wait, then call ``waitEnded()`` after this time.
        case wait(Duration)
    }

    /// What can be seen from outside.
    enum Phase: Sendable, Hashable {
        case idle
        case connecting
        case ready
        case blocked
        case waiting
        case stopped
    }

    private let policy: ReconnectPolicy
    private var failures = 0
    /// Failures before the ready connection, in case the server refuses it after all.
    private var earlierFailures = 0
    /// Ready connections in a row that were lost before the wait after as many failures would have been over.
    private var shortLives = 0
    private var lastAttempt: ContinuousClock.Instant?
    private(set) var phase = Phase.idle

    init(policy: ReconnectPolicy) {
        self.policy = policy
    }

    /// The channel runs.
    mutating func started(now: ContinuousClock.Instant) -> Action {
        guard self.phase == .idle else { return .none }
        return self.connect(now: now)
    }

    /// The peer's settings arrived: the connection works.
    mutating func connectionReady() {
        guard self.phase == .connecting || self.phase == .blocked else { return }
        self.phase = .ready
        self.earlierFailures = self.failures
        self.failures = 0
    }

    /// The peer allows no stream on the connection.
    ///
    /// - Returns: Whether that is new.
    mutating func connectionBlocked() -> Bool {
        guard self.phase == .connecting || self.phase == .ready else { return false }
        self.phase = .blocked
        return true
    }

    /// The server closes the connection because it refuses this client.
    ///
    /// That counts as a failed attempt: the waits grow, so a refused client does not retry many times per second.
    mutating func connectionRefused(chance: Double) -> Action {
        guard self.phase == .ready || self.phase == .connecting || self.phase == .blocked else { return .none }
        self.failures = (self.phase == .ready ? self.earlierFailures : self.failures) + 1
        self.phase = .waiting
        return .wait(self.policy.wait(afterFailures: self.failures, chance: chance))
    }

    /// The attempt failed, or the connection ended before its settings arrived or while it allowed no stream.
    mutating func attemptFailed(chance: Double) -> Action {
        guard self.phase == .connecting || self.phase == .blocked else { return .none }
        self.failures += 1
        self.phase = .waiting
        return .wait(self.policy.wait(afterFailures: self.failures, chance: chance))
    }

    /// The ready connection takes no more calls, or is lost.
    ///
    /// The next attempt is made at once, unless the last one is so recent that a server which accepts connections only
    /// to drop them would keep both sides busy: attempts follow each other after the same growing waits as failed ones,
    /// until a connection lasts longer than that.
    mutating func connectionLost(now: ContinuousClock.Instant, chance: Double) -> Action {
        guard self.phase == .ready else { return .none }
        let wait = self.policy.wait(afterFailures: self.shortLives + 1, chance: chance)
        if let lastAttempt = self.lastAttempt, now < lastAttempt + wait {
            self.shortLives += 1
            self.phase = .waiting
            return .wait(lastAttempt + wait - now)
        }
        self.shortLives = 0
        return self.connect(now: now)
    }

    /// The wait is over.
    mutating func waitEnded(now: ContinuousClock.Instant) -> Action {
        guard self.phase == .waiting else { return .none }
        return self.connect(now: now)
    }

    /// The channel shuts down.
    mutating func stopped() {
        self.phase = .stopped
    }

    private mutating func connect(now: ContinuousClock.Instant) -> Action {
        self.phase = .connecting
        self.lastAttempt = now
        return .connect
    }
}
