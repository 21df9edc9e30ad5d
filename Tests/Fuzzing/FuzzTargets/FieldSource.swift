// SPDX-License-Identifier: Apache-2.0

import RPCCore

extension ByteSource {
    private static let names = [
        ":method", ":scheme", ":path", ":authority", ":status", "host", "te", "content-type", "user-agent",
        "grpc-timeout", "grpc-encoding", "grpc-accept-encoding", "grpc-status", "grpc-message", "grpc-tags-bin",
        "x-text", "x-data-bin", "content-length", "connection", "grpc-previous-rpc-attempts",
        "grpc-retry-pushback-ms", "",
    ]

    private static let values = [
        "POST", "GET", "http", "/switchyard.v1.Gateway/Generate", "/a/b/c", "//", "200", "100", "503", "trailers",
        "application/grpc", "application/grpc+proto", "application/grpcx", "text/html", "gzip", "identity",
        "gzip, identity,deflate", "1S", "99999999H", "000001n", "0", "16", "17", "-1", "5m", "%41%zz%", "AAA=",
        "AA,BB,",
        " padded ", "localhost:7400", "",
    ]

    /// A name or a value: one of those that mean something, or any bytes.
    mutating func text(_ known: [String]) -> String {
        let index = Int(self.byte())
        if index < 200 { return known[index % known.count] }
        return String(decoding: self.take(Int(self.byte()) & 63), as: UTF8.self)
    }

    /// A header field.
    mutating func field() -> HeaderField {
        HeaderField(self.text(Self.names), self.text(Self.values))
    }

    /// A header block that is gRPC's more often than chance would have it.
    mutating func requestBlock() -> [HeaderField] {
        var fields: [HeaderField] = []
        if self.byte() < 220 {
            fields = [
                HeaderField(":method", "POST"), HeaderField(":scheme", "http"), HeaderField(":path", "/s.S/M"),
                HeaderField("te", "trailers"), HeaderField("content-type", "application/grpc"),
            ]
        }
        for _ in 0..<self.number(below: 8) { fields.append(self.field()) }
        return fields
    }

    /// A response's header block that is gRPC's more often than chance would have it.
    mutating func responseBlock() -> [HeaderField] {
        var fields: [HeaderField] = []
        if self.byte() < 220 {
            fields = [HeaderField(":status", "200"), HeaderField("content-type", "application/grpc")]
        }
        for _ in 0..<self.number(below: 8) { fields.append(self.field()) }
        return fields
    }

    /// A status with any message.
    mutating func status() -> Status {
        let code = Status.Code(rawValue: self.byte() % 17) ?? .ok
        return Status(code: code, message: String(decoding: self.piece(), as: UTF8.self))
    }

    /// Metadata as a caller or a handler could have made it: what the API refuses is left out.
    mutating func metadata() -> Metadata {
        var metadata = Metadata()
        for _ in 0..<self.number(below: 4) {
            let key = self.text(Self.names)
            do throws(MetadataError) {
                if Metadata.isBinaryKey(key) {
                    try metadata.add(binary: self.piece(), forKey: key)
                } else {
                    try metadata.add(self.text(Self.values), forKey: key)
                }
            } catch {
                continue
            }
        }
        return metadata
    }
}

/// Checks that header fields of our own making are ones that HTTP/2 can carry (RFC 9113, section 8.2.1).
func expectSendable(_ fields: [HeaderField]) throws(FuzzFinding) {
    for field in fields {
        let name = field.name.utf8
        let nameIsLegal = !name.isEmpty && name.allSatisfy { $0 > 0x20 && $0 < 0x7f && !(0x41...0x5a).contains($0) }
        try expect(nameIsLegal, "a field's name can be sent", field.description)
        let value = field.value.utf8
        let valueIsLegal = value.allSatisfy { $0 != 0 && $0 != 0x0a && $0 != 0x0d }
        let endsAreLegal = ![0x20, 0x09].contains(value.first ?? 0) && ![0x20, 0x09].contains(value.last ?? 0)
        try expect(valueIsLegal && endsAreLegal, "a field's value can be sent", field.description)
    }
}
