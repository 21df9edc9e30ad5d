// SPDX-License-Identifier: Apache-2.0

/// How experts are grouped into series, so that a limit of series holds.
///
/// If the limit allows a series for each expert of each layer, each has its own; otherwise neighbours share one, as
/// many as needed and the same number in every layer. The grouping depends only on the model and the limit, so a
/// series continues across restarts and never falls.
public struct ExpertSeries: Sendable, Hashable {
    /// Experts that share a series; 0 if there are no series.
    public let width: Int

    /// Divides the experts.
    ///
    /// - Parameters:
    ///   - layers: Sparse layers.
    ///   - experts: Experts of a layer.
    ///   - limit: Limit of series; with less than one per layer there are none.
    public init(layers: Int, experts: Int, limit: Int) {
        let perLayer = layers > 0 ? limit / layers : 0
        self.width = perLayer > 0 ? max(1, (experts + perLayer - 1) / perLayer) : 0
    }

    /// Adds up a layer's numbers by series.
    ///
    /// - Parameter values: A number for each expert, by index.
    /// - Returns: The series' labels, the experts in them and their sums, in order.
    public func series(of values: [UInt64]) -> [(label: String, experts: Range<Int>, value: UInt64)] {
        guard self.width > 0 else { return [] }
        return stride(from: 0, to: values.count, by: self.width)
            .map { first in
                let last = min(first + self.width, values.count) - 1
                let label = first == last ? "\(first)" : "\(first)-\(last)"
                return (label, first..<(last + 1), values[first...last].reduce(0, &+))
            }
    }
}
