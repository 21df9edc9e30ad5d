// SPDX-License-Identifier: Apache-2.0

/// A drawing of boxes and arrows, in the colours of ``SVGFigure``, for light and dark pages.
///
/// Positions are given by hand, in pixels; texts are checked against their space.
package struct SVGDiagram: Sendable {
    /// A position, in pixels from the upper left corner.
    package typealias Place = (x: Double, y: Double)

    /// A rectangle, in pixels.
    package struct Area: Sendable {
        package var x: Double
        package var y: Double
        package var width: Double
        package var height: Double

        /// Describes a rectangle.
        package init(_ x: Double, _ y: Double, _ width: Double, _ height: Double) {
            (self.x, self.y, self.width, self.height) = (x, y, width, height)
        }
    }

    /// What an arrow looks like.
    package struct Stroke: Sendable {
        /// A colour of the palette; the page's ink when nil.
        package var colour: Int?
        package var isDashed: Bool

        /// Describes a line.
        package init(colour: Int? = nil, isDashed: Bool = false) {
            self.colour = colour
            self.isDashed = isDashed
        }
    }

    private let title: String
    private let width: Double
    private let height: Double
    private var elements: [String] = []
    /// Texts that are wider than their boxes.
    package private(set) var overfull: [String] = []

    /// Begins a drawing.
    ///
    /// - Parameters:
    ///   - title: The title for screen readers.
    ///   - width: In pixels.
    ///   - height: In pixels.
    package init(title: String, width: Double, height: Double) {
        self.title = title
        self.width = width
        self.height = height
    }

    /// The file's content.
    package var svg: String {
        let lines = SVG.head(title: self.title, width: self.width, height: self.height) + self.elements + ["</svg>"]
        return lines.joined(separator: "\n") + "\n"
    }

    /// Adds a box with a name and some lines under it, in its middle.
    ///
    /// - Parameters:
    ///   - area: Where it is.
    ///   - name: In bold.
    ///   - lines: Below the name.
    ///   - colour: A colour of the palette.
    ///   - isDashed: Whether its border is dashed, for what is optional.
    package mutating func box(
        _ area: Area,
        _ name: String,
        _ lines: [String] = [],
        colour: Int,
        isDashed: Bool = false
    ) {
        let dash = isDashed ? " stroke-dasharray=\"4 3\"" : ""
        self.elements.append(
            Self.rectangle(area, name: "box fill\(colour) stroke\(colour)", radius: 7, attributes: dash)
        )
        let middle = area.x + area.width / 2
        var y = area.y + area.height / 2 - 8.5 * Double(lines.count) + 4.5
        self.check(name, size: SVG.headSize, isBold: true, room: area.width)
        self.elements.append(SVG.text(name, x: middle, y: y, "head", anchor: "middle"))
        for line in lines {
            y += 17
            self.check(line, size: SVG.smallSize, room: area.width)
            self.elements.append(SVG.text(line, x: middle, y: y, "small", anchor: "middle"))
        }
    }

    /// Adds a frame around boxes, with a name at its upper left.
    ///
    /// - Parameters:
    ///   - area: Where it is.
    ///   - name: In bold.
    package mutating func group(_ area: Area, _ name: String) {
        self.elements.append(Self.rectangle(area, name: "panel", radius: 9))
        self.check(name, size: SVG.headSize, isBold: true, room: area.width)
        self.elements.append(SVG.text(name, x: area.x + 14, y: area.y + 21, "head"))
    }

    /// Adds a line through some points, with rounded corners.
    ///
    /// - Parameters:
    ///   - places: From the beginning to the end.
    ///   - stroke: What it looks like.
    ///   - hasTip: Whether its end is an arrow's.
    package mutating func arrow(_ places: [Place], _ stroke: Stroke = Stroke(), hasTip: Bool = true) {
        guard places.count > 1, let first = places.first, let last = places.last else { return }
        let before = places[places.count - 2]
        let length = Self.distance(before, last)
        let unit = length > 0 ? (x: (last.x - before.x) / length, y: (last.y - before.y) / length) : (x: 1, y: 0)
        // The line ends inside the tip.
        let end: Place = hasTip ? (last.x - 6 * unit.x, last.y - 6 * unit.y) : last
        var path = "M\(SVG.number(first.x)),\(SVG.number(first.y))"
        for index in 1..<(places.count - 1) {
            let (from, corner, to) = (places[index - 1], places[index], places[index + 1])
            let near = Self.towards(from, from: corner, by: 7)
            let far = Self.towards(to, from: corner, by: 7)
            path += "L\(SVG.number(near.x)),\(SVG.number(near.y))"
            path += "Q\(SVG.number(corner.x)),\(SVG.number(corner.y)) \(SVG.number(far.x)),\(SVG.number(far.y))"
        }
        path += "L\(SVG.number(end.x)),\(SVG.number(end.y))"
        let name = "arrow" + (stroke.colour.map { " stroke\($0)" } ?? "")
        let dash = stroke.isDashed ? " stroke-dasharray=\"5 4\"" : ""
        self.elements.append("<path class=\"\(name)\" d=\"\(path)\"\(dash)/>")
        guard hasTip else { return }
        let side = (x: -unit.y * 4.2, y: unit.x * 4.2)
        let base: Place = (last.x - 9 * unit.x, last.y - 9 * unit.y)
        let points = [last, (base.x + side.x, base.y + side.y), (base.x - side.x, base.y - side.y)]
            .map { "\(SVG.number($0.x)),\(SVG.number($0.y))" }.joined(separator: " ")
        let fill = stroke.colour.map { "fill\($0)" } ?? "tip"
        self.elements.append("<polygon class=\"\(fill)\" points=\"\(points)\"/>")
    }

    /// Adds a line of text.
    ///
    /// - Parameters:
    ///   - text: The text.
    ///   - place: Its beginning, middle or end, on the base line.
    ///   - anchor: `start`, `middle` or `end`.
    ///   - angle: Degrees, clockwise.
    package mutating func note(_ text: String, _ place: Place, anchor: String = "middle", angle: Double = 0) {
        let turn =
            angle == 0
            ? "" : " transform=\"rotate(\(SVG.number(angle)) \(SVG.number(place.x)) \(SVG.number(place.y)))\""
        self.elements.append(
            "<text class=\"small\" x=\"\(SVG.number(place.x))\" y=\"\(SVG.number(place.y))\" text-anchor=\"\(anchor)\""
                + "\(turn)>\(SVG.escaped(text))</text>"
        )
        guard angle == 0 else { return }
        let width = SVGText.width(text, size: SVG.smallSize)
        let left = place.x - (anchor == "middle" ? width / 2 : anchor == "end" ? width : 0)
        if left < 0 || left + width > self.width { self.overfull.append(text) }
    }

    private mutating func check(_ text: String, size: Double, isBold: Bool = false, room: Double) {
        if SVGText.width(text, size: size, isBold: isBold) > room - 8 { self.overfull.append(text) }
    }

    private static func rectangle(_ area: Area, name: String, radius: Double, attributes: String = "") -> String {
        "<rect class=\"\(name)\" x=\"\(SVG.number(area.x))\" y=\"\(SVG.number(area.y))\""
            + " width=\"\(SVG.number(area.width))\" height=\"\(SVG.number(area.height))\" rx=\"\(SVG.number(radius))\""
            + "\(attributes)/>"
    }

    private static func distance(_ one: Place, _ other: Place) -> Double {
        ((one.x - other.x) * (one.x - other.x) + (one.y - other.y) * (one.y - other.y)).squareRoot()
    }

    private static func towards(_ target: Place, from place: Place, by length: Double) -> Place {
        let all = Self.distance(place, target)
        guard all > 0 else { return place }
        let part = min(length, all / 2) / all
        return (place.x + (target.x - place.x) * part, place.y + (target.y - place.y) * part)
    }
}
