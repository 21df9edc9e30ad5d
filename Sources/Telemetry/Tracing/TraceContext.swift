// SPDX-License-Identifier: Apache-2.0

public import Logging

/// A span of a trace: the trace's id, the parent's id, and its own.
public struct TraceContext: Sendable, Hashable {
    /// The name of the field that carries a trace.
    public static let parentKey = "traceparent"

    /// The name of the field that carries what tracing systems pass on.
    public static let stateKey = "tracestate"

    /// The name of the field that tells the caller which trace and span its call was.
    ///
    /// Source: https://w3c.github.io/trace-context/ (a draft).
    public static let responseKey = "traceresponse"

    /// The trace.
    public let traceID: TraceID
    /// The caller's span; nil if the trace starts here.
    public let parentSpanID: SpanID?
    /// This span.
    public let spanID: SpanID
    /// Whether calls made on behalf of this work carry the trace.
    public let isSampled: Bool
    /// What tracing systems pass on; nil for nothing.
    public let state: String?

    /// Reads the trace of a call.
    ///
    /// A malformed or repeated `traceparent` starts a trace that is not sampled, and `tracestate` is dropped with it.
    ///
    /// - Parameters:
    ///   - parents: The values of the call's `traceparent` fields.
    ///   - states: Returns the values of its `tracestate` fields, if they are needed.
    /// - Returns: The call's span; nil if it carries no trace.
    public static func begin(parents: [String], states: () -> [String]) -> TraceContext? {
        guard let first = parents.first else { return nil }
        guard parents.count == 1, let parent = TraceParent(first) else {
            return TraceContext(traceID: .random(), parent: nil, isSampled: false, state: nil)
        }
        let state = parent.isSampled ? TraceState.joined(states()) : nil
        return TraceContext(
            traceID: parent.traceID,
            parent: parent.spanID,
            isSampled: parent.isSampled,
            state: state
        )
    }

    private init(traceID: TraceID, parent: SpanID?, isSampled: Bool, state: String?) {
        self.traceID = traceID
        self.parentSpanID = parent
        self.spanID = .random()
        self.isSampled = isSampled
        self.state = state
    }

    /// This span as a value of `traceparent` or `traceresponse`.
    public var parent: TraceParent {
        TraceParent(traceID: self.traceID, spanID: self.spanID, isSampled: self.isSampled)
    }

    /// Creates a child span.
    ///
    /// - Returns: A span of the same trace, with a new id.
    public func child() -> TraceContext {
        TraceContext(traceID: self.traceID, parent: self.spanID, isSampled: self.isSampled, state: self.state)
    }

    /// Metadata for log lines about this span.
    ///
    /// The keys are those of OpenTelemetry's "Trace Context in non-OTLP Log Formats"
    /// (https://opentelemetry.io/docs/specs/otel/compatibility/logging_trace_context/).
    public var logMetadata: Logger.Metadata {
        var metadata: Logger.Metadata = ["trace_id": "\(self.traceID)", "span_id": "\(self.spanID)"]
        if let parent = self.parentSpanID { metadata["parent_span_id"] = "\(parent)" }
        return metadata
    }
}
