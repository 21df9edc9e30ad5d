// SPDX-License-Identifier: Apache-2.0

/// Decides over time whether a connection is alive: handshake, keepalive, idleness and age, as a pure machine.
struct ConnectionWatch: Sendable {
    /// What the runner has to do.
    enum Action: Sendable, Hashable {
        /// Nothing until the next due time.
        case wait
        /// Send a ping.
        case ping
        /// The connection had no call for too long, or is too old: say goodbye and close once its calls have ended.
        case drain
        /// The calls of a connection that is too old took too long: end them.
        case abandon
        /// Check for requests that do not arrive and output that is not read.
        case sweep
        /// The peer is gone or stuck: close at once.
        case close(String)
    }

    private enum Probe: Sendable {
        case none
        case sent(ContinuousClock.Instant)
    }

    private let timing: ConnectionTiming
    private let started: ContinuousClock.Instant
    private var settingsArrived = false
    private var settingsAcknowledged = false
    private var lastRead: ContinuousClock.Instant
    private var probe = Probe.none
    private var idleSince: ContinuousClock.Instant?
    private var drained = false
    private var lastSweep: ContinuousClock.Instant
    /// When the connection is too old; nil once it has been told so, or if it may last.
    private var agedAt: ContinuousClock.Instant?
    /// When its calls are ended then.
    private var overdueAt: ContinuousClock.Instant?

    /// Creates a machine for a connection that begins now.
    ///
    /// - Parameters:
    ///   - timing: The limits.
    ///   - chance: Where in the spread of ages this connection's lies, from 0 to 1.
    ///   - now: The current time.
    init(timing: ConnectionTiming, chance: Double = 0.5, now: ContinuousClock.Instant) {
        self.agedAt = timing.maxAge.map { now + $0 * (0.9 + 0.2 * chance) }
        self.timing = timing
        self.started = now
        self.lastRead = now
        self.idleSince = now
        self.lastSweep = now
    }

    /// Whether both sides know each other's settings.
    var handshakeIsComplete: Bool { self.settingsArrived && self.settingsAcknowledged }

    /// The peer's settings arrived.
    mutating func peerSettingsArrived() { self.settingsArrived = true }

    /// The peer acknowledged our settings.
    mutating func ownSettingsAcknowledged() { self.settingsAcknowledged = true }

    /// Bytes arrived, so the peer is alive.
    mutating func bytesArrived(now: ContinuousClock.Instant) {
        self.lastRead = now
        self.probe = .none
    }

    /// The number of open calls changed.
    mutating func openCallsChanged(_ count: Int, now: ContinuousClock.Instant) {
        if count > 0 { self.idleSince = nil } else if self.idleSince == nil { self.idleSince = now }
    }

    /// When ``timePassed(now:)`` must be called next; nil when nothing is due.
    var nextDue: ContinuousClock.Instant? {
        var due: ContinuousClock.Instant?
        func consider(_ instant: ContinuousClock.Instant) { due = due.map { min($0, instant) } ?? instant }
        if !self.handshakeIsComplete { consider(self.started + self.timing.handshakeTimeout) }
        if let interval = self.timing.sweepInterval { consider(self.lastSweep + interval) }
        if let interval = self.timing.keepaliveInterval {
            switch self.probe {
            case .none where self.idleSince != nil && !self.timing.probesIdleConnections: break
            case .none: consider(self.lastRead + interval)
            case .sent(let instant): consider(instant + self.timing.keepaliveTimeout)
            }
        }
        if let timeout = self.timing.idleTimeout, let since = self.idleSince, !self.drained {
            consider(since + timeout)
        }
        if let agedAt { consider(agedAt) }
        if let overdueAt { consider(overdueAt) }
        return due
    }

    /// Says what is due when time has passed.
    mutating func timePassed(now: ContinuousClock.Instant) -> Action {
        if !self.handshakeIsComplete && now >= self.started + self.timing.handshakeTimeout {
            return .close("the peer completed no HTTP/2 handshake within \(self.timing.handshakeTimeout)")
        }
        if let interval = self.timing.keepaliveInterval {
            switch self.probe {
            case .sent(let instant) where now >= instant + self.timing.keepaliveTimeout:
                return .close("the peer answered no ping within \(self.timing.keepaliveTimeout)")
            case .none where self.idleSince != nil && !self.timing.probesIdleConnections:
                break
            case .none where now >= self.lastRead + interval:
                self.probe = .sent(now)
                return .ping
            default:
                break
            }
        }
        if let overdueAt, now >= overdueAt {
            self.overdueAt = nil
            return .abandon
        }
        if let agedAt, now >= agedAt {
            self.agedAt = nil
            self.overdueAt = self.timing.maxAgeGrace.map { now + $0 }
            self.drained = true
            return .drain
        }
        if let timeout = self.timing.idleTimeout, let since = self.idleSince, !self.drained, now >= since + timeout {
            self.drained = true
            return .drain
        }
        if let interval = self.timing.sweepInterval, now >= self.lastSweep + interval {
            self.lastSweep = now
            return .sweep
        }
        return .wait
    }
}
