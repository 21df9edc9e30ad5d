// SPDX-License-Identifier: Apache-2.0

/// The headers before a response's messages.
///
/// Source: https://github.com/grpc/grpc/blob/v1.51.1/doc/PROTOCOL-HTTP2.md (Responses).
public struct ResponseHead: Sendable, Hashable {
    /// The compression of messages whose flag is set; nil means none.
    public var encoding: String?

    /// The encodings that the server can read, `identity` aside.
    public var acceptedEncodings: [String]

    /// The server's own key-value pairs.
    public var metadata: Metadata

    /// Creates the headers of a response.
    ///
    /// - Parameters:
    ///   - encoding: The compression of messages whose flag is set.
    ///   - acceptedEncodings: The encodings that the server can read.
    ///   - metadata: The server's own key-value pairs.
    public init(encoding: String? = nil, acceptedEncodings: [String] = [], metadata: Metadata = Metadata()) {
        self.encoding = encoding
        self.acceptedEncodings = acceptedEncodings
        self.metadata = metadata
    }

    /// The header block that a server sends.
    ///
    /// - Returns: `:status` first, then the protocol's own fields, then the metadata.
    public func fields() -> [HeaderField] {
        var fields = [HeaderField(":status", "200"), HeaderField("content-type", ContentType.grpc)]
        if let encoding = self.encoding {
            fields.append(HeaderField("grpc-encoding", encoding))
        }
        if !self.acceptedEncodings.isEmpty {
            fields.append(HeaderField("grpc-accept-encoding", self.acceptedEncodings.joined(separator: ",")))
        }
        self.metadata.append(to: &fields)
        return fields
    }

    /// How a client reads a response's first header block.
    public enum Parsed: Sendable, Hashable {
        /// An interim response (1xx): wait for the next header block.
        case interim
        /// Messages follow, then trailers.
        case response(ResponseHead)
        /// The block ends the stream and holds the status.
        case trailersOnly(Trailers)
        /// Not gRPC, or malformed: the call has failed.
        case failed(Status)
    }

    /// Reads and checks a response's first header block.
    ///
    /// A block that ends the stream is trailers; without `grpc-status` the HTTP status decides. A block that does not
    /// is the head of a response if its status is 200 and its content type gRPC's; otherwise the HTTP status decides.
    ///
    /// - Parameters:
    ///   - fields: The header block, names in lower case.
    ///   - endStream: Whether the block ends the stream.
    /// - Returns: What the block is.
    public static func parse(_ fields: [HeaderField], endStream: Bool) -> Parsed {
        guard let text = fields.first(where: { $0.name == ":status" })?.value, let httpStatus = Int(text) else {
            return .failed(Status(code: .internal, message: "the response has no HTTP status"))
        }
        if (100..<200).contains(httpStatus) {
            return endStream
                ? .failed(
                    Status(code: .internal, message: "the stream ended with the interim HTTP status \(httpStatus)")
                )
                : .interim
        }
        if endStream {
            return .trailersOnly(Trailers.parse(fields, httpStatus: httpStatus))
        }
        let contentType = fields.first { $0.name == "content-type" }?.value
        guard httpStatus == 200 else {
            let code = HTTPStatusMapping.code(forHTTPStatus: httpStatus)
            return .failed(Status(code: code, message: "the response has the HTTP status \(httpStatus), not 200"))
        }
        guard let contentType, ContentType.isGRPC(contentType) else {
            let shown = contentType.map { "\"\($0.prefix(64))\"" } ?? "missing"
            return .failed(
                Status(code: .unknown, message: "the response's content type is \(shown), not \(ContentType.grpc)")
            )
        }
        var head = ResponseHead()
        for field in fields {
            switch field.name {
            case "grpc-encoding":
                head.encoding = field.value == "identity" ? nil : field.value
            case "grpc-accept-encoding":
                head.acceptedEncodings += EncodingList.parse(field.value).filter { $0 != "identity" }
            default:
                do throws(MetadataError) {
                    try head.metadata.addReceived(field)
                } catch {
                    return .failed(Status(code: .internal, message: error.description))
                }
            }
        }
        return .response(head)
    }
}
