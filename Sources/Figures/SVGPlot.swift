// SPDX-License-Identifier: Apache-2.0

import Foundation

/// A diagram of lines, points or steps over two axes.
///
/// It is drawn by an ``SVGFigure``, alone or with others. Numbers that are not finite, and those that a logarithmic
/// axis cannot show, are left out; values beyond a given range are drawn at its edge.
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

    /// How a series looks; related figures can share one look.
    package struct Look: Sendable, Hashable {
        /// One of the palette's colours, by number.
        package var colour: Int
        /// A circle, a square, a triangle or a diamond, by number.
        package var mark: Int
        /// A solid line, or a dashed one, by number.
        package var dash: Int

        /// Describes a look; numbers beyond the palette wrap around.
        ///
        /// - Parameters:
        ///   - colour: The number of a colour.
        ///   - mark: The number of a mark.
        ///   - dash: The number of a kind of line.
        package init(colour: Int, mark: Int, dash: Int) {
            self.colour = colour % SVG.colourCount
            self.mark = mark % SVG.markCount
            self.dash = dash % SVG.dashCount
        }

        /// The default look of the n-th series: its own colour, then dashes.
        static func numbered(_ index: Int) -> Look {
            Look(colour: index, mark: index, dash: index / SVG.colourCount)
        }

        /// The classes of its line.
        var stroke: String { "stroke\(self.colour)" + (self.dash > 0 ? " dash\(self.dash)" : "") }
    }

    /// Values that belong together.
    package struct Series: Sendable {
        /// How values are joined.
        package enum Style: Sendable {
            /// By straight lines.
            case line
            /// By thin straight lines, for many series.
            case fineLine
            /// Not at all: a mark each.
            case points
            /// By straight lines, with a mark each.
            case linePoints
            /// By a line that keeps each value up to the next one.
            case steps

            /// Whether values have marks.
            var hasMarks: Bool { self == .points || self == .linePoints }
        }

        /// The name in the legend.
        package var name: String
        /// How values are joined.
        package var style: Style
        /// The values, in the order in which they are joined.
        package var points: [Point]
        /// Moves the series sideways by this many pixels, so that error bars at the same place stay readable.
        package var shift: Double
        /// Its look; the figure chooses when nil.
        package var look: Look?

        /// Describes a series.
        ///
        /// - Parameters:
        ///   - name: The name in the legend; series of one name share a look within a figure.
        ///   - style: How values are joined.
        ///   - points: The values, in the order in which they are joined.
        ///   - shift: Moves the series sideways by this many pixels.
        ///   - look: Its look; the figure chooses when nil.
        package init(
            _ name: String,
            style: Style = .linePoints,
            points: [Point],
            shift: Double = 0,
            look: Look? = nil
        ) {
            self.name = name
            self.style = style
            self.points = points
            self.shift = shift
            self.look = look
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

    /// The title above the diagram; none when empty.
    package var title: String
    /// The horizontal axis.
    package var x: SVGAxis
    /// The vertical axis.
    package var y: SVGAxis
    /// What is shown; earlier series lie above later ones.
    package var series: [Series]
    /// Lines to compare with.
    package var references: [Reference]

    /// Describes a diagram.
    ///
    /// - Parameters:
    ///   - title: The title above it; none when empty.
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
}
