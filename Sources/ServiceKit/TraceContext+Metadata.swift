// SPDX-License-Identifier: Apache-2.0

public import RPCCore
public import Telemetry

extension TraceContext {
    /// The work of a call with this metadata; nil where it carries no trace.
    ///
    /// - Parameter metadata: What came with the call.
    /// - Returns: Work below the caller's, or at the beginning of a trace where the caller's field breaks the format.
    public static func begin(_ metadata: Metadata) -> TraceContext? {
        guard !metadata.isEmpty else { return nil }
        return Self.begin(parents: metadata[text: Self.parentKey], states: { metadata[text: Self.stateKey] })
    }
}

extension Metadata {
    /// What a call on behalf of some work carries.
    ///
    /// - Parameter work: The work that the call is.
    public init(carrying work: TraceContext) {
        self.init()
        // Both are printable ASCII under constant keys, so they are legal metadata.
        try? self.add(work.parent.description, forKey: TraceContext.parentKey)
        if let state = work.state { try? self.add(state, forKey: TraceContext.stateKey) }
    }
}
