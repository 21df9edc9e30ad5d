// SPDX-License-Identifier: Apache-2.0

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

    private let calls: [Outcome: Counter]
    private let rows: Counter
    private let passes: Counter
    private let passCalls: Recorder
    private let passRows: Recorder
    private let namedExperts: Counter
    private let expertReads: Counter
    private let queueTime: Timer
    private let computeTime: Timer

    /// Creates every metric, so that all of them exist from the start, at zero.
    ///
    /// - Parameter factory: The backend.
    init(factory: any MetricsFactory) {
        let table = MetricCatalog.host
        self.calls = Dictionary(
            uniqueKeysWithValues: Outcome.allCases.map { outcome in
                (outcome, table.callsTotal.counter([outcome.rawValue], factory: factory))
            }
        )
        self.rows = table.rowsTotal.counter(factory: factory)
        self.passes = table.passesTotal.counter(factory: factory)
        self.passCalls = table.passCalls.recorder(factory: factory)
        self.passRows = table.passRows.recorder(factory: factory)
        self.namedExperts = table.namedExpertsTotal.counter(factory: factory)
        self.expertReads = table.expertReadsTotal.counter(factory: factory)
        self.queueTime = table.queueSeconds.timer(factory: factory)
        self.computeTime = table.computeSeconds.timer(factory: factory)
    }

    /// Counts the end of a call.
    func count(_ outcome: Outcome) {
        self.calls[outcome]?.increment()
    }

    /// Records how long a call waited before it was computed.
    func waited(_ time: Duration) {
        self.queueTime.recordNanoseconds(max(0, time.wholeNanoseconds))
    }

    /// Counts a finished pass.
    ///
    /// - Parameters:
    ///   - calls: Calls that it computed.
    ///   - rows: Their token rows.
    ///   - named: Experts that they named, counted per call.
    ///   - reads: Experts whose weights were read.
    ///   - time: How long it took.
    func computed(
        calls: Int,
        rows: Int,
        named: Int,
        reads: Int,
        time: Duration
    ) {
        self.passes.increment()
        self.passCalls.record(calls)
        self.passRows.record(rows)
        self.rows.increment(by: rows)
        self.namedExperts.increment(by: named)
        self.expertReads.increment(by: reads)
        self.computeTime.recordNanoseconds(max(0, time.wholeNanoseconds))
    }
}
