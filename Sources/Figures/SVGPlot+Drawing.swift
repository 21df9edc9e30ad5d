// SPDX-License-Identifier: Apache-2.0

extension SVGPlot {
    /// Room around the rectangle between the axes, in pixels.
    struct Margins {
        var left: Double
        var top: Double
        var right: Double
        var bottom: Double
    }

    /// The margins that this diagram's texts need.
    ///
    /// - Parameters:
    ///   - width: Of the whole diagram.
    ///   - height: Of the whole diagram.
    /// - Returns: Margins; diagrams side by side take the widest of each.
    func margins(width: Double, height: Double) -> Margins {
        let upright = self.uprightRuler(length: height - 80)
        let across = self.acrossRuler(length: width - 90)
        let last = across.ticks.last.map { SVGText.width(across.text($0), size: SVG.smallSize) / 2 } ?? 0
        return Margins(
            left: 16 + (self.y.label.isEmpty ? 0 : 22) + upright.textWidth + 8,
            top: self.title.isEmpty ? 14 : 32,
            right: max(20, last + 6),
            bottom: 24 + (self.x.label.isEmpty ? 0 : 24)
        )
    }

    private func acrossRuler(length: Double) -> SVGAxis.Ruler {
        self.x.ruler(for: self.series.flatMap(\.points).map(\.x), length: length)
    }

    private func uprightRuler(length: Double) -> SVGAxis.Ruler {
        let values = self.series.flatMap(\.points)
            .flatMap { [$0.y, $0.range?.lowerBound ?? $0.y, $0.range?.upperBound ?? $0.y] }
        return self.y.ruler(for: values + self.references.map(\.y), length: length, direction: .vertical)
    }

    /// The elements of the diagram, in a rectangle that begins at (0, 0).
    ///
    /// - Parameters:
    ///   - width: Of the whole diagram.
    ///   - height: Of the whole diagram.
    ///   - margins: The part of it around the axes.
    ///   - looks: How series look, by name.
    /// - Returns: Elements of SVG.
    func elements(width: Double, height: Double, margins: Margins, looks: [String: Look]) -> [String] {
        let size = (
            width: max(1, width - margins.left - margins.right), height: max(1, height - margins.top - margins.bottom)
        )
        let frame = Frame(
            left: margins.left,
            top: margins.top,
            width: size.width,
            height: size.height,
            across: self.acrossRuler(length: size.width),
            upright: self.uprightRuler(length: size.height)
        )
        var elements = self.furniture(frame)
        for series in self.series.reversed() {
            elements += Self.drawing(of: series, in: frame, look: looks[series.name] ?? .numbered(0))
        }
        for reference in self.references {
            guard let y = frame.y(reference.y) else { continue }
            elements.append(SVG.line(frame.left, y, frame.left + frame.width, y, "ref"))
            elements.append(
                SVG.text(reference.label, x: frame.left + frame.width - 4, y: y - 5, "small", anchor: "end")
            )
        }
        return elements
    }

    /// Title, grid, axes, numbers and labels.
    private func furniture(_ frame: Frame) -> [String] {
        var elements: [String] = []
        let bottom = frame.top + frame.height
        if !self.title.isEmpty {
            elements.append(SVG.text(self.title, x: frame.left, y: frame.top - 12, "head"))
        }
        for tick in frame.across.ticks {
            guard let x = frame.x(tick) else { continue }
            elements.append(SVG.line(x, frame.top, x, bottom, "grid"))
            elements.append(SVG.line(x, bottom, x, bottom + 4, "frame"))
            elements.append(SVG.text(frame.across.text(tick), x: x, y: bottom + 18, "small", anchor: "middle"))
        }
        for tick in frame.upright.ticks {
            guard let y = frame.y(tick) else { continue }
            elements.append(SVG.line(frame.left, y, frame.left + frame.width, y, "grid"))
            elements.append(SVG.text(frame.upright.text(tick), x: frame.left - 8, y: y + 4, "small", anchor: "end"))
        }
        elements.append(SVG.line(frame.left, bottom, frame.left + frame.width, bottom, "frame"))
        elements.append(SVG.line(frame.left, frame.top, frame.left, bottom, "frame"))
        if !self.x.label.isEmpty {
            let middle = frame.left + frame.width / 2
            elements.append(SVG.text(self.x.label, x: middle, y: bottom + 38, "label", anchor: "middle"))
        }
        if !self.y.label.isEmpty {
            let side = (x: frame.left - frame.upright.textWidth - 20, y: frame.top + frame.height / 2)
            elements.append(
                "<text class=\"label\" text-anchor=\"middle\" transform=\"translate(\(SVG.number(side.x)) "
                    + "\(SVG.number(side.y))) rotate(-90)\">\(SVG.escaped(self.y.label))</text>"
            )
        }
        return elements
    }

    private static func drawing(of series: Series, in frame: Frame, look: Look) -> [String] {
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
            let name = "curve \(look.stroke)" + (series.style == .fineLine ? " fine" : "")
            elements.append("<path class=\"\(name)\" d=\"\(path)\"/>")
        }
        for place in places {
            if let range = place.point.range, let low = frame.y(range.lowerBound), let high = frame.y(range.upperBound)
            {
                let name = "bar stroke\(look.colour)"
                elements.append(SVG.line(place.x, low, place.x, high, name))
                elements.append(SVG.line(place.x - 3, low, place.x + 3, low, name))
                elements.append(SVG.line(place.x - 3, high, place.x + 3, high, name))
            }
            if series.style.hasMarks { elements.append(SVG.mark(look, x: place.x, y: place.y)) }
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
