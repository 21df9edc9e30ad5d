// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import CommandKit
import Figures
import Foundation
import Testing

@testable import switchyard_bench

@Suite("Benchmark reports")
struct BenchReportTests {
    private func figure(_ work: String, _ size: Int, _ system: String, _ values: [Double], unit: String = "tokens/s")
        -> BenchFigure
    {
        BenchFigure(work: work, size: size, system: system, unit: unit, values: values)
    }

    private var report: BenchReport {
        var report = BenchReport(title: "t", sizeName: "batch", machine: "m", conditions: "c")
        report.figures = [
            self.figure("decode", 8, "a", [10, 30, 20]), self.figure("decode", 1, "a", [4, 8]),
            self.figure("decode", 8, "b", [5]), self.figure("p50", 1, "a", [0.25], unit: "ms"),
            self.figure("p50", 1, "b", [1], unit: "ms"),
        ]
        report.skipped = ["c": "not installed"]
        report.versions = ["a": "1.0"]
        return report
    }

    @Test("medians, and who is faster in rates and in times")
    func statistics() throws {
        #expect(median([]) == 0)
        #expect(median([3]) == 3)
        #expect(median([9, 1, 5]) == 5)
        #expect(median([4, 8, 1, 100]) == 6)
        let report = self.report
        let a = try #require(report.figure("decode", 8, "a"))
        let b = try #require(report.figure("decode", 8, "b"))
        #expect(a.median == 20)
        #expect(a.speed(against: b) == 4)
        #expect(b.speed(against: a) == 0.25)
        let fast = try #require(report.figure("p50", 1, "a"))
        let slow = try #require(report.figure("p50", 1, "b"))
        #expect(fast.speed(against: slow) == 4)
        #expect(fast.speed(against: a) == nil)
        #expect(a.speed(against: self.figure("decode", 8, "z", [])) == nil)
    }

    @Test("runs add up to one figure, further figures to their means")
    func adding() {
        var report = BenchReport(title: "", sizeName: "", machine: "", conditions: "")
        for value in [1.0, 2, 6] {
            var figure = self.figure("w", 1, "s", [99])
            figure.details = ["d": value]
            report.add(value * 10, to: figure)
        }
        #expect(report.figures.count == 1)
        #expect(report.figures.first?.values == [10, 20, 60])
        #expect(report.figures.first?.details == ["d": 3])
    }

    @Test("tables are grouped by work and size, and compare with the baseline")
    func table() {
        #expect(
            self.report.table(baseline: "b").markdown == """
                | work | batch | system | median | lowest to highest | x b |
                |---|---:|---|---:|---:|---:|
                | decode | 1 | a | 6.00 tokens/s | 4.00 to 8.00 | - |
                | decode | 8 | a | 20.0 tokens/s | 10.0 to 30.0 | 4.00 |
                | decode | 8 | b | 5.00 tokens/s | 5.00 to 5.00 | 1.00 |
                | p50 | 1 | a | 0.250 ms | 0.250 to 0.250 | 4.00 |
                | p50 | 1 | b | 1.00 ms | 1.00 to 1.00 | 1.00 |
                """
        )
        #expect(self.report.notes == ["skipped: c: not installed"])
    }

    @Test("a report that was written is read as it was")
    func json() throws {
        var report = self.report
        report.figures[0].details = ["fraction_of_read_bandwidth": 0.5]
        let file = FileManager.default.temporaryDirectory.appendingPathComponent("switchyard-\(UUID().uuidString).json")
            .path
        defer { try? FileManager.default.removeItem(atPath: file) }
        try report.write(to: file)
        #expect(try BenchReport(contentsOf: file) == report)
        let text = try String(contentsOfFile: file, encoding: .utf8)
        #expect(text.contains("\"size_name\" : \"batch\""))
        #expect(text.contains("\"lowest\" : 10"))
        report.figures[0].values = [.nan, .infinity]
        #expect(throws: Never.self) { try report.json() }
        #expect(throws: BenchError.self) { try report.write(to: "/nowhere/at/all/x.json") }
    }

    @Test("plots draw the works and systems that were asked for, whatever the report holds")
    func plots() {
        let plot = BenchPlot(report: self.report)
        #expect(plot.figure.plots.map(\.title) == ["decode", "p50"])
        #expect(plot.figure.plots[0].series.map(\.name) == ["a", "b"])
        #expect(plot.figure.plots[0].series[0].points.map(\.x) == [1, 8])
        #expect(plot.figure.plots[0].series[0].points.last?.range == 10...30)
        #expect(plot.figure.plots[1].series[0].points.first?.range == nil)
        let part = BenchPlot(report: self.report, works: ["p50"], systems: ["b"]).figure
        #expect(part.plots.map(\.title) == ["p50"])
        #expect(part.plots[0].series.map(\.name) == ["b"])
        var odd = self.report
        odd.figures = [self.figure("w", 0, "s", []), self.figure("w", -3, "s", [.nan, 0])]
        #expect(BenchPlot(report: odd).figure.svg.contains("</svg>"))
        odd.figures = []
        #expect(BenchPlot(report: odd).figure.svg.contains("</svg>"))
    }

    @Test("a legend that is wider than the figure takes more lines, all of them inside")
    func legend() {
        let names = (0..<9).map { "a system with a long name \($0)" }
        let plot = SVGPlot(
            title: "",
            x: SVGAxis("x"),
            y: SVGAxis("y"),
            series: names.map { .init($0, points: [.init(1, 1)]) }
        )
        let figure = SVGFigure(title: "t", plots: [plot], columns: 1, plotWidth: 620)
        let places = figure.svg.matches(of: /<text class="label" x="([0-9.]+)"[^>]*>a system/)
            .compactMap { Double($0.1) }
        #expect(places.count == names.count)
        let room = 620 - 7 * Double(names[0].count)
        #expect(places.allSatisfy { $0 >= 0 && $0 <= room }, "\(places)")
    }

    @Test("what systems say is understood, and noise is not")
    func messages() {
        #expect(
            TurnMessage(#"{"ready": true, "versions": "v", "cases": [{"work": "decode", "size": 8}]}"#)
                == .ready(versions: "v", cases: [TurnCase(work: "decode", size: 8)])
        )
        #expect(TurnMessage(#"{"value": 2, "unit": "ms"}"#) == .result(TurnResult(value: 2, unit: "ms", details: nil)))
        #expect(TurnMessage(#"{"error": "no"}"#) == .failed("no"))
        #expect(TurnMessage(#"{"skipped": "no"}"#) == .skipped("no"))
        for noise in ["", "loading", "{", "{}", "[1]", #"{"value": "2", "unit": "ms"}"#, #"{"value": 2}"#] {
            #expect(TurnMessage(noise) == nil, "\(noise)")
        }
        #expect(TurnSystemSpecification("a b=c --d=e")?.name == "a b")
        #expect(TurnSystemSpecification("a b=c --d=e")?.command == "c --d=e")
        for text in ["", "a", "=c", "a="] { #expect(TurnSystemSpecification(text) == nil) }
    }

    @Test("switch-base-8 reads 495 MB a token")
    func activeWeights() {
        let weights = ActiveWeights(
            ModelConfiguration(feedForwardWidth: 3072, encoderSparseStep: 2, decoderSparseStep: 2)
        )
        #expect(weights.sparseLayers == 6)
        #expect(weights.expert == 2 * 768 * 3072)
        #expect(weights.routers == 6 * 8 * 768)
        let bytes = weights.bytes(experts: 1, weightBytes: (4, 4))
        #expect(abs(bytes / 495e6 - 1) < 0.001)
        // Half the bytes in half the width, but for the routers.
        let narrow = weights.bytes(experts: 1, weightBytes: (2, 2))
        #expect(narrow - Double(4 * weights.routers) == (bytes - Double(4 * weights.routers)) / 2)
    }
}
