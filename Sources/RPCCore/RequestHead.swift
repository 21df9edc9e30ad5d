// SPDX-License-Identifier: Apache-2.0

/// The headers of a call's request.
///
/// Source: https://github.com/grpc/grpc/blob/v1.51.1/doc/PROTOCOL-HTTP2.md (Requests).
public struct RequestHead: Sendable, Hashable {
    /// The called method.
    public var method: Method

    /// `http` or `https`.
    public var scheme: String

    /// The host and port that the client addressed; may be empty.
    public var authority: String

    /// The time that the client gives the call; nil means unlimited.
    public var timeout: Timeout?

    /// The compression of messages whose flag is set; nil means none.
    public var encoding: String?

    /// The encodings that the client can read, `identity` aside.
    public var acceptedEncodings: [String]

    /// What the client calls itself.
    public var userAgent: String?

    /// Whether the client announced that it reads trailers, with `te: trailers`.
    ///
    /// A request without it passed through something that may lose trailers.
    public var announcesTrailers: Bool

    /// The caller's own key-value pairs.
    public var metadata: Metadata

    /// Creates the headers of a request.
    ///
    /// - Parameters:
    ///   - method: The called method.
    ///   - scheme: `http` or `https`.
    ///   - authority: The host and port of the server.
    ///   - timeout: The time that the call may take.
    ///   - encoding: The compression of messages whose flag is set.
    ///   - acceptedEncodings: The encodings that the client can read.
    ///   - userAgent: What the client calls itself.
    ///   - metadata: The caller's own key-value pairs.
    public init(
        method: Method,
        scheme: String = "http",
        authority: String,
        timeout: Timeout? = nil,
        encoding: String? = nil,
        acceptedEncodings: [String] = [],
        userAgent: String? = nil,
        metadata: Metadata = Metadata()
    ) {
        self.method = method
        self.scheme = scheme
        self.authority = authority
        self.timeout = timeout
        self.encoding = encoding
        self.acceptedEncodings = acceptedEncodings
        self.userAgent = userAgent
        self.announcesTrailers = true
        self.metadata = metadata
    }

    /// The header block that a client sends.
    ///
    /// - Returns: Pseudo-headers first, then the protocol's own fields, then the metadata.
    public func fields() -> [HeaderField] {
        var fields: [HeaderField] = []
        fields.reserveCapacity(10 + self.metadata.count)
        fields.append(HeaderField(":method", "POST"))
        fields.append(HeaderField(":scheme", self.scheme))
        fields.append(HeaderField(":path", self.method.path))
        fields.append(HeaderField(":authority", self.authority))
        if let timeout = self.timeout {
            fields.append(HeaderField("grpc-timeout", timeout.description))
        }
        fields.append(HeaderField("te", "trailers"))
        fields.append(HeaderField("content-type", ContentType.grpc))
        if let encoding = self.encoding {
            fields.append(HeaderField("grpc-encoding", encoding))
        }
        if !self.acceptedEncodings.isEmpty {
            fields.append(HeaderField("grpc-accept-encoding", self.acceptedEncodings.joined(separator: ",")))
        }
        if let userAgent = self.userAgent {
            fields.append(HeaderField("user-agent", userAgent))
        }
        self.metadata.append(to: &fields)
        return fields
    }

    /// How a server reads a request's header block.
    public enum Parsed: Sendable, Hashable {
        /// A call.
        case call(RequestHead)
        /// Not gRPC: answer with this header block and `END_STREAM`.
        case notGRPC([HeaderField])
        /// Malformed gRPC: answer with only this status.
        case refused(Status)
    }

    /// Reads and checks a request's header block.
    ///
    /// Any method but `POST` is answered with HTTP 405, any content type but `application/grpc` with HTTP 415. A path
    /// that names no method is `UNIMPLEMENTED`, a timeout or a binary value that cannot be read `INTERNAL`. Fields that
    /// gRPC does not allow are dropped.
    ///
    /// - Parameter fields: The header block, names in lower case.
    /// - Returns: The call, or how to reject it.
    public static func parse(_ fields: [HeaderField]) -> Parsed {
        var head = RequestHead(method: Method(service: "", name: ""), scheme: "", authority: "")
        head.announcesTrailers = false
        var httpMethod = ""
        var path = ""
        var contentType = ""
        var refusal: Status?
        for field in fields {
            switch field.name {
            case ":method": httpMethod = field.value
            case ":path": path = field.value
            case "content-type": contentType = field.value
            default:
                do throws(RPCError) {
                    try head.read(field)
                } catch {
                    refusal = refusal ?? error.status
                }
            }
        }
        // First decide whether this is gRPC at all, whatever else is wrong.
        if let fault = Self.fault(httpMethod: httpMethod, contentType: contentType) {
            return fault
        }
        if let refusal {
            return .refused(refusal)
        }
        guard let method = Method(path: path) else {
            let shown = path.prefix(128)
            return .refused(
                Status(code: .unimplemented, message: "path \"\(shown)\" names no method; use /service/method")
            )
        }
        head.method = method
        return .call(head)
    }

    /// Reads a field that does not decide whether this is gRPC.
    private mutating func read(_ field: HeaderField) throws(RPCError) {
        switch field.name {
        case ":scheme":
            self.scheme = field.value
        case ":authority":
            self.authority = field.value
        case "host":
            if self.authority.isEmpty {
                self.authority = field.value
            }
        case "te":
            self.announcesTrailers = field.value == "trailers"
        case "grpc-timeout":
            do throws(TimeoutError) {
                self.timeout = try Timeout(parsing: field.value)
            } catch {
                throw RPCError(.internal, error.description)
            }
        case "grpc-encoding":
            self.encoding = field.value == "identity" ? nil : field.value
        case "grpc-accept-encoding":
            self.acceptedEncodings += EncodingList.parse(field.value).filter { $0 != "identity" }
        case "user-agent":
            self.userAgent = field.value
        default:
            do throws(MetadataError) {
                try self.metadata.addReceived(field)
            } catch {
                throw RPCError(.internal, error.description)
            }
        }
    }

    /// The answer to a request that is not gRPC.
    private static func fault(httpMethod: String, contentType: String) -> Parsed? {
        if httpMethod != "POST" {
            return .notGRPC([HeaderField(":status", "405"), HeaderField("allow", "POST")])
        }
        if !ContentType.isGRPC(contentType) {
            return .notGRPC([HeaderField(":status", "415"), HeaderField("accept", ContentType.grpc)])
        }
        return nil
    }
}
