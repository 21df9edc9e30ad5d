// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes
internal import Synchronization

/// Lets a thread look for what it waits for, again and again, before it sleeps: an answer that comes soon needs no wake-up.
///
/// It pays only where the processor would be idle. The thread measures that: between two looks pass some 50 nanoseconds, unless
/// the system runs something else on the processor in between. After such a gap no thread spins for a while.
public final class IdleSpin: Sendable {
    /// What shows that the processor is wanted, and how long no thread spins then.
    private static let gap = Duration.microseconds(50)
    private static let rest = Duration.milliseconds(20)

    private let limit: Duration
    /// Until when no thread spins, in nanoseconds since ``origin``.
    private let restingUntil = Atomic<Int64>(0)
    private let origin = ContinuousClock.now

    /// Describes how long threads spin.
    ///
    /// - Parameters:
    ///   - limit: How long at most; zero turns spinning off.
    ///   - processors: The processors of this process; on one alone nothing could happen while a thread spins.
    public init(limit: Duration, processors: Int) {
        self.limit = processors > 1 ? limit : .zero
    }

    /// Waits without sleeping.
    ///
    /// - Parameters:
    ///   - deadline: When to stop; nil for the limit alone.
    ///   - isDone: Whether what is waited for has happened; takes no more than a microsecond or two while it has not.
    /// - Returns: Whether it has.
    public func run(until deadline: ContinuousClock.Instant?, _ isDone: () -> Bool) -> Bool {
        guard self.limit > .zero else { return isDone() }
        var last = ContinuousClock.now
        guard self.origin.duration(to: last).wholeNanoseconds >= self.restingUntil.load(ordering: .relaxed) else {
            return isDone()
        }
        let end = min(deadline ?? last + self.limit, last + self.limit)
        while true {
            if isDone() { return true }
            let now = ContinuousClock.now
            if last.duration(to: now) > Self.gap {
                let until = self.origin.duration(to: now + Self.rest).wholeNanoseconds
                self.restingUntil.store(until, ordering: .relaxed)
                return isDone()
            }
            guard now < end else { return false }
            last = now
        }
    }
}
