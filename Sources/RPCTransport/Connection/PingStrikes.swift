// SPDX-License-Identifier: Apache-2.0

/// Counts a client's too early pings, as a pure machine.
///
/// Source: https://github.com/grpc/grpc/blob/v1.51.1/doc/keepalive.md and
/// https://github.com/grpc/proposal/blob/master/A8-client-side-keepalive.md. Anything the server sends clears all
/// strikes, since clients measure their bandwidth with pings while they receive.
struct PingStrikes: Sendable {
    private let timing: ConnectionTiming
    private var last: ContinuousClock.Instant?
    private var strikes = 0

    private static let idleInterval = Duration.seconds(2 * 3600)

    init(timing: ConnectionTiming) {
        self.timing = timing
    }

    /// The server sent headers or data since the last ping.
    mutating func sent() {
        self.last = nil
        self.strikes = 0
    }

    /// A ping came.
    ///
    /// Returns whether it was one too many.
    mutating func pinged(openCalls: Int, now: ContinuousClock.Instant) -> Bool {
        guard let minimum = self.timing.minimumPingInterval else { return false }
        defer { self.last = now }
        guard let last = self.last else { return false }
        let isIdle = openCalls == 0 && !self.timing.allowsIdlePings
        guard now < last + (isIdle ? max(minimum, Self.idleInterval) : minimum) else { return false }
        self.strikes += 1
        return self.strikes > self.timing.pingStrikes
    }
}

/// Counts how long something has made no progress, from one look at it to the next.
struct StallClock: Sendable {
    private var progress = -1
    private var since: ContinuousClock.Instant?

    /// Looks at it.
    ///
    /// - Parameters:
    ///   - isWaiting: Whether there is anything to make progress with.
    ///   - progress: A number that grows with progress.
    ///   - now: The time.
    /// - Returns: For how long nothing has moved.
    mutating func observe(isWaiting: Bool, progress: Int, now: ContinuousClock.Instant) -> Duration {
        guard isWaiting, progress == self.progress, let since = self.since else {
            self.progress = progress
            self.since = isWaiting ? now : nil
            return .zero
        }
        return now - since
    }
}
