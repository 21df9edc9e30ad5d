// SPDX-License-Identifier: Apache-2.0

package import ExpertPooling
package import SwitchyardTypes

/// The result of a simulation.
package struct SimulationReport: Sendable, Equatable {
    /// Rows that were dropped, for one reason in one half of the model.
    package struct Drop: Sendable, Hashable, Comparable {
        /// Where.
        package var stack: Stack
        /// Why.
        package var cause: DropCause

        /// Describes a reason.
        package init(stack: Stack, cause: DropCause) {
            self.stack = stack
            self.cause = cause
        }

        /// Orders the encoder before the decoder, then by cause.
        package static func < (left: Drop, right: Drop) -> Bool {
            (left.stack, "\(left.cause)") < (right.stack, "\(right.cause)")
        }
    }

    /// What happened to the hosts.
    package var scenario = SimulationScenario.calm
    /// The defences that the gateways could use.
    package var variant = SimulationVariant.everything
    /// Time of each measured step, ascending, nanoseconds.
    package var stepTimes: [Int64] = []
    /// Time of the layers, ascending, nanoseconds; from the dispatch to the last answer.
    package var layerTimes: [Int64] = []
    /// Rows that were routed to experts.
    package var rows = 0
    /// Rows that came back.
    package var answered = 0
    /// Rows that did not.
    package var dropped: [Drop: Int] = [:]
    /// Steps in which a row was dropped.
    package var stepsWithDrops = 0
    /// The last step in which one was, counted from the first; -1 where none was.
    package var lastStepWithDrops = -1
    /// Calls: one for each layer and replica that experts of the layer prefer, or one for each layer and pool.
    package var calls = 0
    /// Experts whose weights hosts read, each once per pass.
    package var expertReads = 0
    /// Calls that were sent to a second replica while the first was silent.
    package var hedges = 0
    /// Attempts after a failed one.
    package var retries = 0
    /// How often a replica was ejected.
    package var ejections = 0
    /// Faults that hosts had.
    package var faults = 0
    /// From a host's recovery to its next calls, for each gateway, ascending, nanoseconds.
    package var recoveries: [Int64] = []
    /// How often the plan for hot experts changed.
    package var planChanges = 0
    /// Tokens that all gateways decode per second of simulated time.
    package var tokensPerSecond = 0.0
    /// Simulated time, nanoseconds.
    package var duration: Int64 = 0
    /// Events that were handled.
    package var events = 0
    /// Replicas that did not serve at the end, over all gateways.
    package var notServing = 0
    /// Rules that were broken; empty unless the machine is wrong.
    package var violations: [String] = []

    /// Creates a report of nothing.
    package init() {}

    /// Rows that were dropped, for whatever reason.
    package var droppedRows: Int { self.dropped.values.reduce(0, +) }

    /// A percentile of the steps' times.
    ///
    /// - Parameter fraction: From 0 to 1.
    /// - Returns: Seconds, by nearest rank; 0 where no step was measured.
    package func step(_ fraction: Double) -> Double { Self.percentile(self.stepTimes, fraction) }

    /// A percentile of the layers' times.
    ///
    /// - Parameter fraction: From 0 to 1.
    /// - Returns: Seconds, by nearest rank; 0 where no layer was measured.
    package func layer(_ fraction: Double) -> Double { Self.percentile(self.layerTimes, fraction) }

    /// A percentile of the times from a host's recovery to its next calls.
    ///
    /// - Parameter fraction: From 0 to 1.
    /// - Returns: Seconds, by nearest rank; 0 where there was no fault.
    package func recovery(_ fraction: Double) -> Double { Self.percentile(self.recoveries, fraction) }

    private static func percentile(_ sorted: [Int64], _ fraction: Double) -> Double {
        guard !sorted.isEmpty else { return 0 }
        let rank = (fraction * Double(sorted.count)).rounded(.up)
        return Double(sorted[min(max(Int(rank) - 1, 0), sorted.count - 1)]) * 1e-9
    }
}
