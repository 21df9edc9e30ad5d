// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@testable import Figures

@Suite("Figures")
struct FigureTests {
    /// Opening and closing tags that do not match; empty for well-formed elements.
    private func unbalanced(_ svg: String) -> [Substring] {
        var open: [Substring] = []
        for tag in svg.matches(of: /<(\/?)([a-z]+)[^<>]*?(\/?)>/) {
            if !tag.1.isEmpty {
                guard open.last == tag.2 else { return open + [tag.0] }
                open.removeLast()
            } else if tag.3.isEmpty {
                open.append(tag.2)
            }
        }
        return open
    }

    private func plot(_ points: [SVGPlot.Point], x: SVGAxis = .init("x"), y: SVGAxis = .init("y")) -> SVGFigure {
        SVGFigure(title: "t", plots: [SVGPlot(title: "p", x: x, y: y, series: [.init("s", points: points)])])
    }

    @Test("linear axes end at round numbers around the data")
    func linear() {
        let ruler = SVGAxis("x").ruler(for: [3, 97.2])
        #expect(ruler.low == 0)
        #expect(ruler.high == 100)
        #expect(ruler.ticks == [0, 20, 40, 60, 80, 100])
        #expect(ruler.place(50) == 0.5)
        #expect(ruler.place(1000) == 1)
        #expect(ruler.place(-5) == 0)
        #expect(ruler.place(.nan) == nil)
    }

    @Test("logarithmic axes mark powers of ten and leave out what is not positive")
    func logarithmic() throws {
        let axis = SVGAxis("x", scale: .logarithmic, range: 0.001...1000, format: .number(suffix: " ms"))
        let ruler = axis.ruler(for: [])
        #expect(
            ruler.ticks.map { ruler.text($0) }
                == ["0.001", "0.01", "0.1", "1", "10", "100", "1,000"].map { $0 + " ms" }
        )
        #expect(abs(try #require(ruler.place(1)) - 0.5) < 1e-12)
        #expect(ruler.place(0) == nil)
        #expect(ruler.place(-1) == nil)
    }

    @Test(
        "any data can be drawn",
        arguments: [
            [], [(0, 0)], [(1, 1), (1, 1)], [(.nan, 1), (2, .infinity)], [(-5, -7), (-5, 3)], [(1e300, -1e300)],
            [(1e-300, 4)],
        ]
    )
    func anyData(values: [(Double, Double)]) {
        for scale in [SVGAxis.Scale.linear, .logarithmic] {
            let figure = self.plot(
                values.map { SVGPlot.Point($0.0, $0.1) },
                x: SVGAxis("x", scale: scale),
                y: SVGAxis("y", scale: scale)
            )
            let svg = figure.svg
            #expect(self.unbalanced(svg).isEmpty)
            #expect(!svg.contains("nan"))
            #expect(!svg.contains("inf"))
        }
    }

    @Test("texts are escaped, also in attributes")
    func escaped() {
        #expect(SVG.escaped("a<b & \"c\">\u{1}d") == "a&lt;b &amp; &quot;c&quot;&gt;d")
        var figure = self.plot([.init(1, 1)])
        figure.title = "<script>&"
        #expect(!figure.svg.contains("<script>"))
        #expect(self.unbalanced(figure.svg).isEmpty)
    }

    @Test("each style draws what it says, with error bars")
    func styles() {
        func drawing(_ style: SVGPlot.Series.Style) -> String {
            let points = [SVGPlot.Point(0, 0, range: 0...1), .init(1, 2, range: 1...3), .init(2, 1)]
            let plot = SVGPlot(
                title: "",
                x: SVGAxis("x", range: 0...2),
                y: SVGAxis("y", range: 0...3),
                series: [.init("s", style: style, points: points)]
            )
            let margins = SVGPlot.Margins(left: 64, top: 30, right: 16, bottom: 50)
            let looks = ["s": SVGPlot.Look(colour: 0, mark: 0, dash: 0)]
            return plot.elements(width: 200, height: 200, margins: margins, looks: looks).joined(separator: "\n")
        }
        func count(_ text: String, _ part: String) -> Int { text.ranges(of: part).count }
        #expect(count(drawing(.line), "<circle") == 0)
        #expect(count(drawing(.line), "class=\"curve") == 1)
        #expect(count(drawing(.points), "<circle") == 3)
        #expect(count(drawing(.points), "class=\"curve") == 0)
        #expect(count(drawing(.linePoints), "<circle") == 3)
        #expect(count(drawing(.linePoints), "class=\"bar") == 6)
        // 120 by 120 pixels from (64, 30): a step goes along, then up or down.
        #expect(drawing(.steps).contains("d=\"M64,150H124V70H184V110\""))
    }

    @Test("axes have ticks at 1, 2 or 5 times a power of ten, as many as their numbers have room for")
    func ticks() {
        func texts(_ values: [Double], _ length: Double, _ axis: SVGAxis = SVGAxis("x")) -> [String] {
            let ruler = axis.ruler(for: values, length: length)
            return ruler.ticks.map { ruler.text($0) }
        }
        #expect(texts([0, 66.3], 400) == ["0", "20", "40", "60", "80"])
        #expect(texts([0, 66.3], 700) == ["0", "10", "20", "30", "40", "50", "60", "70"])
        #expect(texts([0, 0.9], 130) == ["0", "0.5", "1"])
        let times = SVGAxis("t", scale: .logarithmic, range: 15...2000, format: .milliseconds)
        #expect(texts([], 500, times) == ["20 ms", "50 ms", "100 ms", "200 ms", "500 ms", "1 s", "2 s"])
        #expect(texts([], 280, times) == ["30 ms", "100 ms", "300 ms", "1 s"])
        #expect(texts([], 160, times) == ["100 ms", "1 s"])
        // A span without a power of ten in it has its doubles and fives.
        #expect(texts([], 300, SVGAxis("t", scale: .logarithmic, range: 15...45, format: .milliseconds)) == ["20 ms"])
    }

    @Test("margins grow with the numbers, so that none is cut")
    func margins() {
        func left(_ value: Double) -> Double {
            SVGPlot(title: "", x: SVGAxis("x"), y: SVGAxis("y"), series: [.init("s", points: [.init(1, value)])])
                .margins(width: 400, height: 300).left
        }
        #expect(left(5_000_000) - left(5) >= SVGText.width("5,000,000", size: SVG.smallSize) - 20)
    }

    @Test("texts are as wide as Helvetica's")
    func widths() {
        #expect(SVGText.width("", size: 12) == 0)
        #expect(abs(SVGText.width("Hm.", size: 10) - 18.33) < 1e-9)
        #expect(SVGText.lines("one two three", width: 50, size: 12) == ["one two", "three"])
        #expect(SVGText.lines("one two", width: 1, size: 12) == ["one", "two"])
    }

    @Test("series of one name share a look, and light and dark pages have colours of their own")
    func colours() {
        let series = ["a", "b"].map { SVGPlot.Series($0, points: [.init(1, 1)]) }
        let plots = [series, series.reversed()]
            .map { SVGPlot(title: "", x: SVGAxis("x"), y: SVGAxis("y"), series: $0) }
        let svg = SVGFigure(title: "t", plots: plots, columns: 2).svg
        // One mark in the legend and one in each diagram.
        #expect(svg.ranges(of: "class=\"fill0\"").count == 3)
        #expect(svg.ranges(of: "class=\"fill1\"").count == 3)
        #expect(svg.contains("prefers-color-scheme: dark"))
    }
}
