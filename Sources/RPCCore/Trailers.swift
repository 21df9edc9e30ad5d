// SPDX-License-Identifier: Apache-2.0

/// The header block that ends a call: its status and the server's last key-value pairs.
///
/// Source: https://github.com/grpc/grpc/blob/v1.51.1/doc/PROTOCOL-HTTP2.md (Trailers).
public struct Trailers: Sendable, Hashable {
    /// How the call ended.
    public var status: Status

    /// The server's last key-value pairs.
    public var metadata: Metadata

    /// The longest `grpc-message`, in bytes on the wire.
    ///
    /// Clients refuse header lists over their own limit, 8 KiB by default in gRPC's C core: a longer message would lose
    /// the status itself.
    static let messageLimitBytes = 4_096

    /// Creates trailers.
    ///
    /// - Parameters:
    ///   - status: How the call ended.
    ///   - metadata: The server's last key-value pairs.
    public init(status: Status, metadata: Metadata = Metadata()) {
        self.status = status
        self.metadata = metadata
    }

    /// The header block that a server sends after its messages.
    ///
    /// - Returns: The status, the message if there is one, and the metadata.
    public func fields() -> [HeaderField] {
        var fields: [HeaderField] = []
        self.append(to: &fields)
        return fields
    }

    /// The one header block of a response without messages.
    ///
    /// - Parameter acceptedEncodings: The encodings to announce, where the status is about an unknown one.
    /// - Returns: The head's fields and the trailers' in one block.
    public func trailersOnlyFields(acceptedEncodings: [String] = []) -> [HeaderField] {
        var fields = ResponseHead(acceptedEncodings: acceptedEncodings).fields()
        self.append(to: &fields)
        return fields
    }

    /// Reads a response's last header block; never fails, since a call must end somehow.
    ///
    /// - Parameters:
    ///   - fields: The header block, names in lower case.
    ///   - httpStatus: The HTTP status, if the block is also the response's first.
    /// - Returns: The status and the metadata. Without `grpc-status` the HTTP status decides, without either it is
    ///   `UNKNOWN`, as is a status that is not a number from 0 to 16. A binary value that is not base64 is dropped.
    public static func parse(_ fields: [HeaderField], httpStatus: Int? = nil) -> Trailers {
        var code: String?
        var message: String?
        var metadata = Metadata()
        for field in fields {
            switch field.name {
            case "grpc-status": code = field.value
            case "grpc-message": message = PercentEncoding.decode(field.value)
            default: try? metadata.addReceived(field)
            }
        }
        return Trailers(status: Self.status(code: code, message: message, httpStatus: httpStatus), metadata: metadata)
    }

    /// The status that the fields give.
    private static func status(code: String?, message: String?, httpStatus: Int?) -> Status {
        if let code {
            if let number = UInt8(code), let known = Status.Code(rawValue: number) {
                return Status(code: known, message: message ?? "")
            }
            let note = "the peer's grpc-status \"\(code.prefix(16))\" is not a status code"
            return Status(code: .unknown, message: message.map { "\($0) (\(note))" } ?? note)
        }
        if let httpStatus {
            return Status(
                code: HTTPStatusMapping.code(forHTTPStatus: httpStatus),
                message: message ?? "the response has the HTTP status \(httpStatus) and no grpc-status"
            )
        }
        return Status(code: .unknown, message: message ?? "the response's trailers have no grpc-status")
    }

    /// Adds the status, the message and the metadata.
    private func append(to fields: inout [HeaderField]) {
        fields.append(HeaderField("grpc-status", String(self.status.code.rawValue)))
        if !self.status.message.isEmpty {
            let message = PercentEncoding.encode(self.status.message, limitBytes: Self.messageLimitBytes)
            fields.append(HeaderField("grpc-message", message))
        }
        self.metadata.append(to: &fields)
    }
}
