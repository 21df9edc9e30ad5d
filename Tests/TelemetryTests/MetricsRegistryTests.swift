// SPDX-License-Identifier: Apache-2.0

import Metrics
import Testing

@testable import Telemetry

@Suite("The metrics registry")
struct MetricsRegistryTests {
    private static let definitions = [
        MetricDefinition("a_total", .counter, ["kind"], "Things; of \"two\" kinds,\nand a \\."),
        MetricDefinition("b_seconds", .histogram(.callSeconds), "Times."),
        MetricDefinition("c", .gauge, "A value."),
        MetricDefinition("d_rows", .histogram(.calls), ["pool"], "Sizes."),
        MetricDefinition("switchyard_metric_series_dropped_total", .counter, ["metric"], "Lost."),
    ]

    private static func registry(limit: Int = 100) -> MetricsRegistry {
        MetricsRegistry(definitions: self.definitions, seriesLimit: limit)
    }

    private static func text(_ registry: MetricsRegistry) -> String { String(decoding: registry.text(), as: UTF8.self) }

    @Test("every type is written in Prometheus' format, in the table's order, with help and type")
    func rendering() {
        let registry = Self.registry()
        let gauge = Gauge(label: "c", factory: registry)
        gauge.record(0.25)
        let timer = Timer(label: "b_seconds", factory: registry)
        timer.recordNanoseconds(100_000)
        timer.recordNanoseconds(100_001)
        timer.recordSeconds(60)
        Recorder(label: "d_rows", dimensions: [("pool", "p")], aggregate: true, factory: registry).record(3)
        Counter(label: "a_total", dimensions: [("kind", "x\"y\\z\n")], factory: registry).increment(by: 7)
        Counter(label: "a_total", dimensions: [("kind", "plain")], factory: registry).increment()
        let text = Self.text(registry)
        #expect(
            text == """
                # HELP a_total Things; of "two" kinds,\\nand a \\\\.
                # TYPE a_total counter
                a_total{kind="x\\"y\\\\z\\n"} 7
                a_total{kind="plain"} 1
                # HELP b_seconds Times.
                # TYPE b_seconds histogram
                b_seconds_bucket{le="0.0001"} 1
                b_seconds_bucket{le="0.00025"} 2
                b_seconds_bucket{le="0.0005"} 2
                b_seconds_bucket{le="0.001"} 2
                b_seconds_bucket{le="0.0025"} 2
                b_seconds_bucket{le="0.005"} 2
                b_seconds_bucket{le="0.01"} 2
                b_seconds_bucket{le="0.025"} 2
                b_seconds_bucket{le="0.05"} 2
                b_seconds_bucket{le="0.1"} 2
                b_seconds_bucket{le="0.25"} 2
                b_seconds_bucket{le="0.5"} 2
                b_seconds_bucket{le="1"} 2
                b_seconds_bucket{le="2.5"} 2
                b_seconds_bucket{le="5"} 2
                b_seconds_bucket{le="+Inf"} 3
                b_seconds_sum 60.00020000100001
                b_seconds_count 3
                # HELP c A value.
                # TYPE c gauge
                c 0.25
                # HELP d_rows Sizes.
                # TYPE d_rows histogram
                d_rows_bucket{pool="p",le="1"} 0
                d_rows_bucket{pool="p",le="2"} 0
                d_rows_bucket{pool="p",le="4"} 1
                d_rows_bucket{pool="p",le="8"} 1
                d_rows_bucket{pool="p",le="16"} 1
                d_rows_bucket{pool="p",le="32"} 1
                d_rows_bucket{pool="p",le="64"} 1
                d_rows_bucket{pool="p",le="+Inf"} 1
                d_rows_sum{pool="p"} 3
                d_rows_count{pool="p"} 1

                """
        )
        #expect(PrometheusLint.offences(in: text) == [])
        #expect(registry.snapshot.undescribed.isEmpty)
    }

    @Test("families without a series are not written")
    func empty() {
        #expect(Self.text(Self.registry()) == "")
    }

    @Test(
        "numbers are written as Prometheus reads them",
        arguments: [
            (0.0, "0"), (-0.0, "0"), (1.0, "1"), (-3.0, "-3"), (0.1, "0.1"), (1e-7, "1e-07"), (1e300, "1e+300"),
            (Double.infinity, "+Inf"), (-Double.infinity, "-Inf"), (Double.nan, "NaN"),
            (9_007_199_254_740_991.0, "9007199254740991"),
        ]
    )
    func numbers(value: Double, text: String) {
        #expect(PrometheusText.number(value) == text)
    }

    @Test("one series has one handler, for every caller")
    func shared() {
        let registry = Self.registry()
        for _ in 0..<10 { Counter(label: "a_total", dimensions: [("kind", "x")], factory: registry).increment() }
        #expect(registry.snapshot.value("a_total", ["x"]) == 10)
    }

    @Test("additions from many threads are all counted")
    func concurrent() async {
        let registry = Self.registry()
        let counter = Counter(label: "a_total", dimensions: [("kind", "x")], factory: registry)
        let timer = Timer(label: "b_seconds", factory: registry)
        let meter = Meter(label: "c", factory: registry)
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<8 {
                group.addTask {
                    for _ in 0..<1000 {
                        counter.increment()
                        timer.recordMilliseconds(1)
                        meter.increment(by: 2)
                        meter.decrement(by: 1)
                    }
                }
            }
        }
        let snapshot = registry.snapshot
        #expect(snapshot.value("a_total", ["x"]) == 8000)
        #expect(snapshot.value("c") == 8000)
        let histogram = snapshot.samples["b_seconds"]?.first?.value
        guard case .histogram(let counts) = histogram else {
            Issue.record("no histogram, but \(String(describing: histogram))")
            return
        }
        #expect(counts.count == 8000)
        #expect(abs(counts.sum - 8) < 1e-6)
    }

    @Test("a full family takes no more series and reports how much it lost")
    func cardinality() {
        let registry = Self.registry(limit: 3)
        for kind in 0..<10 {
            Counter(label: "a_total", dimensions: [("kind", "\(kind)")], factory: registry).increment()
        }
        let snapshot = registry.snapshot
        #expect(snapshot.samples["a_total"]?.count == 3)
        #expect(snapshot.value("switchyard_metric_series_dropped_total", ["a_total"]) == 7)
    }

    @Test("values that do not match the table are reported, not kept")
    func undescribed() {
        let registry = Self.registry()
        Counter(label: "unknown_total", factory: registry).increment()
        Counter(label: "a_total", factory: registry).increment()
        Counter(label: "a_total", dimensions: [("other", "x")], factory: registry).increment()
        Counter(label: "a_total", dimensions: [("kind", "x"), ("other", "x")], factory: registry).increment()
        Timer(label: "c", factory: registry).recordSeconds(1)
        Counter(label: "c", factory: registry).increment()
        Gauge(label: "b_seconds", factory: registry).record(1)
        registry.collect { snapshot in
            snapshot.set(MetricDefinition("e", .gauge, "Not in the table."), 1)
            snapshot.set(Self.definitions[2], ["label"], 1)
            snapshot.set(Self.definitions[1], 1)
            snapshot.set(Self.definitions[1], [], HistogramCounts(.rows))
        }
        let snapshot = registry.snapshot
        #expect(snapshot.samples.isEmpty)
        #expect(snapshot.undescribed.count == 8)
    }

    @Test("counters never fall, and a destroyed series is gone")
    func lives() {
        let registry = Self.registry()
        let counter = Counter(label: "a_total", dimensions: [("kind", "x")], factory: registry)
        counter.increment(by: 5)
        counter.increment(by: -3)
        #expect(registry.snapshot.value("a_total", ["x"]) == 5)
        counter.reset()
        #expect(registry.snapshot.value("a_total", ["x"]) == 0)
        counter.destroy()
        #expect(registry.snapshot.value("a_total", ["x"]) == nil)
    }

    @Test("a value belongs to the first bucket whose bound is not below it")
    func buckets() {
        for buckets in [Buckets.seconds, .callSeconds, .rows, .calls] {
            let bounds = buckets.bounds
            #expect(bounds == bounds.sorted() && Set(bounds).count == bounds.count)
            for (index, bound) in bounds.enumerated() {
                #expect(HistogramCounts.index(of: bound, in: bounds) == index)
                #expect(HistogramCounts.index(of: bound.nextUp, in: bounds) == index + 1)
            }
            #expect(HistogramCounts.index(of: -.infinity, in: bounds) == 0)
            #expect(HistogramCounts.index(of: .infinity, in: bounds) == bounds.count)
        }
        var counts = HistogramCounts(.seconds)
        counts.add(.milliseconds(1500))
        counts.add(.nan)
        #expect(counts.count == 1)
        #expect(counts.sum == 1.5)
    }

    @Test("experts share series only if there are too many, and none is lost")
    func expertSeries() {
        let few = ExpertSeries(layers: 12, experts: 8, limit: 2000)
        #expect(few.width == 1)
        #expect(few.series(of: [5, 0, 7]).map(\.label) == ["0", "1", "2"])
        #expect(ExpertSeries(layers: 12, experts: 128, limit: 2000).width == 1)
        let many = ExpertSeries(layers: 24, experts: 2048, limit: 2000)
        #expect(many.width == 25)
        let series = many.series(of: (0..<2048).map { UInt64($0) })
        #expect(series.count * 24 <= 2000)
        #expect(series.first?.label == "0-24")
        #expect(series.last?.label == "2025-2047")
        #expect(series.reduce(0) { $0 + $1.value } == 2047 * 1024)
        #expect(ExpertSeries(layers: 24, experts: 2048, limit: 24).series(of: [1, 2, 3]).map(\.label) == ["0-2"])
        #expect(ExpertSeries(layers: 24, experts: 2048, limit: 23).series(of: [1, 2, 3]).isEmpty)
        #expect(ExpertSeries(layers: 12, experts: 8, limit: 0).series(of: [1]).isEmpty)
        #expect(ExpertSeries(layers: 0, experts: 0, limit: 10).series(of: []).isEmpty)
    }
}
