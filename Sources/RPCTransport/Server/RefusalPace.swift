// SPDX-License-Identifier: Apache-2.0

/// Slows down a connection whose calls are refused again and again, as a pure machine.
///
/// A refusal that shares one read and one write with others costs a fraction of one that comes alone. So after a few
/// refusals nothing is read from the connection for a moment, and after each further read that brought mostly calls to
/// refuse, for twice as long, up to a bound. Answers still leave meanwhile. A read that brings only calls with room
/// ends it at once, and so does a time without refusals.
struct RefusalPace: Sendable, Hashable {
    /// Refusals that cost nothing: a client that meets a full queue now and then is not slowed down.
    static let patience = 8
    /// The first pause.
    static let shortest = Duration.milliseconds(2)
    /// The longest pause, which is also how late a call with room may be read.
    static let longest = Duration.milliseconds(64)
    /// A client that waited this long after a refusal did what it was asked to.
    static let memory = Duration.seconds(1)
    /// How many refusals one call with room makes up for.
    static let worth = 4

    /// Refusals that calls with room have not made up for.
    private(set) var debt = 0
    /// The last pause, before its jitter; zero while reads follow each other as they come.
    private(set) var pause = Duration.zero
    private var lastRefusal: ContinuousClock.Instant?

    /// A read has been dealt with.
    ///
    /// - Parameters:
    ///   - admitted: Calls of the read that found room.
    ///   - refused: Calls of the read that were refused for lack of room.
    ///   - chance: Where in its spread the pause lies, from 0 to 1.
    ///   - now: The current time.
    /// - Returns: How long to read nothing: the pause less up to a quarter; nil to go on reading.
    mutating func readEnded(
        admitted: Int,
        refused: Int,
        chance: Double,
        now: ContinuousClock.Instant
    ) -> Duration? {
        if let last = self.lastRefusal, last.duration(to: now) >= Self.memory { self = RefusalPace() }
        guard refused > 0 else {
            if admitted > 0 { self = RefusalPace() }
            return nil
        }
        self.lastRefusal = now
        // Bounded, so that a long flood is not held against the client for long.
        self.debt = min(max(0, self.debt + refused - Self.worth * admitted), 8 * Self.patience)
        guard self.debt >= Self.patience else {
            self.pause = .zero
            return nil
        }
        let isMostlyRefused = refused > Self.worth * admitted
        let next = isMostlyRefused ? self.pause * 2 : self.pause
        self.pause = min(max(next, Self.shortest), Self.longest)
        return self.pause * (1 - 0.25 * min(max(chance, 0), 1))
    }

    /// What must hold after every event.
    ///
    /// - Returns: The first rule that does not hold; nil if all do.
    func checkInvariants() -> String? {
        if self.debt < 0 || self.debt > 8 * Self.patience { return "the debt is \(self.debt)" }
        if self.pause > Self.longest { return "the pause is \(self.pause)" }
        if self.pause > .zero, self.pause < Self.shortest { return "the pause is \(self.pause)" }
        if self.debt < Self.patience, self.pause > .zero {
            return "a pause of \(self.pause) with a debt of \(self.debt)"
        }
        return nil
    }
}
