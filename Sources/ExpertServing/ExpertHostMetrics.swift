// SPDX-License-Identifier: Apache-2.0

internal import Metrics

/// What an expert host tells the process's metrics system.
///
/// The host sets up no metrics system: whoever runs it does so before it is created, or nothing is recorded. Names end
/// in their unit, as Prometheus has it (https://prometheus.io/docs/practices/naming/). What each metric means stands in
/// `MetricCatalog`; what is cheaper to look up than to count is gathered by
/// ``ExpertHost/collect(into:expertSeriesLimit:)``.
public struct ExpertHostMetrics: Sendable {
    /// How a `Forward` call ended.
    public enum Outcome: String, Sendable, CaseIterable {
        /// Computed and answered.
        case ok
        /// There was no room for it, or the host had drained.
        case refused
        /// Its deadline passed before it was computed.
        case expired
        /// Its caller left before it was computed.
        case cancelled
        /// It asked for something that the host does not have, or was no sound request.
        case invalid
        /// It was computed and its outputs were not finite, or it could not be computed.
        case failed
    }

    /// What every metric's name begins with.
    public static let prefix = "switchyard_host_"

    private let calls: [Outcome: Counter]
    private let rows: Counter
    private let passes: Counter
    private let passCalls: Recorder
    private let passRows: Recorder
    private let namedExperts: Counter
    private let expertReads: Counter
    private let queueTime: Timer
    private let computeTime: Timer

    /// Makes the metrics known to a metrics system.
    ///
    /// - Parameter factory: The system.
    init(factory: any MetricsFactory) {
        func counter(_ name: String) -> Counter { Counter(label: Self.prefix + name, factory: factory) }
        func timer(_ name: String) -> Timer { Timer(label: Self.prefix + name, factory: factory) }
        func recorder(_ name: String) -> Recorder {
            Recorder(label: Self.prefix + name, aggregate: true, factory: factory)
        }
        self.calls = Dictionary(
            uniqueKeysWithValues: Outcome.allCases.map { outcome in
                let dimensions = [("outcome", outcome.rawValue)]
                return (outcome, Counter(label: Self.prefix + "calls_total", dimensions: dimensions, factory: factory))
            }
        )
        self.rows = counter("rows_total")
        self.passes = counter("passes_total")
        self.passCalls = recorder("pass_calls")
        self.passRows = recorder("pass_rows")
        self.namedExperts = counter("named_experts_total")
        self.expertReads = counter("expert_reads_total")
        self.queueTime = timer("queue_seconds")
        self.computeTime = timer("compute_seconds")
    }

    /// A call ended.
    func count(_ outcome: Outcome) {
        self.calls[outcome]?.increment()
    }

    /// A call left the queue to be computed.
    func waited(_ time: Duration) {
        self.queueTime.recordNanoseconds(time.wholeNanoseconds)
    }

    /// A pass ended.
    ///
    /// - Parameters:
    ///   - calls: Calls that it computed.
    ///   - rows: Their token rows.
    ///   - named: Experts that they named, each call by itself.
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
        self.computeTime.recordNanoseconds(time.wholeNanoseconds)
    }
}

extension Duration {
    /// The duration in whole nanoseconds, 0 if it is negative.
    fileprivate var wholeNanoseconds: Int64 {
        let (seconds, attoseconds) = self.components
        return max(0, seconds * 1_000_000_000 + attoseconds / 1_000_000_000)
    }

    /// The duration in whole microseconds, 0 if it is negative.
    var wholeMicroseconds: UInt64 { UInt64(self.wholeNanoseconds / 1000) }
}
