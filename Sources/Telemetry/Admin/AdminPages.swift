// SPDX-License-Identifier: Apache-2.0

/// The answers of the admin port.
public struct AdminPages: Sendable {
    private let metrics: @Sendable () -> [UInt8]
    private let readiness: @Sendable () -> Readiness

    /// Creates the pages of a service.
    ///
    /// - Parameters:
    ///   - metrics: Writes the current metrics as Prometheus text.
    ///   - readiness: Says whether the service takes calls.
    public init(metrics: @escaping @Sendable () -> [UInt8], readiness: @escaping @Sendable () -> Readiness) {
        self.metrics = metrics
        self.readiness = readiness
    }

    /// Answers a request.
    func answer(_ request: AdminRequest) -> AdminResponse {
        switch request.route {
        case .metrics:
            return AdminResponse(status: 200, contentType: PrometheusText.contentType, body: self.metrics())
        case .live:
            return AdminResponse(status: 200, "ok")
        case .ready:
            let readiness = self.readiness()
            let lines = [readiness.isReady ? "ready" : "not ready"] + readiness.notes
            return AdminResponse(status: readiness.isReady ? 200 : 503, lines.joined(separator: "\n"))
        case .unknownPath:
            return AdminResponse(status: 404, "there is nothing here; ask for /metrics, /livez or /readyz")
        case .wrongMethod:
            var response = AdminResponse(status: 405, "only GET and HEAD are allowed")
            response.fields["allow"] = "GET, HEAD"
            return response
        case .tooLarge:
            return AdminResponse(status: 431, "the request is too large")
        case .malformed:
            return AdminResponse(status: 400, "this is not an HTTP/1.1 request")
        }
    }
}
