// SPDX-License-Identifier: Apache-2.0

import SwitchyardTypes

/// The figures of a simulation as written to a file, from which tables and pictures are made.
package struct SimulationRecord: Codable, Sendable, Equatable {
    /// What happened to the hosts.
    package var scenario: String
    /// The defences that the gateways could use.
    package var variant: String
    /// Times of the measured steps by percentile, in seconds: `p50`, `p90`, `p99`, `p99.9` and `max`.
    package var stepSeconds: [String: Double]
    /// Times of the layers, in the same way.
    package var layerSeconds: [String: Double]
    /// The least microseconds of ever fewer of the steps: see ``curve``.
    package var stepCurve: [Int]
    /// Measured steps.
    package var steps: Int
    /// Tokens that all gateways decode per second of simulated time.
    package var tokensPerSecond: Double
    /// Rows that were routed to experts.
    package var rows: Int
    /// Rows that came back.
    package var answered: Int
    /// Rows that did not, by half of the model and cause.
    package var dropped: [String: Int]
    /// Steps in which a row was dropped.
    package var stepsWithDrops: Int
    /// Calls: one for each layer and replica that experts of the layer prefer, or one for each layer and pool.
    package var calls: Int
    /// Experts whose weights hosts read, each once per pass; nil in records from before they were counted.
    package var expertReads: Int?
    /// Calls that were sent to a second replica while the first was silent.
    package var hedges: Int
    /// Attempts after a failed one.
    package var retries: Int
    /// How often a replica was ejected.
    package var ejections: Int
    /// Faults that hosts had.
    package var faults: Int
    /// How often the plan for hot experts changed.
    package var planChanges: Int
    /// Replicas that did not serve at the end.
    package var notServing: Int
    /// Events that were handled.
    package var events: Int
    /// Simulated time.
    package var simulatedSeconds: Double
    /// The longest time from a host's recovery to its next calls; nil where there was no fault.
    package var longestRecoverySeconds: Double?
    /// Rules that were broken.
    package var violations: [String]

    /// Points of the curve after its first one.
    private static let curveParts = 80

    /// Writes down a report.
    ///
    /// - Parameter report: The result of a simulation.
    package init(_ report: SimulationReport) {
        let marks: [(String, Double)] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1)]
        self.scenario = report.scenario.rawValue
        self.variant = report.variant.rawValue
        self.stepSeconds = Dictionary(uniqueKeysWithValues: marks.map { ($0, report.step($1)) })
        self.layerSeconds = Dictionary(uniqueKeysWithValues: marks.map { ($0, report.layer($1)) })
        self.steps = report.stepTimes.count
        self.stepCurve = Self.fractions(of: report.stepTimes.count)
            .map { fraction in
                let count = report.stepTimes.count
                let slower = min(count, max(1, Int((fraction * Double(count)).rounded())))
                return Int((Double(report.stepTimes[count - slower]) * 1e-3).rounded())
            }
        self.tokensPerSecond = report.tokensPerSecond
        self.rows = report.rows
        self.answered = report.answered
        self.dropped = Dictionary(
            uniqueKeysWithValues: report.dropped.map {
                ("\($0.key.stack) \($0.key.cause)", $0.value)
            }
        )
        self.stepsWithDrops = report.stepsWithDrops
        self.calls = report.calls
        self.expertReads = report.expertReads
        self.hedges = report.hedges
        self.retries = report.retries
        self.ejections = report.ejections
        self.faults = report.faults
        self.planChanges = report.planChanges
        self.notServing = report.notServing
        self.events = report.events
        self.simulatedSeconds = Double(report.duration) * 1e-9
        self.longestRecoverySeconds = report.recoveries.isEmpty ? nil : report.recovery(1)
        self.violations = report.violations
    }

    /// The fraction of the steps that took at least a time, from all of them down to the slowest one.
    package var curve: [(fraction: Double, milliseconds: Double)] {
        zip(Self.fractions(of: self.steps), self.stepCurve).map { ($0, Double($1) / 1000) }
    }

    /// Rows that were dropped, for whatever reason.
    package var droppedRows: Int { self.dropped.values.reduce(0, +) }

    /// Fractions of the steps, each smaller than the one before it by the same factor, from 1 down to a single step.
    private static func fractions(of count: Int) -> [Double] {
        guard count > 0 else { return [] }
        // Repeated division in place of a power: only the four basic operations are the same on every machine.
        var factor = 1.0
        var step = 0.5
        while step > 1e-12 {
            // The largest factor whose 80th power is still below the count.
            let next = factor + step
            if (0..<Self.curveParts).reduce(1.0, { power, _ in power * next }) <= Double(count) {
                factor = next
            } else {
                step /= 2
            }
        }
        var fraction = 1.0
        return [1.0]
            + (0..<Self.curveParts)
            .map { _ in
                fraction /= factor
                return fraction
            }
    }
}
