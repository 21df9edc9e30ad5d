// SPDX-License-Identifier: Apache-2.0

internal import BatchScheduling
internal import Metrics
internal import SwitchyardTypes
internal import Telemetry

/// What an expert host counts, for any metrics backend.
///
/// The program chooses the backend; without one, nothing is counted. `MetricCatalog` defines the metrics; those that are
/// cheaper to look up than to count come from ``ExpertHost/collect(into:expertSeriesLimit:)``.
public struct ExpertHostMetrics: Sendable {
    /// How a `Forward` or `Backward` call ended.
    public enum Outcome: String, Sendable, CaseIterable {
        /// Computed and answered.
        case ok
        /// There was no room for it, or the host had drained.
        case refused
        /// Its deadline passed before it was computed.
        case expired
        /// Its caller left before it was computed.
        case cancelled
        /// It asked for something that the host does not have, or was malformed.
        case invalid
        /// It was computed and some of its rows are not finite, or it could not be computed.
        case failed
    }

    /// What is counted for each kind of work.
    private struct Work: Sendable {
        let calls: [Outcome: Counter]
        let rows: Counter
        let queueTime: Timer
        let computeTime: Timer
    }

    private let work: [HostAdmission.Kind: Work]
    private let passes: Counter
    private let passCalls: Recorder
    private let passRows: Recorder
    private let namedExperts: Counter
    private let expertReads: Counter

    /// Creates every metric, so that all of them exist from the start, at zero.
    ///
    /// - Parameter factory: The backend.
    init(factory: any MetricsFactory) {
        let table = MetricCatalog.host
        var work: [HostAdmission.Kind: Work] = [:]
        for kind in HostAdmission.Kind.allCases {
            let name = kind.rawValue
            let calls = Outcome.allCases.map { outcome in
                (outcome, table.callsTotal.counter([name, outcome.rawValue], factory: factory))
            }
            work[kind] = Work(
                calls: Dictionary(uniqueKeysWithValues: calls),
                rows: table.rowsTotal.counter([name], factory: factory),
                queueTime: table.queueSeconds.timer([name], factory: factory),
                computeTime: table.computeSeconds.timer([name], factory: factory)
            )
        }
        self.work = work
        self.passes = table.passesTotal.counter(factory: factory)
        self.passCalls = table.passCalls.recorder(factory: factory)
        self.passRows = table.passRows.recorder(factory: factory)
        self.namedExperts = table.namedExpertsTotal.counter(factory: factory)
        self.expertReads = table.expertReadsTotal.counter(factory: factory)
    }

    /// Counts the end of a call.
    func count(_ outcome: Outcome, _ kind: HostAdmission.Kind) {
        self.work[kind]?.calls[outcome]?.increment()
    }

    /// Records how long a call waited before it was computed.
    func waited(_ time: Duration, _ kind: HostAdmission.Kind) {
        self.work[kind]?.queueTime.recordNanoseconds(max(0, time.wholeNanoseconds))
    }

    /// Counts a finished pass.
    ///
    /// - Parameters:
    ///   - kind: What it was for.
    ///   - calls: Calls that it computed.
    ///   - rows: Their token rows.
    ///   - named: Experts that they named, counted per call.
    ///   - reads: Experts whose weights were read.
    ///   - time: How long it took, without pauses.
    func computed(
        _ kind: HostAdmission.Kind,
        calls: Int,
        rows: Int,
        named: Int,
        reads: Int,
        time: Duration
    ) {
        self.passes.increment()
        self.passCalls.record(calls)
        self.passRows.record(rows)
        self.work[kind]?.rows.increment(by: rows)
        self.namedExperts.increment(by: named)
        self.expertReads.increment(by: reads)
        self.work[kind]?.computeTime.recordNanoseconds(max(0, time.wholeNanoseconds))
    }
}
