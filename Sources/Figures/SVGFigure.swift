// SPDX-License-Identifier: Apache-2.0

import Foundation

/// One or several diagrams in one SVG file, with a title, a legend and colours for light and dark pages.
///
/// The same figure gives the same bytes at every run, so that a committed file can be compared with a new one.
package struct SVGFigure: Sendable {
    /// Where the names of the series are.
    package enum Legend: Sendable {
        /// In lines between the title and the diagrams.
        case top
        /// One below the other, in the next diagram's cell, with a note under them.
        case lastCell(note: String)
    }

    /// The title at the top, also for screen readers.
    package var title: String
    /// A line below the title: what was measured, on what.
    package var subtitle: String
    /// The diagrams, row after row.
    package var plots: [SVGPlot]
    /// Diagrams side by side.
    package var columns: Int
    /// Width of one diagram, in pixels.
    package var plotWidth: Double
    /// Height of one diagram, in pixels.
    package var plotHeight: Double
    /// Where the names of the series are.
    package var legend: Legend

    /// Describes a figure.
    ///
    /// - Parameters:
    ///   - title: The title.
    ///   - subtitle: A line below it; none when empty.
    ///   - plots: The diagrams, row after row.
    ///   - columns: Diagrams side by side.
    ///   - plotWidth: Width of one diagram, in pixels.
    ///   - plotHeight: Height of one diagram, in pixels.
    ///   - legend: Where the names of the series are.
    package init(
        title: String,
        subtitle: String = "",
        plots: [SVGPlot],
        columns: Int = 1,
        plotWidth: Double = 440,
        plotHeight: Double = 320,
        legend: Legend = .top
    ) {
        self.title = title
        self.subtitle = subtitle
        self.plots = plots
        self.columns = columns
        self.plotWidth = plotWidth
        self.plotHeight = plotHeight
        self.legend = legend
    }

    private static let edge = 20.0

    /// The file's content.
    package var svg: String {
        let entries = self.entries
        let columns = max(1, min(self.columns, self.plots.count))
        let width = Double(columns) * self.plotWidth
        let subtitle = SVGText.lines(self.subtitle, width: width - 2 * Self.edge, size: SVG.labelSize)
        var head = 34 + 18 * Double(subtitle.count)
        var legend: [String] = []
        if case .top = self.legend {
            let rows = Self.rows(entries, width: width - 2 * Self.edge)
            for (row, entries) in rows.enumerated() {
                legend += Self.line(entries, y: head + 18 + 20 * Double(row))
            }
            head += rows.isEmpty ? 0 : 8 + 20 * Double(rows.count)
        }
        head += 6
        var cells = self.plots.count
        if case .lastCell = self.legend { cells += 1 }
        let height = head + Double((cells + columns - 1) / columns) * self.plotHeight + 8

        var lines = SVG.head(title: self.title, width: width, height: height)
        lines.append(SVG.text(self.title, x: Self.edge, y: 28, "title"))
        for (index, line) in subtitle.enumerated() {
            lines.append(SVG.text(line, x: Self.edge, y: 48 + 18 * Double(index), "sub"))
        }
        lines += legend
        lines += self.cells(columns: columns, top: head)
        if case .lastCell(let note) = self.legend {
            let left = Double(self.plots.count % columns) * self.plotWidth
            let top = head + Double(self.plots.count / columns) * self.plotHeight
            lines += self.list(entries, note: note, left: left, top: top)
        }
        lines.append("</svg>")
        return lines.joined(separator: "\n") + "\n"
    }

    /// Writes the file.
    ///
    /// - Parameter path: Where to; an existing file is replaced.
    /// - Throws: If the file cannot be written.
    package func write(to path: String) throws {
        try Data(self.svg.utf8).write(to: URL(fileURLWithPath: path), options: .atomic)
    }

    // MARK: - Diagrams

    /// The diagrams, whose axes line up.
    private func cells(columns: Int, top: Double) -> [String] {
        let margins = self.plots.map { $0.margins(width: self.plotWidth, height: self.plotHeight) }
        let common = SVGPlot.Margins(
            left: margins.map(\.left).max() ?? 0,
            top: margins.map(\.top).max() ?? 0,
            right: margins.map(\.right).max() ?? 0,
            bottom: margins.map(\.bottom).max() ?? 0
        )
        let looks = Dictionary(self.entries.map { ($0.name, $0.look) }) { first, _ in first }
        var lines: [String] = []
        for (index, plot) in self.plots.enumerated() {
            let x = Double(index % columns) * self.plotWidth
            let y = top + Double(index / columns) * self.plotHeight
            lines.append("<g transform=\"translate(\(SVG.number(x)) \(SVG.number(y)))\">")
            lines += plot.elements(width: self.plotWidth, height: self.plotHeight, margins: common, looks: looks)
            lines.append("</g>")
        }
        return lines
    }

    // MARK: - Legend

    /// One name of the legend.
    private struct Entry {
        var name: String
        var style: SVGPlot.Series.Style
        var look: SVGPlot.Look

        /// The space that it takes, with the gap after it.
        var width: Double { 34 + SVGText.width(self.name, size: SVG.labelSize) + 20 }
    }

    /// Each name once, in the order of its first appearance.
    private var entries: [Entry] {
        var entries: [Entry] = []
        for series in self.plots.flatMap(\.series) where !entries.contains(where: { $0.name == series.name }) {
            entries.append(
                Entry(name: series.name, style: series.style, look: series.look ?? .numbered(entries.count))
            )
        }
        return entries
    }

    /// The names in as many lines as they need.
    private static func rows(_ entries: [Entry], width: Double) -> [[Entry]] {
        var rows: [[Entry]] = []
        var room = 0.0
        for entry in entries {
            if rows.isEmpty || entry.width - 20 > room {
                rows.append([])
                room = width
            }
            rows[rows.count - 1].append(entry)
            room -= entry.width
        }
        return rows
    }

    private static func line(_ entries: [Entry], y: Double) -> [String] {
        var x = Self.edge
        var elements: [String] = []
        for entry in entries {
            elements += Self.drawing(of: entry, x: x, y: y)
            x += entry.width
        }
        return elements
    }

    private static func drawing(of entry: Entry, x: Double, y: Double) -> [String] {
        var elements: [String] = []
        if entry.style != .points {
            elements.append(SVG.line(x, y - 4, x + 26, y - 4, "curve \(entry.look.stroke)"))
        }
        if entry.style.hasMarks { elements.append(SVG.mark(entry.look, x: x + 13, y: y - 4)) }
        elements.append(SVG.text(entry.name, x: x + 33, y: y, "label"))
        return elements
    }

    /// The legend in place of a diagram.
    private func list(_ entries: [Entry], note: String, left: Double, top: Double) -> [String] {
        let x = left + 56
        var y = top + 46
        var elements: [String] = []
        for entry in entries {
            elements += Self.drawing(of: entry, x: x, y: y)
            y += 22
        }
        y += 8
        for line in SVGText.lines(note, width: self.plotWidth - 90, size: SVG.labelSize) {
            elements.append(SVG.text(line, x: x, y: y, "sub"))
            y += 18
        }
        return elements
    }
}
