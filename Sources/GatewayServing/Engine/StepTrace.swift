// SPDX-License-Identifier: Apache-2.0

internal import Logging
internal import SwitchModel
internal import Telemetry

/// The traces of a pass whose requests belong to several: its calls can carry only one of them.
struct StepTrace: Sendable {
    /// The one that is carried, that of the first sampled request.
    let carried: TraceContext

    /// The traces of all sampled requests, the one that is carried first.
    let traceIDs: [TraceID]

    /// Puts the traces of a pass together.
    ///
    /// - Parameter sampled: The sampled requests' work, in the order of their rows; without any the result is nil.
    init?(_ sampled: some Sequence<TraceContext>) {
        var traceIDs: [TraceID] = []
        var first: TraceContext?
        for trace in sampled {
            if first == nil { first = trace }
            if !traceIDs.contains(trace.traceID) { traceIDs.append(trace.traceID) }
        }
        guard let first else { return nil }
        self.carried = first
        self.traceIDs = traceIDs
    }

    /// What log lines about one call of the pass carry.
    ///
    /// - Parameter span: The call.
    /// - Returns: The call's ids, and those of all traces where there are several.
    func logMetadata(of span: TraceContext) -> Logger.Metadata {
        var metadata = span.logMetadata
        if self.traceIDs.count > 1 {
            metadata["trace_ids"] = .array(self.traceIDs.map { .stringConvertible($0) })
        }
        return metadata
    }
}

/// Experts that can tell their hosts which trace a layer belongs to.
protocol TracedExperts: ExpertExecutor {
    /// Begins a layer as ``ExpertExecutor/begin(_:)`` does.
    func begin(_ request: ExpertLayerRequest, trace: StepTrace) -> any PendingExperts
}
