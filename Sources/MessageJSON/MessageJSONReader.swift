// SPDX-License-Identifier: Apache-2.0

package import JSONValues
internal import RPCCore

/// Reads a JSON value into a message's bytes, and refuses by the field's name what the form does not allow.
package struct MessageJSONReader {
    private let form: MessageJSONForm
    private let unknown: String

    /// Encodes a JSON value as a message.
    ///
    /// - Parameters:
    ///   - value: The value.
    ///   - message: The message's full name.
    ///   - form: The form of the text.
    ///   - path: The message's place in the text; empty for the whole.
    ///   - unknown: What is said of a field that the message does not have.
    /// - Returns: The message in protobuf's encoding.
    /// - Throws: ``MessageJSONError`` with the field that is unknown, given twice or of another type.
    package static func bytes(
        _ value: JSONValue,
        message: String,
        form: MessageJSONForm,
        path: String = "",
        unknown: String = "is unknown; there is no such field"
    ) throws(MessageJSONError) -> [UInt8] {
        try MessageJSONReader(form: form, unknown: unknown).bytes(value, message: message, path: path)
    }

    private func bytes(_ value: JSONValue, message: String, path: String) throws(MessageJSONError) -> [UInt8] {
        guard case .object(let members) = value else {
            throw MessageJSONError(path, "is \(value.kind); it must be an object")
        }
        let fields = MessageSchema.shared.messages[message] ?? []
        var bytes: [UInt8] = []
        var chosen: [UInt64: String] = [:]
        var last: (place: Int, key: String)?
        for (place, key, value) in try self.sorted(members, message: message, path: path) {
            if let last, last.place == place {
                throw MessageJSONError(Self.join(path, key), "is set beside \(last.key), which is the same field")
            }
            last = (place, key)
            let field = fields[place]
            if let oneof = field.oneof {
                if let other = chosen[oneof] {
                    throw MessageJSONError(Self.join(path, key), "is set beside \(other); set only one of them")
                }
                chosen[oneof] = key
            }
            try self.append(value, field: field, path: Self.join(path, key), to: &bytes)
        }
        return bytes
    }

    /// The members of an object that set a field, in the order of the message's fields.
    ///
    /// - Throws: ``MessageJSONError`` for a key that names no field; of several, the first by name.
    private func sorted(
        _ members: [String: JSONValue],
        message: String,
        path: String
    ) throws(MessageJSONError) -> [(place: Int, key: String, value: JSONValue)] {
        let fields = MessageSchema.shared.messages[message] ?? []
        let places = MessageSchema.shared.places[message] ?? [:]
        var found: [(place: Int, key: String, value: JSONValue)] = []
        found.reserveCapacity(members.count)
        var unknown: String?
        for (key, value) in members {
            guard let place = places[key], self.form.accepts(key, for: fields[place]) else {
                unknown = min(unknown ?? key, key)
                continue
            }
            // By the mapping, null stands for what is left out.
            if self.form == .mapping, case .null = value { continue }
            found.append((place, key, value))
        }
        if let unknown { throw MessageJSONError(Self.join(path, String(unknown.prefix(80))), self.unknown) }
        return found.sorted { ($0.place, $0.key) < ($1.place, $1.key) }
    }

    private func append(
        _ value: JSONValue,
        field: MessageSchema.Field,
        path: String,
        to bytes: inout [UInt8]
    ) throws(MessageJSONError) {
        guard field.isList else {
            try self.append(element: value, field: field, path: path, to: &bytes)
            return
        }
        guard case .array(let elements) = value else {
            throw MessageJSONError(path, "is \(value.kind); it must be a list")
        }
        switch field.kind {
        case .message, .string, .bytes:
            for (index, element) in elements.enumerated() {
                try self.append(element: element, field: field, path: "\(path)[\(index)]", to: &bytes)
            }
        default:
            var packed: [UInt8] = []
            for (index, element) in elements.enumerated() {
                try self.append(
                    number: element,
                    kind: field.kind,
                    path: { "\(path)[\(index)]" },
                    to: &packed
                )
            }
            WireBytes.append(packed, field: field.number, to: &bytes)
        }
    }

    private func append(
        element value: JSONValue,
        field: MessageSchema.Field,
        path: String,
        to bytes: inout [UInt8]
    ) throws(MessageJSONError) {
        switch field.kind {
        case .message(let name):
            WireBytes.append(
                try self.bytes(value, message: name, path: path),
                field: field.number,
                to: &bytes
            )
        case .string:
            guard case .string(let text) = value else {
                throw MessageJSONError(path, "is \(value.kind); it must be a text")
            }
            WireBytes.append(text.utf8, field: field.number, to: &bytes)
        case .bytes:
            WireBytes.append(try self.blob(value, path: path), field: field.number, to: &bytes)
        default:
            let type: UInt64 = field.kind == .float ? 5 : field.kind == .fixed64 ? 1 : 0
            WireBytes.append(varint: UInt64(field.number) << 3 | type, to: &bytes)
            try self.append(number: value, kind: field.kind, path: { path }, to: &bytes)
        }
    }

    private func blob(_ value: JSONValue, path: String) throws(MessageJSONError) -> [UInt8] {
        guard self.form == .mapping else { return try Self.digest(value, path: path) }
        // The mapping allows the alphabet for addresses too.
        guard case .string(let text) = value,
            let bytes = Base64.decode(text.replacing("-", with: "+").replacing("_", with: "/"))
        else { throw MessageJSONError(path, "is \(value.kind); it must be base64") }
        return bytes
    }

    private static func digest(_ value: JSONValue, path: String) throws(MessageJSONError) -> [UInt8] {
        guard case .string(let text) = value, text.utf8.count % 2 == 0, text.utf8.count <= 1 << 20 else {
            throw MessageJSONError(path, "is \(value.kind); it must be hexadecimal digits, two for each byte")
        }
        let digits = text.utf8.compactMap { Character(UnicodeScalar($0)).hexDigitValue }
        guard digits.count == text.utf8.count else {
            throw MessageJSONError(path, "is \(value.kind); it must be hexadecimal digits, two for each byte")
        }
        return stride(from: 0, to: digits.count, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
    }

    private func append(
        number value: JSONValue,
        kind: MessageSchema.Kind,
        path: () -> String,
        to bytes: inout [UInt8]
    ) throws(MessageJSONError) {
        let value = self.form == .mapping ? Self.plain(value, kind) : value
        switch (kind, value) {
        case (.uint32, .integer(let number)) where UInt32(exactly: number) != nil:
            WireBytes.append(varint: UInt64(number), to: &bytes)
        case (.bool, .bool(let flag)):
            bytes.append(flag ? 1 : 0)
        case (.uint64, .string(let text)), (.fixed64, .string(let text)):
            guard let number = UInt64(text) else {
                throw MessageJSONError(path(), "is \(value.kind); it must be a whole number of 64 bits in quotes")
            }
            if kind == .uint64 {
                WireBytes.append(varint: number, to: &bytes)
            } else {
                WireBytes.append(fixed: number, count: 8, to: &bytes)
            }
        case (.float, _):
            guard let number = Self.float(value), self.form == .file || Self.fits(number, value) else {
                throw MessageJSONError(path(), "is \(value.kind); it must be a number, or Infinity or NaN in quotes")
            }
            WireBytes.append(fixed: UInt64(number.bitPattern), count: 4, to: &bytes)
        case (.choice(let name), .string(let text)):
            let values = MessageSchema.shared.choices[name] ?? []
            guard let found = values.first(where: { $0.name == text }) else {
                throw MessageJSONError(
                    path(),
                    "is \(value.kind); it must be one of \(values.map(\.name).joined(separator: ", "))"
                )
            }
            WireBytes.append(varint: found.number, to: &bytes)
        default:
            throw MessageJSONError(path(), "is \(value.kind); it must be \(Self.words(kind))")
        }
    }

    /// A number in the one form that is read below: the mapping allows quotes, exponents, and an enum's number.
    private static func plain(_ value: JSONValue, _ kind: MessageSchema.Kind) -> JSONValue {
        switch (kind, value) {
        case (.uint32, .string(let text)): return Int(text).map { .integer($0) } ?? value
        case (.uint32, .number(let number)): return Int(exactly: number).map { .integer($0) } ?? value
        case (.uint64, .integer(let number)), (.fixed64, .integer(let number)):
            return number >= 0 ? .string("\(number)") : value
        case (.uint64, .number(let number)), (.fixed64, .number(let number)):
            return UInt64(exactly: number).map { .string("\($0)") } ?? value
        case (.float, .string(let text)) where !["NaN", "Infinity", "-Infinity"].contains(text):
            guard text.utf8.allSatisfy({ Self.numberCharacters.contains($0) }) else { return value }
            return Double(text).map { .number($0) } ?? value
        case (.choice(let name), .integer(let number)):
            let found = MessageSchema.shared.choices[name]?.first { $0.number == UInt64(clamping: number) }
            return number >= 0 ? found.map { .string($0.name) } ?? value : value
        default: return value
        }
    }

    private static let numberCharacters = Set("0123456789+-.eE".utf8)

    /// Whether a number that is given as digits is one that a float holds.
    private static func fits(_ number: Float, _ value: JSONValue) -> Bool { value.double == nil || number.isFinite }

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

    /// The place of a member.
    package static func join(_ path: String, _ name: String) -> String { path.isEmpty ? name : "\(path).\(name)" }
}
