// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes
internal import Synchronization

#if canImport(Glibc)
internal import Glibc
#elseif canImport(Musl)
internal import Musl
#endif

/// Lets a thread look for what it waits for, again and again, before it sleeps: an answer that comes soon needs no wake-up.
///
/// Between two looks it gives way to any other thread that wants the processor: the answer may depend on just that one. So it pays
/// wherever the answer comes soon (``SpinBound``), unless other programs compute. It notices them in two ways: it gets its
/// processor back late, since they keep it until the system takes it away; and the system counts how long the thread waits for
/// a processor that it has not given away (``ProcessorPressure``).
public final class IdleSpin: Sendable {
    /// What shows that something else computes on the processor: what brings an answer soon gives way as soon.
    private static let gap = Duration.milliseconds(1)
    /// From which time between two looks on another thread has had the processor.
    private static let turn = Duration.microseconds(2)

    private struct State {
        var bound: SpinBound
        var pressure = ProcessorPressure()
    }

    private let state: Mutex<State>
    private let crowded = Atomic<Bool>(false)

    /// Describes how long threads spin.
    ///
    /// - Parameters:
    ///   - limit: How long at most; zero turns spinning off.
    ///   - processors: The processors of this process; on one alone nothing could happen while a thread spins.
    public init(limit: Duration, processors: Int) {
        self.state = Mutex(State(bound: SpinBound(limit: processors > 1 ? limit : .zero)))
    }

    /// Whether the threads that wait here had to wait for processors too, lately.
    package var isCrowded: Bool { self.crowded.load(ordering: .relaxed) }

    /// Whether the system tells ``isCrowded``.
    package static var knowsCrowds: Bool { ProcessorPressure.Count.ofThisThread() != nil }

    /// Waits without sleeping.
    ///
    /// - Parameters:
    ///   - deadline: When to stop; nil for the limit alone.
    ///   - looksOnce: Whether to look once where it does not pay to look longer.
    ///   - isDone: Whether what is waited for has happened; takes no more than a microsecond or two while it has not.
    /// - Returns: Whether it has.
    public func run(until deadline: ContinuousClock.Instant?, looksOnce: Bool = true, _ isDone: () -> Bool) -> Bool {
        let start = ContinuousClock.now
        let length = self.length(now: start)
        guard length > .zero else { return looksOnce ? isDone() : false }
        let end = min(deadline ?? start + length, start + length)
        var last = start
        var given = ProcessorPressure.Given()
        while true {
            if isDone() {
                self.ended(.found, since: start, given)
                return true
            }
            let looked = ContinuousClock.now
            guard looked < end, last.duration(to: looked) <= Self.gap else {
                self.ended(looked < end ? .interrupted : .notFound, since: start, given)
                return false
            }
            sched_yield()
            last = ContinuousClock.now
            let gap = looked.duration(to: last)
            if gap > Self.gap {
                self.ended(.interrupted, since: start, given)
                return isDone()
            }
            if gap > Self.turn { given.add(gap) }
        }
    }

    private func length(now: ContinuousClock.Instant) -> Duration {
        let (length, isDue) = self.state.withLock { state in
            let isDue = state.pressure.isDue(now: now)
            return (state.pressure.isHigh ? .zero : state.bound.began(now: now), isDue)
        }
        if isDue, let count = ProcessorPressure.Count.ofThisThread() { self.counted(count, now: now) }
        return length
    }

    /// Takes into account what the system has counted for a thread that waits here.
    ///
    /// - Parameters:
    ///   - count: The count.
    ///   - now: The time.
    package func counted(_ count: ProcessorPressure.Count, now: ContinuousClock.Instant) {
        let isHigh = self.state.withLock { state in
            state.pressure.counted(count, now: now)
            return state.pressure.isHigh
        }
        self.crowded.store(isHigh, ordering: .relaxed)
    }

    private func ended(
        _ outcome: SpinBound.Outcome,
        since start: ContinuousClock.Instant,
        _ given: ProcessorPressure.Given
    ) {
        let now = ContinuousClock.now
        self.state.withLock { state in
            state.bound.ended(outcome, after: start.duration(to: now), now: now)
            state.pressure.gaveWay(given)
        }
    }
}
