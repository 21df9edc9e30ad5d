// SPDX-License-Identifier: Apache-2.0

import Foundation

/// One axis of a diagram: what it shows, and how values map to positions.
package struct SVGAxis: Sendable {
    /// How values map to positions.
    package enum Scale: Sendable {
        /// Linear: equal differences have equal lengths.
        case linear
        /// Logarithmic: equal ratios have equal lengths; values that are not positive are left out.
        case logarithmic
    }

    /// How the numbers at the ticks are written.
    package enum Format: Sendable {
        /// The number and a text after it, such as ` %`.
        case number(suffix: String)
        /// Milliseconds, as `20 ms` below a second and as `2 s` from then on.
        case milliseconds
    }

    /// What the axis shows, with its unit.
    package var label: String
    /// How values map to positions.
    package var scale: Scale
    /// The values at the ends; found from the data when nil.
    package var range: ClosedRange<Double>?
    /// The values that have a tick; round ones when nil.
    package var ticks: [Double]?
    /// How the numbers at the ticks are written.
    package var format: Format

    /// Describes an axis.
    ///
    /// - Parameters:
    ///   - label: What the axis shows, with its unit.
    ///   - scale: How values map to positions.
    ///   - range: The values at the ends; found from the data when nil.
    ///   - ticks: The values that have a tick; round ones when nil.
    ///   - format: How the numbers at the ticks are written.
    package init(
        _ label: String,
        scale: Scale = .linear,
        range: ClosedRange<Double>? = nil,
        ticks: [Double]? = nil,
        format: Format = .number(suffix: "")
    ) {
        self.label = label
        self.scale = scale
        self.range = range
        self.ticks = ticks
        self.format = format
    }

    /// The axis with its ends and ticks chosen for some data.
    ///
    /// - Parameters:
    ///   - values: All values along the axis, of all series.
    ///   - length: Pixels from end to end.
    ///   - direction: Where the numbers are: side by side, or one above the other.
    /// - Returns: A ruler; it can be drawn for any values, even none.
    package func ruler(for values: [Double], length: Double = 360, direction: Direction = .horizontal) -> Ruler {
        let (low, high) = self.ends(values, count: self.tickCount(length, direction))
        let plain = Ruler(axis: self, low: low, high: high, ticks: [])
        let slack = (high - low) * 1e-9
        let isInside = { (tick: Double) in tick >= low - slack && tick <= high + slack }
        if let ticks = self.ticks {
            return Ruler(axis: self, low: low, high: high, ticks: ticks.filter(isInside))
        }
        let candidates =
            self.scale == .linear
            ? [Self.linear(low, high, count: self.tickCount(length, direction))] : Self.decades(low, high)
        let ticks = candidates.map { $0.filter(isInside) }
            .first { ticks in ticks.count <= 1 || plain.hasRoom(for: ticks, length: length, direction: direction) }
        return Ruler(axis: self, low: low, high: high, ticks: ticks ?? [low])
    }

    /// Which way an axis runs.
    package enum Direction: Sendable {
        /// Numbers are side by side.
        case horizontal
        /// Numbers are one above the other.
        case vertical
    }

    private func tickCount(_ length: Double, _ direction: Direction) -> Double {
        max(2, (length / (direction == .horizontal ? 60 : 36)).rounded(.down))
    }

    /// The values at the ends: given ones, or round ones around the data.
    private func ends(_ values: [Double], count: Double) -> (low: Double, high: Double) {
        let usable = values.filter { $0.isFinite && (self.scale == .linear || $0 > 0) }
        var low = self.range?.lowerBound ?? usable.min() ?? (self.scale == .linear ? 0 : 1)
        var high = self.range?.upperBound ?? usable.max() ?? (self.scale == .linear ? 1 : 10)
        if self.scale == .logarithmic {
            low = low > 0 && low.isFinite ? low : 1
            high = high > low && high.isFinite ? high : low * 10
            return self.range == nil ? (low / 1.3, high * 1.3) : (low, high)
        }
        low = low.isFinite ? low : 0
        if !(high > low) || !high.isFinite {
            high = low + max(1, abs(low))
        }
        guard self.range == nil else { return (low, high) }
        let step = Self.roundStep(high - low, count: count)
        return ((low / step).rounded(.down) * step, (high / step).rounded(.up) * step)
    }

    /// An axis between its ends.
    package struct Ruler: Sendable {
        package let axis: SVGAxis
        package let low: Double
        package let high: Double
        package let ticks: [Double]

        /// How far along the axis a value lies.
        ///
        /// - Parameter value: Any number.
        /// - Returns: 0 at the low end, 1 at the high one, within these; nil for what cannot be shown.
        package func place(_ value: Double) -> Double? {
            let fraction: Double
            switch self.axis.scale {
            case .linear: fraction = (value - self.low) / (self.high - self.low)
            case .logarithmic:
                guard value > 0 else { return nil }
                fraction = log(value / self.low) / log(self.high / self.low)
            }
            return fraction.isFinite ? min(1, max(0, fraction)) : nil
        }

        /// The text at a tick.
        package func text(_ value: Double) -> String {
            switch self.axis.format {
            case .number(let suffix): SVGAxis.number(value) + suffix
            case .milliseconds: value < 1000 ? "\(SVGAxis.number(value)) ms" : "\(SVGAxis.number(value / 1000)) s"
            }
        }

        /// The width of the widest number, in pixels.
        package var textWidth: Double {
            self.ticks.map { SVGText.width(self.text($0), size: SVG.smallSize) }.max() ?? 0
        }

        /// Whether the numbers at some ticks do not overlap.
        fileprivate func hasRoom(for ticks: [Double], length: Double, direction: Direction) -> Bool {
            var end = -Double.infinity
            for tick in ticks {
                let place = (self.place(tick) ?? 0) * length
                let width = SVGText.width(self.text(tick), size: SVG.smallSize)
                let half = direction == .horizontal ? width / 2 + 6 : 11
                guard place - half >= end else { return false }
                end = place + half
            }
            return true
        }
    }

    /// A number as people write it: `0.001`, `2.5`, `1,000`.
    private static func number(_ value: Double) -> String {
        let isWhole = abs(value) < 1e12 && value == value.rounded()
        let text = String(format: isWhole ? "%.0f" : "%.6g", value)
        let digits = text.drop { $0 == "-" }
        guard digits.count > 3, digits.allSatisfy(\.isNumber) else { return text }
        var grouped = ""
        for (index, digit) in digits.enumerated() {
            if index > 0, (digits.count - index) % 3 == 0 { grouped.append(",") }
            grouped.append(digit)
        }
        return (value < 0 ? "-" : "") + grouped
    }

    /// A step of 1, 2 or 5 times a power of ten that cuts a span into about this many parts.
    private static func roundStep(_ span: Double, count: Double) -> Double {
        let power = pow(10, (log10(span / count)).rounded(.down))
        let ratio = span / count / power
        return (ratio <= 1.001 ? 1 : ratio <= 2.001 ? 2 : ratio <= 5.001 ? 5 : 10) * power
    }

    private static func linear(_ low: Double, _ high: Double, count: Double) -> [Double] {
        let step = Self.roundStep(high - low, count: count)
        let first = (low / step - 1e-9).rounded(.up)
        return (0...Int(count) + 1).map { (first + Double($0)) * step }
    }

    /// Ticks of a logarithmic axis, finest first.
    ///
    /// Powers of ten with their doubles and fives, with their triples, alone, then only every second or third of them.
    private static func decades(_ low: Double, _ high: Double) -> [[Double]] {
        let first = Int(log10(low).rounded(.down))
        let last = Int(log10(high).rounded(.up))
        let sets: [(stride: Int, parts: [Double])] =
            [(1, [1, 2, 5]), (1, [1, 3])] + (1...max(1, last - first)).map { ($0, [1]) }
        return sets.map { set in
            Swift.stride(from: first, through: last, by: set.stride)
                .flatMap { power in set.parts.map { $0 * pow(10, Double(power)) } }
        }
    }
}
