// SPDX-License-Identifier: Apache-2.0

internal import Logging
internal import RPCCore
internal import RPCTransport
internal import ServiceKit
internal import Telemetry

extension GatewayService {
    /// Runs a handler in its call's trace: returns the span to the caller and logs how the call ended.
    ///
    /// - Parameters:
    ///   - context: The call.
    ///   - body: The handler; gets the gateway's work in the trace, or nil for a call without one.
    /// - Returns: What the handler returns.
    /// - Throws: What the handler throws.
    func traced<Result>(
        _ context: ServerContext,
        _ body: (TraceContext?) async throws -> Result
    ) async throws -> Result {
        guard let trace = TraceContext.begin(context.metadata) else { return try await body(nil) }
        var metadata = Metadata()
        // Printable ASCII under a constant key is legal metadata.
        try? metadata.add(trace.parent.description, forKey: TraceContext.responseKey)
        context.setTrailing(metadata)
        let start = ContinuousClock.now
        do {
            let result = try await body(trace)
            self.log(trace, context, start: start, error: nil)
            return result
        } catch {
            self.log(trace, context, start: start, error: error)
            throw error
        }
    }

    private func log(
        _ trace: TraceContext,
        _ context: ServerContext,
        start: ContinuousClock.Instant,
        error: (any Error)?
    ) {
        let level: Logger.Level = trace.isSampled ? .info : .debug
        guard self.logger.logLevel <= level else { return }
        var metadata = trace.logMetadata
        metadata["method"] = "\(context.method.name)"
        metadata["time"] = "\(start.duration(to: .now))"
        if let error { metadata["error"] = "\(error)" }
        self.logger.log(level: level, "a traced request ended", metadata: metadata)
    }
}
