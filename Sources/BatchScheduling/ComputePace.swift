// SPDX-License-Identifier: Apache-2.0

/// How long passes and their token rows take, measured on recent ones.
struct ComputePace: Sendable {
    /// The shortest and longest time that a refused caller is told to wait.
    static let retryLimits = Duration.milliseconds(1)...Duration.milliseconds(1000)

    /// Weight of a new pass in the averages.
    private static let weight = 0.125

    /// Moving averages over passes; nil before the first.
    private var average: (rows: Double, nanoseconds: Double)?

    /// Adds a pass to the averages.
    ///
    /// - Parameters:
    ///   - rows: The pass's token rows.
    ///   - time: How long it took.
    mutating func computed(rows: Int, time: Duration) {
        let measured = (rows: Double(max(1, rows)), nanoseconds: max(0, time / .nanoseconds(1)))
        guard let average = self.average else {
            self.average = measured
            return
        }
        self.average = (
            rows: average.rows + Self.weight * (measured.rows - average.rows),
            nanoseconds: average.nanoseconds + Self.weight * (measured.nanoseconds - average.nanoseconds)
        )
    }

    /// How long a pass takes on average; nil before the first.
    var passTime: Duration? { self.average.map { .nanoseconds(Int64($0.nanoseconds)) } }

    /// When a refused caller should retry: once everything waiting now is computed.
    ///
    /// - Parameter rows: Token rows that wait.
    /// - Returns: Whole milliseconds within ``retryLimits``; the shortest before anything is measured.
    func retryDelay(rows: Int) -> Duration {
        guard let average = self.average else {
            return Self.retryLimits.lowerBound
        }
        let milliseconds = Double(rows) * average.nanoseconds / average.rows / 1_000_000
        let upper = Self.retryLimits.upperBound / .milliseconds(1)
        return .milliseconds(Int(min(max(milliseconds.rounded(.up), 1), upper)))
    }
}
