// SPDX-License-Identifier: Apache-2.0

public import SwitchyardTypes

#if canImport(Glibc)
internal import Glibc
#elseif canImport(Musl)
internal import Musl
#elseif canImport(Darwin)
internal import Darwin
#endif

/// How many token rows each expert takes per second: a moving average with exponential decay.
///
/// A row that was counted `t` ago weighs `2^(-t / halfLife)`. The sum of the weights of an expert's rows is divided by
/// what it would be at one row per second over the time since the first look, so that the average is right from the
/// start, not only after some half-lives. Time is passed in; the type reads no clock.
///
/// Counters and increments may be mixed, but not in one layer: ``counted(_:in:now:)`` takes counters that only grow
/// and spreads their growth over the time since the last look; ``add(_:of:in:now:)`` takes rows as they arrive.
public struct ExpertLoad: Sendable {
    private struct Layer: Sendable {
        /// Decayed rows by expert, as of `latest`.
        var sums: [Double]
        /// Decayed work (``ExpertWork``) in the same way; empty where rows are read from counters.
        var work: [Double] = []
        /// Counters at the last look.
        var counters: [UInt64]?
        let first: ContinuousClock.Instant
        var latest: ContinuousClock.Instant

        /// Counts an expert's rows, in place, after older ones have lost some weight.
        mutating func add(_ rows: Int, of expert: Int, decay: Double, now: ContinuousClock.Instant) {
            if decay < 1 {
                for index in self.sums.indices { self.sums[index] *= decay }
                for index in self.work.indices { self.work[index] *= decay }
            }
            self.latest = max(self.latest, now)
            ExpertLoad.widen(&self.sums, to: expert + 1)
            ExpertLoad.widen(&self.work, to: expert + 1)
            self.sums[expert] += Double(max(rows, 0))
            self.work[expert] += Double(ExpertWork.of(rows: rows))
        }
    }

    /// Time after which a row weighs half.
    public let halfLife: Duration

    private var layers: [SparseLayer: Layer] = [:]

    /// Creates an average without rows.
    ///
    /// - Parameter halfLife: Time after which a row weighs half; at least a millisecond.
    public init(halfLife: Duration = .seconds(30)) {
        self.halfLife = max(halfLife, .milliseconds(1))
    }

    /// The layers with counted rows, in order.
    public var countedLayers: [SparseLayer] { self.layers.keys.sorted() }

    /// Takes readings of counters that only grow.
    ///
    /// The first look at a layer only remembers them. A counter that is smaller than before was restarted: its growth
    /// is its current value.
    ///
    /// - Parameters:
    ///   - counters: Rows since some start, by expert.
    ///   - layer: The layer.
    ///   - now: When they were read.
    public mutating func counted(_ counters: [UInt64], in layer: SparseLayer, now: ContinuousClock.Instant) {
        guard var state = self.layers[layer], let before = state.counters else {
            self.layers[layer] = Layer(
                sums: Array(repeating: 0, count: counters.count),
                counters: counters,
                first: now,
                latest: now
            )
            return
        }
        let elapsed = state.latest.duration(to: now)
        // Rows without time in between would be an infinite rate; the next look counts them.
        guard elapsed > .zero else { return }
        let decay = self.decay(over: elapsed)
        // Rows that arrived evenly over the time have, on average, lost this part of their weight by now.
        let kept = self.weight(over: elapsed) / elapsed.inSeconds
        Self.widen(&state.sums, to: counters.count)
        for (expert, counter) in counters.enumerated() {
            let old = expert < before.count ? before[expert] : 0
            let grown = counter >= old ? counter - old : counter
            state.sums[expert] = state.sums[expert] * decay + Double(grown) * kept
        }
        state.counters = counters
        state.latest = now
        self.layers[layer] = state
    }

    /// Counts dispatched rows.
    ///
    /// - Parameters:
    ///   - rows: How many; a number below zero is none.
    ///   - expert: Index of the expert; one below zero is ignored.
    ///   - layer: Its layer.
    ///   - now: When. A time before the last one counts as no time.
    public mutating func add(_ rows: Int, of expert: Int, in layer: SparseLayer, now: ContinuousClock.Instant) {
        guard expert >= 0 else { return }
        let elapsed = self.layers[layer].map { $0.latest.duration(to: now) } ?? .zero
        let decay = elapsed > .zero ? self.decay(over: elapsed) : 1
        self.layers[layer, default: Layer(sums: [], counters: nil, first: now, latest: now)]
            .add(rows, of: expert, decay: decay, now: now)
    }

    /// The average of each expert of a layer.
    ///
    /// - Parameters:
    ///   - layer: The layer.
    ///   - now: The present; the time since the last rows counts as time without any, unless counters are read, whose
    ///     next look will tell.
    /// - Returns: Rows per second, by expert; empty if nothing was counted, zeros if no time has passed.
    public func rowsPerSecond(in layer: SparseLayer, now: ContinuousClock.Instant) -> [Double] {
        self.perSecond(in: layer, now: now) { $0.sums }
    }

    /// The average work for each expert of a layer, in rows that take as long: reading an expert's weights takes as long as
    /// some rows do, so an expert that is asked for one row now and then is not idle.
    ///
    /// - Parameters:
    ///   - layer: The layer.
    ///   - now: The present, as for ``rowsPerSecond(in:now:)``.
    /// - Returns: Work per second, by expert; empty if nothing was counted, or counters are read, which do not tell.
    public func workPerSecond(in layer: SparseLayer, now: ContinuousClock.Instant) -> [Double] {
        self.perSecond(in: layer, now: now) { $0.work }
    }

    private func perSecond(
        in layer: SparseLayer,
        now: ContinuousClock.Instant,
        _ sums: (Layer) -> [Double]
    ) -> [Double] {
        guard let state = self.layers[layer] else { return [] }
        let end = state.counters == nil ? max(now, state.latest) : state.latest
        let weight = self.weight(over: state.first.duration(to: end))
        guard weight > 0 else { return sums(state).map { _ in 0 } }
        let decay = self.decay(over: state.latest.duration(to: end))
        return sums(state).map { $0 * decay / weight }
    }

    /// How many rows the averages of a layer are based on: the sum of the rows' weights.
    ///
    /// - Parameter layer: The layer.
    /// - Returns: Rows, as of the last look; zero if nothing was counted.
    public func observedRows(in layer: SparseLayer) -> Double {
        self.layers[layer]?.sums.reduce(0, +) ?? 0
    }

    /// The fraction of a weight left after a time.
    private func decay(over time: Duration) -> Double {
        exp2(-max(time, .zero).inSeconds / self.halfLife.inSeconds)
    }

    /// The integral of the weights over a time that ends now, in seconds.
    private func weight(over time: Duration) -> Double {
        -expm1(-max(time, .zero).inSeconds / self.halfLife.inSeconds * M_LN2) * self.halfLife.inSeconds / M_LN2
    }

    fileprivate static func widen(_ sums: inout [Double], to count: Int) {
        if sums.count < count { sums += Array(repeating: 0, count: count - sums.count) }
    }
}
