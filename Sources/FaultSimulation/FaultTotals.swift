// SPDX-License-Identifier: Apache-2.0

/// Runs of many seeds, added up.
package struct FaultTotals: Sendable, Equatable {
    /// Seeds that were run.
    package var seeds = 0
    /// Requests of all runs with faults.
    package var requests = 0
    /// Those that ended well.
    package var answered = 0
    /// Faults that were drawn.
    package var faults = 0
    /// Events that were handled, calm runs included.
    package var events = 0
    /// Calls to hosts in runs with faults.
    package var calls = 0
    /// Bytes that arrived in runs with faults.
    package var bytes = 0
    /// Rows that were dropped.
    package var dropped = 0
    /// Wrong rows that looked right and were used.
    package var taintedRows = 0
    /// Simulated seconds, calm runs included.
    package var virtualSeconds = 0.0
    /// How often each rare state was reached.
    package var rareStates: [RareState: Int] = [:]

    /// Creates the totals of nothing.
    package init() {}

    /// Adds a seed's runs.
    ///
    /// - Parameter oracle: The runs.
    package mutating func add(_ oracle: FaultOracle) {
        self.seeds += 1
        self.requests += oracle.faulty.outcomes.count
        self.answered += oracle.faulty.outcomes.count { $0.status == 0 }
        self.faults += oracle.scenario.faults.count
        self.events += oracle.calm.events + oracle.faulty.events
        self.calls += oracle.faulty.calls
        self.bytes += oracle.faulty.bytes
        self.dropped += oracle.faulty.dropped
        self.taintedRows += oracle.faulty.taintedRows
        self.virtualSeconds += Double(oracle.calm.virtualNanoseconds + oracle.faulty.virtualNanoseconds) * 1e-9
        self.rareStates.merge(oracle.faulty.rareStates) { $0 + $1 }
        for (state, count) in oracle.calm.rareStates { self.rareStates[state, default: 0] += count }
    }

    /// Adds other totals.
    ///
    /// - Parameter other: Totals of other seeds.
    package mutating func add(_ other: FaultTotals) {
        self.seeds += other.seeds
        self.requests += other.requests
        self.answered += other.answered
        self.faults += other.faults
        self.events += other.events
        self.calls += other.calls
        self.bytes += other.bytes
        self.dropped += other.dropped
        self.taintedRows += other.taintedRows
        self.virtualSeconds += other.virtualSeconds
        self.rareStates.merge(other.rareStates) { $0 + $1 }
    }

    /// Rare states that no run reached, in the order in which they are declared.
    package var missing: [RareState] { RareState.allCases.filter { self.rareStates[$0] == nil } }
}

extension FaultOracle {
    /// What happens in a scenario, line by line.
    ///
    /// - Parameter scenario: The scenario.
    /// - Returns: Lines with the time in front.
    package static func trace(of scenario: FaultScenario) -> [String] {
        let cluster = FaultCluster(scenario, isTraced: true)
        let report = cluster.run()
        return (cluster.trace ?? []) + report.violations
    }
}
