// SPDX-License-Identifier: Apache-2.0

internal import Metrics
internal import Synchronization

/// A number that many threads add to.
final class AtomicCell: Sendable {
    private let value = Atomic<UInt64>(0)

    var current: UInt64 { self.value.load(ordering: .relaxed) }

    func add(_ amount: UInt64) { self.value.wrappingAdd(amount, ordering: .relaxed) }

    func set(_ value: UInt64) { self.value.store(value, ordering: .relaxed) }
}

/// A floating-point number that many threads add to.
final class AtomicDouble: Sendable {
    private let bits = Atomic<UInt64>(0)

    var current: Double { Double(bitPattern: self.bits.load(ordering: .relaxed)) }

    func set(_ value: Double) { self.bits.store(value.bitPattern, ordering: .relaxed) }

    func add(_ amount: Double) {
        var seen = self.bits.load(ordering: .relaxed)
        while true {
            let sum = (Double(bitPattern: seen) + amount).bitPattern
            let (exchanged, found) = self.bits.weakCompareExchange(expected: seen, desired: sum, ordering: .relaxed)
            if exchanged { return }
            seen = found
        }
    }
}

/// One series of a family, as swift-metrics and the renderer see it.
protocol MetricSeries: AnyObject, Sendable {
    /// What to write.
    var value: MetricSnapshot.Value { get }
}

/// A series that only grows.
final class CounterSeries: MetricSeries, CounterHandler {
    private let cell = AtomicCell()

    var value: MetricSnapshot.Value { .integer(self.cell.current) }

    func increment(by amount: Int64) {
        // A falling counter would look like a restart.
        if amount > 0 { self.cell.add(UInt64(amount)) }
    }

    func reset() { self.cell.set(0) }
}

/// A series with a current value.
final class GaugeSeries: MetricSeries, RecorderHandler, MeterHandler {
    private let number = AtomicDouble()

    var value: MetricSnapshot.Value { .number(self.number.current) }

    func record(_ value: Int64) { self.number.set(Double(value)) }
    func record(_ value: Double) { self.number.set(value) }
    func set(_ value: Int64) { self.number.set(Double(value)) }
    func set(_ value: Double) { self.number.set(value) }
    func increment(by amount: Double) { self.number.add(amount) }
    func decrement(by amount: Double) { self.number.add(-amount) }
}

/// A series of observations; times are recorded in nanoseconds and written in seconds.
final class HistogramSeries: MetricSeries, RecorderHandler, TimerHandler {
    private let buckets: Buckets
    private let bounds: [Double]
    private let cells: [AtomicCell]
    private let sum = AtomicDouble()

    init(_ buckets: Buckets) {
        self.buckets = buckets
        self.bounds = buckets.bounds
        self.cells = (0...buckets.bounds.count).map { _ in AtomicCell() }
    }

    // Observations may arrive between the reads; the count is the sum of the buckets, so that they agree.
    var value: MetricSnapshot.Value {
        .histogram(HistogramCounts(self.buckets, counts: self.cells.map(\.current), sum: self.sum.current))
    }

    func record(_ value: Int64) { self.observe(Double(value)) }
    func record(_ value: Double) { self.observe(value) }
    func recordNanoseconds(_ duration: Int64) { self.observe(Double(duration) * 1e-9) }

    private func observe(_ value: Double) {
        guard !value.isNaN else { return }
        self.cells[HistogramCounts.index(of: value, in: self.bounds)].add(1)
        self.sum.add(value)
    }
}

/// Replaces series that a family has no room for, and counts how much was lost.
final class DroppedSeries: CounterHandler, RecorderHandler, MeterHandler, TimerHandler {
    let lost = AtomicCell()

    func increment(by amount: Int64) { self.lost.add(1) }
    func reset() {}
    func record(_ value: Int64) { self.lost.add(1) }
    func record(_ value: Double) { self.lost.add(1) }
    func set(_ value: Int64) { self.lost.add(1) }
    func set(_ value: Double) { self.lost.add(1) }
    func increment(by amount: Double) { self.lost.add(1) }
    func decrement(by amount: Double) { self.lost.add(1) }
    func recordNanoseconds(_ duration: Int64) { self.lost.add(1) }
}
