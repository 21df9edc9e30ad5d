// SPDX-License-Identifier: Apache-2.0

internal import JSONValues

/// Reads what ``MessageJSONWriter`` wrote into a message's bytes, and refuses anything else by the field's name.
struct MessageJSONReader {
    /// Encodes a JSON value as a message.
    ///
    /// - Parameters:
    ///   - value: The value.
    ///   - message: The message's full name.
    ///   - path: The message's place in the file; empty for the whole.
    /// - Returns: The message in protobuf's encoding.
    /// - Throws: ``ReceiptError`` with the field that is unknown or of another type.
    static func bytes(_ value: JSONValue, message: String, path: String = "") throws(ReceiptError) -> [UInt8] {
        guard case .object(let members) = value else {
            throw ReceiptError(path, "is \(value.kind); it must be an object")
        }
        let fields = MessageSchema.shared.messages[message] ?? []
        if let unknown = members.keys.filter({ key in !fields.contains { $0.name == key } }).min() {
            throw ReceiptError(
                Self.join(path, String(unknown.prefix(80))),
                "is unknown; a receipt of version 1 has no such field"
            )
        }
        var bytes: [UInt8] = []
        for field in fields {
            guard let value = members[field.name] else { continue }
            try Self.append(value, field: field, path: Self.join(path, field.name), to: &bytes)
        }
        return bytes
    }

    private static func append(
        _ value: JSONValue,
        field: MessageSchema.Field,
        path: String,
        to bytes: inout [UInt8]
    ) throws(ReceiptError) {
        guard field.isList else {
            try Self.append(element: value, field: field, path: path, to: &bytes)
            return
        }
        guard case .array(let elements) = value else {
            throw ReceiptError(path, "is \(value.kind); it must be a list")
        }
        switch field.kind {
        case .message, .string, .bytes:
            for (index, element) in elements.enumerated() {
                try Self.append(element: element, field: field, path: "\(path)[\(index)]", to: &bytes)
            }
        default:
            var packed: [UInt8] = []
            for (index, element) in elements.enumerated() {
                try Self.append(
                    number: element,
                    kind: field.kind,
                    path: { "\(path)[\(index)]" },
                    to: &packed
                )
            }
            WireBytes.append(packed, field: field.number, to: &bytes)
        }
    }

    private static func append(
        element value: JSONValue,
        field: MessageSchema.Field,
        path: String,
        to bytes: inout [UInt8]
    ) throws(ReceiptError) {
        switch field.kind {
        case .message(let name):
            WireBytes.append(
                try Self.bytes(value, message: name, path: path),
                field: field.number,
                to: &bytes
            )
        case .string:
            guard case .string(let text) = value else {
                throw ReceiptError(path, "is \(value.kind); it must be a text")
            }
            WireBytes.append(text.utf8, field: field.number, to: &bytes)
        case .bytes:
            WireBytes.append(try Self.digest(value, path: path), field: field.number, to: &bytes)
        default:
            let type: UInt64 = field.kind == .float ? 5 : field.kind == .fixed64 ? 1 : 0
            WireBytes.append(varint: UInt64(field.number) << 3 | type, to: &bytes)
            try Self.append(number: value, kind: field.kind, path: { path }, to: &bytes)
        }
    }

    private static func digest(_ value: JSONValue, path: String) throws(ReceiptError) -> [UInt8] {
        guard case .string(let text) = value, text.utf8.count % 2 == 0, text.utf8.count <= 1 << 20 else {
            throw ReceiptError(path, "is \(value.kind); it must be hexadecimal digits, two for each byte")
        }
        let digits = text.utf8.compactMap { Character(UnicodeScalar($0)).hexDigitValue }
        guard digits.count == text.utf8.count else {
            throw ReceiptError(path, "is \(value.kind); it must be hexadecimal digits, two for each byte")
        }
        return stride(from: 0, to: digits.count, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
    }

    private static func append(
        number value: JSONValue,
        kind: MessageSchema.Kind,
        path: () -> String,
        to bytes: inout [UInt8]
    ) throws(ReceiptError) {
        switch (kind, value) {
        case (.uint32, .integer(let number)) where UInt32(exactly: number) != nil:
            WireBytes.append(varint: UInt64(number), to: &bytes)
        case (.bool, .bool(let flag)):
            bytes.append(flag ? 1 : 0)
        case (.uint64, .string(let text)), (.fixed64, .string(let text)):
            guard let number = UInt64(text) else {
                throw ReceiptError(path(), "is \(value.kind); it must be a whole number of 64 bits in quotes")
            }
            if kind == .uint64 {
                WireBytes.append(varint: number, to: &bytes)
            } else {
                WireBytes.append(fixed: number, count: 8, to: &bytes)
            }
        case (.float, _):
            guard let number = Self.float(value) else {
                throw ReceiptError(path(), "is \(value.kind); it must be a number, or Infinity or NaN in quotes")
            }
            WireBytes.append(fixed: UInt64(number.bitPattern), count: 4, to: &bytes)
        case (.choice(let name), .string(let text)):
            let values = MessageSchema.shared.choices[name] ?? []
            guard let found = values.first(where: { $0.name == text }) else {
                throw ReceiptError(
                    path(),
                    "is \(value.kind); it must be one of \(values.map(\.name).joined(separator: ", "))"
                )
            }
            WireBytes.append(varint: found.number, to: &bytes)
        default:
            throw ReceiptError(path(), "is \(value.kind); it must be \(Self.words(kind))")
        }
    }

    private static func float(_ value: JSONValue) -> Float? {
        switch value {
        case .string("NaN"): .nan
        case .string("Infinity"): .infinity
        case .string("-Infinity"): -.infinity
        default: value.double.map { Float($0) }
        }
    }

    private static func words(_ kind: MessageSchema.Kind) -> String {
        switch kind {
        case .uint32: "a whole number of 32 bits"
        case .uint64, .fixed64: "a whole number of 64 bits in quotes"
        case .bool: "true or false"
        default: "a name"
        }
    }

    static func join(_ path: String, _ name: String) -> String { path.isEmpty ? name : "\(path).\(name)" }
}
