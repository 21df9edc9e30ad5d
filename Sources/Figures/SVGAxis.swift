// SPDX-License-Identifier: Apache-2.0

import Foundation

/// One axis of a diagram: what it shows, and how values become places.
package struct SVGAxis: Sendable {
    /// How values become places.
    package enum Scale: Sendable {
        /// Equal differences are equally long.
        case linear
        /// Equal ratios are equally long; values that are not positive are left out.
        case logarithmic
    }

    /// What the axis shows, with its unit.
    package var label: String
    /// How values become places.
    package var scale: Scale
    /// The values at the ends; found from the data when nil.
    package var range: ClosedRange<Double>?
    /// The values that are marked; round ones when nil.
    package var ticks: [Double]?
    /// Follows the number at each mark: ` %`.
    package var suffix: String

    /// Describes an axis.
    ///
    /// - Parameters:
    ///   - label: What the axis shows, with its unit.
    ///   - scale: How values become places.
    ///   - range: The values at the ends; found from the data when nil.
    ///   - ticks: The values that are marked; round ones when nil.
    ///   - suffix: Follows the number at each mark.
    package init(
        _ label: String,
        scale: Scale = .linear,
        range: ClosedRange<Double>? = nil,
        ticks: [Double]? = nil,
        suffix: String = ""
    ) {
        self.label = label
        self.scale = scale
        self.range = range
        self.ticks = ticks
        self.suffix = suffix
    }

    /// The axis with its ends and marks settled for some data.
    ///
    /// - Parameter values: All values along the axis, of all series.
    /// - Returns: A ruler; it can be drawn whatever the values are, also when there are none.
    package func ruler(for values: [Double]) -> Ruler {
        let usable = values.filter { $0.isFinite && (self.scale == .linear || $0 > 0) }
        var low = self.range?.lowerBound ?? usable.min() ?? (self.scale == .linear ? 0 : 1)
        var high = self.range?.upperBound ?? usable.max() ?? (self.scale == .linear ? 1 : 10)
        if self.scale == .logarithmic {
            low = low > 0 && low.isFinite ? low : 1
            high = high > low && high.isFinite ? high : low * 10
            if self.range == nil {
                (low, high) = (low / 1.3, high * 1.3)
            }
        } else {
            low = low.isFinite ? low : 0
            if !(high > low) || !high.isFinite {
                high = low + max(1, abs(low))
            }
            if self.range == nil {
                let step = Self.roundStep(high - low)
                (low, high) = ((low / step).rounded(.down) * step, (high / step).rounded(.up) * step)
            }
        }
        let marks = self.ticks ?? (self.scale == .linear ? Self.linear(low, high) : Self.decades(low, high))
        let slack = (high - low) * 1e-9
        return Ruler(
            axis: self,
            low: low,
            high: high,
            ticks: marks.filter { $0 >= low - slack && $0 <= high + slack }
        )
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

        /// The text at a mark.
        package func text(_ value: Double) -> String {
            String(format: "%.6g", value) + self.axis.suffix
        }
    }

    /// A step of 1, 2 or 5 times a power of ten that cuts a span into about five.
    private static func roundStep(_ span: Double) -> Double {
        let power = pow(10, (log10(span / 5)).rounded(.down))
        let ratio = span / 5 / power
        return (ratio < 1.5 ? 1 : ratio < 3.5 ? 2 : ratio < 7.5 ? 5 : 10) * power
    }

    private static func linear(_ low: Double, _ high: Double) -> [Double] {
        let step = Self.roundStep(high - low)
        let first = (low / step - 1e-9).rounded(.up)
        return (0..<12).map { (first + Double($0)) * step }
    }

    /// Powers of ten; with their doubles and fives where they are few.
    private static func decades(_ low: Double, _ high: Double) -> [Double] {
        let first = Int(log10(low).rounded(.down))
        let last = Int(log10(high).rounded(.up))
        let stride = max(1, (last - first) / 8)
        let parts: [Double] = last - first <= 3 ? [1, 2, 5] : [1]
        return Swift.stride(from: first, through: last, by: stride)
            .flatMap { power in parts.map { $0 * pow(10, Double(power)) } }
    }
}
