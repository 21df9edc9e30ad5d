// SPDX-License-Identifier: Apache-2.0

public import Metrics
internal import Synchronization

/// Keeps metrics in memory and writes them as Prometheus text: a backend of swift-metrics.
///
/// Counting costs an atomic addition; the registry's lock is taken only to create or write out a series.
/// Collectors gather values that are cheaper to look up than to keep, whenever metrics are written.
public final class MetricsRegistry: MetricsFactory, Sendable {
    /// Adds current values.
    public typealias Collector = @Sendable (inout MetricSnapshot) -> Void

    private struct Family {
        var order: [[String]] = []
        var series: [[String]: any MetricSeries] = [:]
        var dropped: DroppedSeries?
    }

    private struct State {
        var families: [String: Family] = [:]
        var collectors: [Collector] = []
        var undescribed: Set<String> = []
    }

    private let definitions: [MetricDefinition]
    private let byName: [String: MetricDefinition]
    private let seriesLimit: Int
    private let state = Mutex(State())

    /// Creates a registry of the families of ``MetricCatalog``.
    ///
    /// - Parameter seriesLimit: Limit of series per family; further series are not kept, and their values count as
    ///   lost.
    public convenience init(seriesLimit: Int = 2000) {
        self.init(definitions: MetricCatalog.all, seriesLimit: seriesLimit)
    }

    init(definitions: [MetricDefinition], seriesLimit: Int) {
        self.definitions = definitions
        self.byName = Dictionary(definitions.map { ($0.name, $0) }) { first, _ in first }
        self.seriesLimit = seriesLimit
    }

    /// Asks a collector whenever metrics are written.
    ///
    /// - Parameter collector: Called on the thread that writes; it may take locks, but must not wait for long.
    public func collect(_ collector: @escaping Collector) {
        self.state.withLock { $0.collectors.append(collector) }
    }

    /// All current values.
    public var snapshot: MetricSnapshot {
        let (families, collectors, undescribed) = self.state.withLock { state in
            (state.families, state.collectors, state.undescribed)
        }
        var snapshot = MetricSnapshot { [byName] in byName[$0] }
        for (name, family) in families {
            for labels in family.order {
                if let series = family.series[labels] { snapshot.add(name, labels, series.value) }
            }
            if let dropped = family.dropped {
                snapshot.set(MetricCatalog.service.metricSeriesDroppedTotal, [name], dropped.lost.current)
            }
        }
        for collector in collectors { collector(&snapshot) }
        snapshot.report(undescribed)
        return snapshot
    }

    /// All current values as Prometheus text.
    ///
    /// - Returns: UTF-8, for the content type ``PrometheusText/contentType``.
    public func text() -> [UInt8] {
        PrometheusText.render(self.definitions, self.snapshot)
    }

    // MARK: - MetricsFactory

    /// Finds or makes a counter.
    ///
    /// - Parameters:
    ///   - label: The family's name.
    ///   - dimensions: Its labels with their values.
    /// - Returns: The series, or one that does nothing if no definition matches.
    public func makeCounter(label: String, dimensions: [(String, String)]) -> any CounterHandler {
        let series: (any CounterHandler)? = self.series(label, dimensions) { $0 == .counter ? CounterSeries() : nil }
        return series ?? NOOPMetricsHandler.instance
    }

    /// Finds or makes a gauge (not aggregated) or a histogram (aggregated).
    ///
    /// - Parameters:
    ///   - label: The family's name.
    ///   - dimensions: Its labels with their values.
    ///   - aggregate: Whether every observation counts, or the last one.
    /// - Returns: The series, or one that does nothing if no definition matches.
    public func makeRecorder(
        label: String,
        dimensions: [(String, String)],
        aggregate: Bool
    ) -> any RecorderHandler {
        let series: (any RecorderHandler)? =
            if aggregate {
                self.series(label, dimensions, Self.histogram)
            } else {
                self.series(label, dimensions, Self.gauge)
            }
        return series ?? NOOPMetricsHandler.instance
    }

    /// Finds or makes a gauge.
    ///
    /// - Parameters:
    ///   - label: The family's name.
    ///   - dimensions: Its labels with their values.
    /// - Returns: The series, or one that does nothing if no definition matches.
    public func makeMeter(label: String, dimensions: [(String, String)]) -> any MeterHandler {
        let series: (any MeterHandler)? = self.series(label, dimensions, Self.gauge)
        return series ?? NOOPMetricsHandler.instance
    }

    /// Finds or makes a histogram of times.
    ///
    /// - Parameters:
    ///   - label: The family's name.
    ///   - dimensions: Its labels with their values.
    /// - Returns: The series, or one that does nothing if no definition matches.
    public func makeTimer(label: String, dimensions: [(String, String)]) -> any TimerHandler {
        let series: (any TimerHandler)? = self.series(label, dimensions, Self.histogram)
        return series ?? NOOPMetricsHandler.instance
    }

    /// Forgets a counter.
    ///
    /// - Parameter handler: The series.
    public func destroyCounter(_ handler: any CounterHandler) { self.remove(handler) }

    /// Forgets a gauge or a histogram.
    ///
    /// - Parameter handler: The series.
    public func destroyRecorder(_ handler: any RecorderHandler) { self.remove(handler) }

    /// Forgets a gauge.
    ///
    /// - Parameter handler: The series.
    public func destroyMeter(_ handler: any MeterHandler) { self.remove(handler) }

    /// Forgets a histogram of times.
    ///
    /// - Parameter handler: The series.
    public func destroyTimer(_ handler: any TimerHandler) { self.remove(handler) }

    // MARK: - Private

    private static func gauge(_ kind: MetricDefinition.Kind) -> GaugeSeries? { kind == .gauge ? GaugeSeries() : nil }

    private static func histogram(_ kind: MetricDefinition.Kind) -> HistogramSeries? {
        guard case .histogram(let buckets) = kind else { return nil }
        return HistogramSeries(buckets)
    }

    /// Finds or makes a series of some type.
    ///
    /// - Returns: The series, a stand-in if the family is full, or nil if no definition matches.
    private func series<Handler, Made: MetricSeries>(
        _ name: String,
        _ dimensions: [(String, String)],
        _ make: (MetricDefinition.Kind) -> Made?
    ) -> Handler? {
        guard let definition = self.byName[name] else {
            return self.refuse("\(name) is not in the table")
        }
        let given = Dictionary(dimensions) { first, _ in first }
        let labels = definition.labels.compactMap { given[$0] }
        guard labels.count == definition.labels.count, dimensions.count == labels.count else {
            return self.refuse("\(name) has the labels \(dimensions.map(\.0)), not \(definition.labels)")
        }
        guard let made = make(definition.kind) else {
            return self.refuse("\(name) is a \(definition.kind.name)")
        }
        return self.state.withLock { state in
            var family = state.families[name] ?? Family()
            defer { state.families[name] = family }
            if let known = family.series[labels] { return known as? Handler }
            guard family.order.count < self.seriesLimit else {
                let dropped = family.dropped ?? DroppedSeries()
                family.dropped = dropped
                return dropped as? Handler
            }
            family.series[labels] = made
            family.order.append(labels)
            return made as? Handler
        }
    }

    private func refuse<Handler>(_ reason: String) -> Handler? {
        self.state.withLock { _ = $0.undescribed.insert(reason) }
        return nil
    }

    private func remove(_ handler: AnyObject) {
        self.state.withLock { state in
            for (name, family) in state.families {
                guard let labels = family.series.first(where: { $0.value === handler })?.key else { continue }
                state.families[name]?.series[labels] = nil
                state.families[name]?.order.removeAll { $0 == labels }
            }
        }
    }
}
