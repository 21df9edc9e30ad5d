// SPDX-License-Identifier: Apache-2.0

import Foundation

/// A diagram of lines, points or steps over two axes.
///
/// It is drawn by an ``SVGFigure``, alone or beside others. Numbers that are not finite, and those that a logarithmic axis
/// cannot show, are left out; values beyond a given range are drawn at its edge.
package struct SVGPlot: Sendable {
    /// One measured value.
    package struct Point: Sendable {
        /// Along the horizontal axis.
        package var x: Double
        /// Along the vertical axis.
        package var y: Double
        /// The ends of the error bar; none when nil.
        package var range: ClosedRange<Double>?

        /// Describes a value.
        ///
        /// - Parameters:
        ///   - x: Along the horizontal axis.
        ///   - y: Along the vertical axis.
        ///   - range: The ends of the error bar; none when nil.
        package init(_ x: Double, _ y: Double, range: ClosedRange<Double>? = nil) {
            self.x = x
            self.y = y
            self.range = range
        }
    }

    /// Values that belong together.
    package struct Series: Sendable {
        /// How values are joined.
        package enum Style: Sendable {
            /// By straight lines.
            case line
            /// Not at all: a mark each.
            case points
            /// By straight lines, with a mark each.
            case linePoints
            /// By a line that keeps each value up to the next one.
            case steps
        }

        /// The name in the legend.
        package var name: String
        /// How values are joined.
        package var style: Style
        /// The values, in the order in which they are joined.
        package var points: [Point]
        /// Moves the series sideways by so many pixels, so that error bars at the same place stay readable.
        package var shift: Double

        /// Describes a series.
        ///
        /// - Parameters:
        ///   - name: The name in the legend; series of one name share a colour within a figure.
        ///   - style: How values are joined.
        ///   - points: The values, in the order in which they are joined.
        ///   - shift: Moves the series sideways by so many pixels.
        package init(_ name: String, style: Style = .linePoints, points: [Point], shift: Double = 0) {
            self.name = name
            self.style = style
            self.points = points
            self.shift = shift
        }
    }

    /// A horizontal line across the diagram.
    package struct Reference: Sendable {
        /// Where it lies.
        package var y: Double
        /// What it means, written above its right end.
        package var label: String

        /// Describes a line.
        ///
        /// - Parameters:
        ///   - y: Where it lies.
        ///   - label: What it is.
        package init(y: Double, label: String) {
            self.y = y
            self.label = label
        }
    }

    /// What stands above the diagram; nothing when empty.
    package var title: String
    /// The horizontal axis.
    package var x: SVGAxis
    /// The vertical axis.
    package var y: SVGAxis
    /// What is shown.
    package var series: [Series]
    /// Lines to compare with.
    package var references: [Reference] = []

    /// Describes a diagram.
    ///
    /// - Parameters:
    ///   - title: What stands above it; nothing when empty.
    ///   - x: The horizontal axis.
    ///   - y: The vertical axis.
    ///   - series: What is drawn.
    ///   - references: Lines to compare with.
    package init(title: String, x: SVGAxis, y: SVGAxis, series: [Series], references: [Reference] = []) {
        self.title = title
        self.x = x
        self.y = y
        self.series = series
        self.references = references
    }

    /// Where the diagram proper lies inside its place in a figure.
    private static let margin = (left: 64.0, right: 16.0, top: 30.0, bottom: 50.0)

    /// The diagram as SVG elements whose origin is the upper left corner.
    ///
    /// - Parameters:
    ///   - width: Of the whole diagram with its labels, in pixels.
    ///   - height: Of the whole diagram with its labels, in pixels.
    ///   - colours: Colour numbers by name of series.
    /// - Returns: Elements; the classes that they name are defined by the figure.
    package func elements(width: Double, height: Double, colours: [String: Int]) -> [String] {
        let all = self.series.flatMap(\.points)
        let across = self.x.ruler(for: all.map(\.x))
        let upright = self.y.ruler(
            for: all.flatMap { [$0.y, $0.range?.lowerBound ?? $0.y, $0.range?.upperBound ?? $0.y] }
                + self.references.map(\.y)
        )
        let frame = Frame(
            left: Self.margin.left,
            top: Self.margin.top,
            width: max(1, width - Self.margin.left - Self.margin.right),
            height: max(1, height - Self.margin.top - Self.margin.bottom),
            across: across,
            upright: upright
        )
        var elements = self.furniture(frame)
        for reference in self.references {
            guard let y = frame.y(reference.y) else { continue }
            elements.append(SVG.line(frame.left, y, frame.left + frame.width, y, "ref"))
            elements.append(
                SVG.text(reference.label, x: frame.left + frame.width - 4, y: y - 5, "small", anchor: "end")
            )
        }
        for series in self.series {
            elements += Self.drawing(of: series, in: frame, colour: colours[series.name] ?? 0)
        }
        return elements
    }

    /// Title, grid, frame, numbers and labels.
    private func furniture(_ frame: Frame) -> [String] {
        var elements: [String] = []
        let bottom = frame.top + frame.height
        let middle = frame.left + frame.width / 2
        if !self.title.isEmpty {
            elements.append(SVG.text(self.title, x: middle, y: frame.top - 10, "head", anchor: "middle"))
        }
        for tick in frame.across.ticks {
            guard let x = frame.x(tick) else { continue }
            elements.append(SVG.line(x, frame.top, x, bottom, "grid"))
            elements.append(SVG.text(frame.across.text(tick), x: x, y: bottom + 17, "small", anchor: "middle"))
        }
        for tick in frame.upright.ticks {
            guard let y = frame.y(tick) else { continue }
            elements.append(SVG.line(frame.left, y, frame.left + frame.width, y, "grid"))
            elements.append(SVG.text(frame.upright.text(tick), x: frame.left - 7, y: y + 4, "small", anchor: "end"))
        }
        elements.append(
            "<rect class=\"frame\" x=\"\(SVG.number(frame.left))\" y=\"\(SVG.number(frame.top))\""
                + " width=\"\(SVG.number(frame.width))\" height=\"\(SVG.number(frame.height))\"/>"
        )
        elements.append(SVG.text(self.x.label, x: middle, y: bottom + 38, "label", anchor: "middle"))
        let side = (x: 16.0, y: frame.top + frame.height / 2)
        elements.append(
            "<text class=\"label\" text-anchor=\"middle\" transform=\"translate(\(SVG.number(side.x)) "
                + "\(SVG.number(side.y))) rotate(-90)\">\(SVG.escaped(self.y.label))</text>"
        )
        return elements
    }

    private static func drawing(of series: Series, in frame: Frame, colour: Int) -> [String] {
        let places = series.points.compactMap { point -> (x: Double, y: Double, point: Point)? in
            guard let x = frame.x(point.x), let y = frame.y(point.y) else { return nil }
            return (x + series.shift, y, point)
        }
        var elements: [String] = []
        if series.style != .points, let first = places.first, places.count > 1 {
            var path = "M\(SVG.number(first.x)),\(SVG.number(first.y))"
            for place in places.dropFirst() {
                if series.style == .steps {
                    path += "H\(SVG.number(place.x))V\(SVG.number(place.y))"
                } else {
                    path += "L\(SVG.number(place.x)),\(SVG.number(place.y))"
                }
            }
            elements.append("<path class=\"curve stroke\(colour)\" d=\"\(path)\"/>")
        }
        for place in places {
            if let range = place.point.range, let low = frame.y(range.lowerBound), let high = frame.y(range.upperBound)
            {
                let name = "bar stroke\(colour)"
                elements.append(SVG.line(place.x, low, place.x, high, name))
                elements.append(SVG.line(place.x - 3, low, place.x + 3, low, name))
                elements.append(SVG.line(place.x - 3, high, place.x + 3, high, name))
            }
            if series.style == .points || series.style == .linePoints {
                elements.append(SVG.mark(colour, x: place.x, y: place.y))
            }
        }
        return elements
    }

    /// The rectangle between the axes, in pixels.
    private struct Frame {
        let left: Double
        let top: Double
        let width: Double
        let height: Double
        let across: SVGAxis.Ruler
        let upright: SVGAxis.Ruler

        func x(_ value: Double) -> Double? {
            self.across.place(value).map { self.left + $0 * self.width }
        }

        func y(_ value: Double) -> Double? {
            self.upright.place(value).map { self.top + (1 - $0) * self.height }
        }
    }
}
