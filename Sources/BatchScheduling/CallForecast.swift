// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

/// Which gateway will call next for which layer, and when: in every step a gateway visits the layers in the same
/// order, with about the same time between two layers.
struct CallForecast: Sendable {
    /// What a source did last time after its call for a layer.
    private struct Habit {
        var next: SparseLayer
        /// Moving average of the time from the answer to the next call, in nanoseconds.
        var nanoseconds: Double
    }

    private struct Source {
        var unanswered = 0
        var layer: SparseLayer?
        var answered: ContinuousClock.Instant
        var habits: [SparseLayer: Habit] = [:]

        mutating func called(_ layer: SparseLayer, now: ContinuousClock.Instant) {
            if self.unanswered == 0, let last = self.layer {
                let time = max(0, self.answered.duration(to: now) / .nanoseconds(1))
                var habit = self.habits[last] ?? Habit(next: layer, nanoseconds: time)
                if habit.next == layer {
                    habit.nanoseconds += CallForecast.weight * (time - habit.nanoseconds)
                } else {
                    habit = Habit(next: layer, nanoseconds: time)
                }
                self.habits[last] = habit
            }
            self.layer = layer
            self.unanswered += 1
        }

        mutating func ended(now: ContinuousClock.Instant) {
            self.unanswered -= 1
            self.answered = now
        }
    }

    /// Weight of a new time in the average.
    private static let weight = 0.25

    /// How much later than average a source is still expected: a quarter, plus the time to wake a thread.
    private static let patience = (factor: 1.25, nanoseconds: 50_000.0)

    /// How long a silent source is remembered.
    private static let memory = Duration.seconds(1)

    /// Number of sources above which departed ones are removed.
    private static let sourcesToKeep = 16

    private var sources: [String: Source] = [:]

    /// Calls of a source that have not ended; nil where the source is not known.
    func unanswered(by name: String) -> Int? { self.sources[name]?.unanswered }

    /// Records a queued call.
    mutating func called(_ name: String, layer: SparseLayer, now: ContinuousClock.Instant) {
        if self.sources.count >= Self.sourcesToKeep, self.sources[name] == nil {
            self.sources = self.sources.filter {
                $0.value.unanswered > 0 || $0.value.answered.duration(to: now) < Self.memory
            }
        }
        self.sources[name, default: Source(answered: now)].called(layer, now: now)
    }

    /// Records the end of a queued call: it was computed, it expired, or its caller left.
    mutating func ended(_ name: String, now: ContinuousClock.Instant) {
        guard let source = self.sources[name] else { return }
        self.sources[name, default: source].ended(now: now)
    }

    /// Until when it is worthwhile to wait for more calls for a layer.
    ///
    /// - Parameters:
    ///   - layer: The layer.
    ///   - now: The current time.
    ///   - limit: How soon a source must be expected for the wait to include it.
    /// - Returns: When the last expected source should have called, with some time to spare; nil if none is expected.
    func expected(
        for layer: SparseLayer,
        now: ContinuousClock.Instant,
        within limit: Duration
    ) -> ContinuousClock.Instant? {
        var latest: ContinuousClock.Instant?
        for source in self.sources.values where source.unanswered == 0 {
            guard let last = source.layer, let habit = source.habits[last], habit.next == layer else {
                continue
            }
            let due = source.answered.advanced(by: .nanoseconds(Int64(habit.nanoseconds)))
            let end = source.answered.advanced(
                by: .nanoseconds(Int64(habit.nanoseconds * Self.patience.factor + Self.patience.nanoseconds))
            )
            if now < end, now.duration(to: due) <= limit {
                latest = max(latest ?? end, end)
            }
        }
        return latest
    }
}
