// SPDX-License-Identifier: Apache-2.0

/// Whether threads that sleep are woken for a piece of work, or the thread that has it computes it alone: a pure machine.
///
/// To wake a thread on a sleeping processor costs the waking one 5 to 20 us in a virtual machine, and the thread begins 35 to 80 us later. So
/// it pays only if the work between two rests takes longer than that. How long it takes is known from the last rests; where it takes
/// longer than it did, the threads are woken once as much has been computed alone as waking costs, as one buys skis after as many
/// days as they cost in rent.
struct WakeBound {
    /// Work below which no thread is woken.
    static let worth = Duration.microseconds(100)
    /// The longest work that counts, so that one long piece is soon forgotten.
    private static let longest = Self.worth * 4

    /// How long the work between two rests took lately; at first as long as makes waking pay.
    private(set) var usual = Self.longest
    /// When the work since the last rest began; nil if there was none.
    private(set) var start: ContinuousClock.Instant?

    /// A piece of work comes while all other threads sleep.
    ///
    /// - Parameter now: The time.
    /// - Returns: Whether to wake them.
    mutating func wakes(now: ContinuousClock.Instant) -> Bool {
        guard let start else {
            self.start = now
            return self.usual >= Self.worth
        }
        return start.duration(to: now) >= Self.worth
    }

    /// A piece of work comes while other threads are awake.
    ///
    /// - Parameter now: The time, read only if it is needed.
    mutating func shares(now: @autoclosure () -> ContinuousClock.Instant) {
        if self.start == nil { self.start = now() }
    }

    /// The work is done, and none comes soon.
    ///
    /// - Parameter now: The time.
    mutating func rests(now: ContinuousClock.Instant) {
        guard let start else { return }
        let time = min(max(.zero, start.duration(to: now)), Self.longest)
        self.usual += (time - self.usual) / 4
        self.start = nil
    }

    /// Checks what must hold between any two calls.
    ///
    /// - Returns: What does not hold; nil if all does.
    func checkInvariants() -> String? {
        (Duration.zero...Self.longest).contains(self.usual) ? nil : "work usually takes \(self.usual)"
    }
}
