// SPDX-License-Identifier: Apache-2.0

/// When a thread that computes for trainers leaves its processor to others: for an eleventh of its time at most.
///
/// Where an event loop waits for the processor with a call, it needs it for an instant. Where something else computes there without
/// end, the processor comes back after milliseconds, and so the thread keeps it for ten times as long before it leaves it again.
struct Courtesy {
    /// How long the thread keeps the processor for each moment without it.
    private static let share = 10

    private var next: ContinuousClock.Instant?

    /// Whether the thread leaves its processor now.
    ///
    /// - Parameter now: The current time.
    /// - Returns: Whether it does.
    func isDue(now: ContinuousClock.Instant) -> Bool { self.next.map { $0 <= now } ?? true }

    /// Notes that the thread has its processor back.
    ///
    /// - Parameters:
    ///   - start: When it left it.
    ///   - end: When it came back.
    mutating func returned(from start: ContinuousClock.Instant, at end: ContinuousClock.Instant) {
        self.next = end.advanced(by: start.duration(to: end) * Self.share)
    }
}

/// The courtesy of one thread, shared by its passes.
final class CourtesyOfThread {
    private var courtesy = Courtesy()

    /// Leaves the processor for an instant, if it is time to.
    func giveWay(_ leave: () -> Void) {
        let start = ContinuousClock.now
        guard self.courtesy.isDue(now: start) else { return }
        leave()
        self.courtesy.returned(from: start, at: .now)
    }
}
