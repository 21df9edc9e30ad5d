// SPDX-License-Identifier: Apache-2.0

/// Durations of many calls, sorted.
struct Percentiles {
    private let sorted: [Duration]

    /// Sorts durations.
    ///
    /// - Parameter durations: One duration for each call; at least one.
    init(_ durations: [Duration]) {
        self.sorted = durations.sorted()
    }

    /// The duration that a fraction of the calls does not exceed.
    ///
    /// - Parameter fraction: From 0 to 1.
    /// - Returns: The nearest-rank percentile; zero where there are no calls.
    func at(_ fraction: Double) -> Duration {
        guard !self.sorted.isEmpty else { return .zero }
        let rank = (fraction * Double(self.sorted.count)).rounded(.up)
        return self.sorted[min(self.sorted.count - 1, max(0, Int(rank) - 1))]
    }
}

/// The middle of some numbers; zero where there are none.
///
/// - Parameter values: The numbers.
/// - Returns: The median; of an even count, the mean of the two in the middle.
func median(_ values: [Double]) -> Double {
    guard !values.isEmpty else { return 0 }
    let sorted = values.sorted()
    let middle = sorted.count / 2
    return sorted.count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}
