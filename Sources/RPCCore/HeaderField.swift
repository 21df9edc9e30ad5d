// SPDX-License-Identifier: Apache-2.0

/// One name-value pair of an HTTP/2 header block, pseudo-headers included.
public struct HeaderField: Sendable, Hashable, CustomStringConvertible {
    /// The name in lower case, as HTTP/2 requires.
    public var name: String

    /// The value.
    public var value: String

    /// Creates a pair.
    ///
    /// - Parameters:
    ///   - name: The name in lower case.
    ///   - value: The value.
    public init(_ name: String, _ value: String) {
        self.name = name
        self.value = value
    }

    /// What the field counts against a header list limit: name, value and 32 bytes (RFC 9113, section 6.5.2).
    public var countedBytes: Int { self.name.utf8.count + self.value.utf8.count + 32 }

    /// The name and the value.
    public var description: String { "\(self.name): \(self.value)" }
}

/// The content type of gRPC's requests and responses.
enum ContentType {
    /// What this package sends.
    static let grpc = "application/grpc"

    /// Whether a content type is gRPC: `application/grpc`, alone or followed by `+` or `;`.
    static func isGRPC(_ value: String) -> Bool {
        let bytes = value.utf8
        guard bytes.starts(with: Self.grpc.utf8) else {
            return false
        }
        let next = bytes.dropFirst(Self.grpc.utf8.count).first
        return next == nil || next == UInt8(ascii: "+") || next == UInt8(ascii: ";") || next == UInt8(ascii: " ")
    }
}

/// A comma-separated list of encodings.
enum EncodingList {
    /// The names in a header's value.
    ///
    /// Splitting at bytes is safe: no UTF-8 character contains the byte of a comma or a space.
    static func parse(_ value: String) -> [String] {
        value.utf8.split(separator: UInt8(ascii: ","))
            .compactMap {
                let name = $0.filter { $0 != UInt8(ascii: " ") }
                return name.isEmpty ? nil : String(decoding: name, as: UTF8.self)
            }
    }
}
