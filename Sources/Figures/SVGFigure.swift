// SPDX-License-Identifier: Apache-2.0

import Foundation

/// One or several diagrams in one SVG file, with a title, a legend and colours for light and dark pages.
///
/// The same figure gives the same bytes at every run, so that a committed file can be compared with a new one.
package struct SVGFigure: Sendable {
    /// What stands at the top; also what screen readers say.
    package var title: String
    /// A line below the title: what was measured, on what.
    package var subtitle: String = ""
    /// The diagrams, row after row.
    package var plots: [SVGPlot]
    /// Diagrams side by side.
    package var columns = 1
    /// Width of one diagram, in pixels.
    package var plotWidth = 440.0
    /// Height of one diagram, in pixels.
    package var plotHeight = 320.0

    /// Describes a figure.
    ///
    /// - Parameters:
    ///   - title: What stands at the top.
    ///   - subtitle: A line below it; none when empty.
    ///   - plots: The diagrams, row after row.
    ///   - columns: Diagrams side by side.
    ///   - plotWidth: Width of one diagram, in pixels.
    ///   - plotHeight: Height of one diagram, in pixels.
    package init(
        title: String,
        subtitle: String = "",
        plots: [SVGPlot],
        columns: Int = 1,
        plotWidth: Double = 440,
        plotHeight: Double = 320
    ) {
        self.title = title
        self.subtitle = subtitle
        self.plots = plots
        self.columns = columns
        self.plotWidth = plotWidth
        self.plotHeight = plotHeight
    }

    /// The file's content.
    package var svg: String {
        var names: [String] = []
        for name in self.plots.flatMap({ $0.series.map(\.name) }) where !names.contains(name) {
            names.append(name)
        }
        let colours = Dictionary(
            uniqueKeysWithValues: names.enumerated().map { ($1, $0 % SVG.colourCount) }
        )
        let columns = max(1, min(self.columns, self.plots.count))
        let rows = (self.plots.count + columns - 1) / columns
        let width = Double(columns) * self.plotWidth
        let legend = Self.legendRows(names, width: width)
        let head = 34.0 + (self.subtitle.isEmpty ? 0 : 20) + (names.isEmpty ? 0 : 6 + 20 * Double(legend.count))
        let height = head + Double(rows) * self.plotHeight + 6

        var lines = [
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 \(SVG.number(width)) \(SVG.number(height))\""
                + " width=\"\(SVG.number(width))\" height=\"\(SVG.number(height))\" role=\"img\">",
            "<title>\(SVG.escaped(self.title))</title>",
            "<style>\n\(SVG.style(colours: names.count))\n</style>",
            "<rect class=\"page\" width=\"\(SVG.number(width))\" height=\"\(SVG.number(height))\"/>",
            SVG.text(self.title, x: width / 2, y: 24, "title", anchor: "middle"),
        ]
        var y = 24.0
        if !self.subtitle.isEmpty {
            y += 20
            lines.append(SVG.text(self.subtitle, x: width / 2, y: y, "label", anchor: "middle"))
        }
        for (row, names) in legend.enumerated() {
            lines += Self.legend(names, colours: colours, width: width, y: y + 22 + 20 * Double(row))
        }
        for (index, plot) in self.plots.enumerated() {
            let left = Double(index % columns) * self.plotWidth
            let top = head + Double(index / columns) * self.plotHeight
            lines.append("<g transform=\"translate(\(SVG.number(left)) \(SVG.number(top)))\">")
            lines += plot.elements(width: self.plotWidth, height: self.plotHeight, colours: colours)
            lines.append("</g>")
        }
        lines.append("</svg>")
        return lines.joined(separator: "\n") + "\n"
    }

    /// Writes the file.
    ///
    /// - Parameter path: Where to; a file that is there is replaced.
    /// - Throws: Where the file cannot be written.
    package func write(to path: String) throws {
        try Data(self.svg.utf8).write(to: URL(fileURLWithPath: path), options: .atomic)
    }

    /// The room that a name with its mark takes in the legend; letters of this size are about 7 pixels wide.
    private static func legendWidth(_ name: String) -> Double { 34 + 7 * Double(name.count) }

    /// The names in as many lines as they need.
    private static func legendRows(_ names: [String], width: Double) -> [[String]] {
        var rows: [[String]] = []
        var room = 0.0
        for name in names {
            let needed = Self.legendWidth(name)
            if rows.isEmpty || needed > room {
                rows.append([])
                room = width
            }
            rows[rows.count - 1].append(name)
            room -= needed
        }
        return rows
    }

    private static func legend(_ names: [String], colours: [String: Int], width: Double, y: Double) -> [String] {
        let widths = names.map(Self.legendWidth)
        var x = (width - widths.reduce(0, +)) / 2
        var elements: [String] = []
        for (name, room) in zip(names, widths) {
            let colour = colours[name] ?? 0
            elements.append(SVG.line(x, y - 4, x + 22, y - 4, "curve stroke\(colour)"))
            elements.append(SVG.mark(colour, x: x + 11, y: y - 4))
            elements.append(SVG.text(name, x: x + 27, y: y, "label", anchor: "start"))
            x += room
        }
        return elements
    }
}

/// Elements and styles that diagrams are made of.
package enum SVG {
    /// How many series can be told apart.
    package static var colourCount: Int { Self.light.count }

    /// Colours that people with any colour vision can tell apart.
    ///
    /// After Okabe and Ito, "Color Universal Design" (2008), darker where thin lines on white need it; the dark page's are
    /// lighter ones of the same hues.
    private static let light = [
        "#0072b2", "#d55e00", "#00805c", "#a8467d", "#8a6d00", "#555555", "#6a3fb5", "#3b7a00",
    ]
    private static let dark = [
        "#56b4e9", "#f0904c", "#2fc99a", "#e09cc4", "#e0c94a", "#b8b8b8", "#b79cf0", "#a4d65e",
    ]

    /// The style sheet of a figure: a light page, and a dark one where the reader's system asks for it.
    ///
    /// - Parameter count: How many colours the figure needs; six at least are there.
    /// - Returns: CSS.
    package static func style(colours count: Int) -> String {
        func colours(_ list: [String]) -> String {
            list.prefix(max(6, count)).enumerated()
                .map { ".stroke\($0) { stroke: \($1); } .fill\($0) { fill: \($1); }" }
                .joined(separator: "\n")
        }
        func page(_ background: String, _ ink: String, _ pale: String, _ grid: String) -> String {
            ".page { fill: \(background); } text { fill: \(ink); } .small { fill: \(pale); }\n"
                + ".grid { stroke: \(grid); } .frame { stroke: \(pale); } .ref { stroke: \(pale); }"
        }
        return """
            text { font-family: Helvetica, Arial, sans-serif; }
            .title { font-size: 16px; font-weight: bold; } .head { font-size: 13px; font-weight: bold; }
            .label { font-size: 13px; } .small { font-size: 11px; }
            .grid { stroke-width: 1; } .frame { fill: none; stroke-width: 1; }
            .ref { stroke-width: 1; stroke-dasharray: 5 4; }
            .curve { fill: none; stroke-width: 1.8; stroke-linejoin: round; } .bar { stroke-width: 1.2; }
            \(page("#ffffff", "#1c2a38", "#55636f", "#e4e9ee"))
            \(colours(Self.light))
            @media (prefers-color-scheme: dark) {
            \(page("#0d1117", "#e6edf3", "#9aa7b4", "#252c35"))
            \(colours(Self.dark))
            }
            """
    }

    /// A coordinate, to a tenth of a pixel.
    package static func number(_ value: Double) -> String {
        let text = String(format: "%.1f", value)
        return text.hasSuffix(".0") ? String(text.dropLast(2)) : text
    }

    /// A text as it may stand in an element or an attribute.
    package static func escaped(_ text: String) -> String {
        var result = ""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "&": result += "&amp;"
            case "<": result += "&lt;"
            case ">": result += "&gt;"
            case "\"": result += "&quot;"
            // XML 1.0 has no other control characters (section 2.2).
            case "\t", "\n", "\r": result.unicodeScalars.append(scalar)
            case _ where scalar.value < 0x20 || scalar.value == 0xFFFE || scalar.value == 0xFFFF: continue
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result
    }

    package static func line(_ x1: Double, _ y1: Double, _ x2: Double, _ y2: Double, _ name: String) -> String {
        "<line class=\"\(name)\" x1=\"\(Self.number(x1))\" y1=\"\(Self.number(y1))\""
            + " x2=\"\(Self.number(x2))\" y2=\"\(Self.number(y2))\"/>"
    }

    package static func text(_ text: String, x: Double, y: Double, _ name: String, anchor: String) -> String {
        "<text class=\"\(name)\" x=\"\(Self.number(x))\" y=\"\(Self.number(y))\" text-anchor=\"\(anchor)\">"
            + "\(Self.escaped(text))</text>"
    }

    /// The mark of a series: another shape for each of the first four.
    package static func mark(_ colour: Int, x: Double, y: Double) -> String {
        let points: [(Double, Double)]
        switch colour % 4 {
        case 0:
            return "<circle class=\"fill\(colour)\" cx=\"\(Self.number(x))\" cy=\"\(Self.number(y))\" r=\"3.6\"/>"
        case 1: points = [(-3.3, -3.3), (3.3, -3.3), (3.3, 3.3), (-3.3, 3.3)]
        case 2: points = [(0, -4.4), (4.2, 3.2), (-4.2, 3.2)]
        default: points = [(0, -4.6), (4.6, 0), (0, 4.6), (-4.6, 0)]
        }
        let text = points.map { "\(Self.number(x + $0.0)),\(Self.number(y + $0.1))" }.joined(separator: " ")
        return "<polygon class=\"fill\(colour)\" points=\"\(text)\"/>"
    }
}
