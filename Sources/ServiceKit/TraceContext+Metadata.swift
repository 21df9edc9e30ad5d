// SPDX-License-Identifier: Apache-2.0

public import RPCCore
public import Telemetry

extension TraceContext {
    /// The span of a call with this metadata; nil if it carries no trace.
    ///
    /// - Parameter metadata: The call's metadata.
    /// - Returns: A child of the caller's span, or the start of a new trace if the caller's field is malformed.
    public static func begin(_ metadata: Metadata) -> TraceContext? {
        guard !metadata.isEmpty else { return nil }
        return Self.begin(parents: metadata[text: Self.parentKey], states: { metadata[text: Self.stateKey] })
    }
}

extension Metadata {
    /// The metadata of a call on behalf of some work.
    ///
    /// - Parameter work: The work that the call is.
    public init(carrying work: TraceContext) {
        self.init()
        // Both are printable ASCII under constant keys, so they are legal metadata.
        try? self.add(work.parent.description, forKey: TraceContext.parentKey)
        if let state = work.state { try? self.add(state, forKey: TraceContext.stateKey) }
    }
}
