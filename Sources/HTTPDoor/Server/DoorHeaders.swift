// SPDX-License-Identifier: Apache-2.0

internal import HTTPTypes
internal import RPCCore
internal import Telemetry

/// The fields of heads that the door reads and writes.
enum DoorHeaders {
    static let retryMilliseconds = Self.name("retry-after-ms")
    static let timeout = Self.name("switchyard-timeout-ms")
    static let contentSecurityPolicy = Self.name("content-security-policy")
    static let referrerPolicy = Self.name("referrer-policy")
    static let traceResponse = Self.name(TraceContext.responseKey)
    static let traceParent = Self.name(TraceContext.parentKey)
    static let traceState = Self.name(TraceContext.stateKey)
    static let inferenceLength = Self.name("inference-header-content-length")
    private static let contentTypeOptions = Self.name("x-content-type-options")

    /// A field's name; all of these are well-formed.
    private static func name(_ text: String) -> HTTPField.Name { HTTPField.Name(text) ?? .accept }

    /// The fields of every answer.
    static func common(_ type: String) -> HTTPFields {
        [.contentType: type, .cacheControl: "no-store", Self.contentTypeOptions: "nosniff"]
    }

    /// The time that a client says it waits.
    ///
    /// - Throws: ``DoorFault`` for what is no time.
    static func deadline(_ fields: HTTPFields) throws(DoorFault) -> ContinuousClock.Instant? {
        guard let text = fields[Self.timeout] else { return nil }
        guard let milliseconds = Int(text), (1...86_400_000).contains(milliseconds) else {
            throw DoorFault(
                400,
                .invalidArgument,
                "the header \(Self.timeout) is \"\(text.prefix(80))\"; it must be whole milliseconds from 1 to 86400000"
            )
        }
        return .now.advanced(by: .milliseconds(milliseconds))
    }

    /// Whether a body's type is one that its address takes, and nothing has to be unpacked.
    ///
    /// Clients of the Open Inference Protocol send tensors as bytes after the JSON, and NVIDIA's names no type at all. A browser
    /// names the page's origin with whatever a page sends to another one.
    ///
    /// - Throws: ``DoorFault`` for another one: a form of any web page could send such a body unasked.
    static func checkType(_ fields: HTTPFields, _ action: DoorAction) throws(DoorFault) {
        if let encoding = fields[.contentEncoding], encoding.lowercased() != "identity" {
            let words =
                "the header content-encoding is \"\(encoding.prefix(80))\"; send the body as it is, without the header"
            throw DoorFault(415, .invalidArgument, words)
        }
        let given = fields[.contentType]
        if given == "application/json" { return }
        let type = (given ?? "").prefix { $0 != ";" }.filter { $0 != " " }.lowercased()
        guard type != "application/json" else { return }
        let isInfer = action == .infer
        if isInfer, type == "application/octet-stream" || (type.isEmpty && fields[.origin] == nil) { return }
        let words = type.isEmpty ? "missing" : "\"\(type.prefix(80))\""
        let allowed = isInfer ? "application/json or application/octet-stream" : "application/json"
        throw DoorFault(415, .invalidArgument, "the header content-type is \(words); it must be \(allowed)")
    }

    /// What a fault adds to the head.
    static func add(_ fault: DoorFault, to fields: inout HTTPFields) {
        if fault.status == 401 { fields[.wwwAuthenticate] = "Bearer" }
        guard let milliseconds = fault.retryMilliseconds else { return }
        fields[.retryAfter] = "\(max(1, (milliseconds + 999) / 1_000))"
        fields[Self.retryMilliseconds] = "\(milliseconds)"
    }
}

/// Which pages of other origins may call (https://fetch.spec.whatwg.org/#http-cors-protocol).
struct CrossOrigin: Sendable {
    /// The origins; `*` is every one.
    let origins: [String]

    /// What a request of a page gets in the head of its answer; empty for one that may not read it.
    func fields(for request: HTTPFields) -> HTTPFields {
        guard !self.origins.isEmpty, let origin = request[.origin] else { return [:] }
        if self.origins.contains("*") { return [.accessControlAllowOrigin: "*"] }
        guard self.origins.contains(origin) else { return [.vary: "origin"] }
        return [.accessControlAllowOrigin: origin, .vary: "origin"]
    }

    /// The head that answers a browser's question whether a page may call; nil if this is none, or if it may not.
    func preflight(_ request: HTTPRequest) -> HTTPResponse? {
        guard request.method == .options, let wanted = request.headerFields[.accessControlRequestMethod] else {
            return nil
        }
        var fields = self.fields(for: request.headerFields)
        guard fields[.accessControlAllowOrigin] != nil, ["GET", "HEAD", "POST"].contains(wanted) else { return nil }
        fields[.accessControlAllowMethods] = "GET, HEAD, POST"
        fields[.accessControlAllowHeaders] =
            "authorization, content-type, inference-header-content-length, switchyard-timeout-ms, traceparent, tracestate"
        fields[.accessControlMaxAge] = "600"
        return HTTPResponse(status: .noContent, headerFields: fields)
    }
}
