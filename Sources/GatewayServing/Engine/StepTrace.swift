// SPDX-License-Identifier: Apache-2.0

internal import Logging
internal import SwitchModel
internal import Telemetry

/// The traces of a pass whose requests have different ones: its calls can carry only one.
struct StepTrace: Sendable {
    /// The carried trace: the first sampled request's.
    let carried: TraceContext

    /// The traces of all sampled requests, the carried one first.
    let traceIDs: [TraceID]

    /// Combines the traces of a pass.
    ///
    /// - Parameter sampled: The sampled requests' work, in the order of their rows; nil results if there is none.
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

    /// Metadata for log lines about one call of the pass.
    ///
    /// - Parameter span: The call.
    /// - Returns: The call's ids, and all trace ids if there are several.
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
    /// Starts a layer as ``ExpertExecutor/begin(_:)`` does.
    func begin(_ request: ExpertLayerRequest, trace: StepTrace) -> any PendingExperts
}
