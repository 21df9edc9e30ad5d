// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardProtos

/// The messages of the protocol as their descriptors tell them: what a JSON form of any of them follows from.
///
/// Source: https://github.com/protocolbuffers/protobuf/blob/v3.21.12/src/google/protobuf/descriptor.proto.
package struct MessageSchema: Sendable {
    /// What a field holds, as far as the protocol's messages have it.
    package enum Kind: Sendable, Equatable {
        case uint32, uint64, fixed64, float, bool, string, bytes
        case choice(String)
        case message(String)
    }

    /// A field of a message.
    package struct Field: Sendable {
        /// The number on the wire.
        package let number: UInt32
        /// The name in the `.proto` file.
        package let name: String
        /// What it holds.
        package let kind: Kind
        /// Whether it is repeated.
        package let isList: Bool
        /// The index of the oneof that it belongs to; nil for none.
        package let oneof: UInt64?
        /// The name in JSON by protobuf's mapping: `token_ids` becomes `tokenIds`.
        package let camelName: String

        fileprivate init(number: UInt32, name: String, kind: Kind, isList: Bool, oneof: UInt64?) {
            self.number = number
            self.name = name
            self.kind = kind
            self.isList = isList
            self.oneof = oneof
            self.camelName = Self.camelName(name)
        }

        private static func camelName(_ name: String) -> String {
            var result = ""
            var raisesNext = false
            for character in name {
                if character == "_" {
                    raisesNext = true
                } else {
                    result += raisesNext ? character.uppercased() : String(character)
                    raisesNext = false
                }
            }
            return result
        }
    }

    /// The fields of each message, ascending by number, by the message's full name.
    package private(set) var messages: [String: [Field]] = [:]

    /// Where in ``messages`` a message has the field that a key names, by the message's full name and by either name of the field.
    private(set) var places: [String: [String: Int]] = [:]

    /// The values of each enum by the enum's full name.
    package private(set) var choices: [String: [(name: String, number: UInt64)]] = [:]

    /// The protocol's own, read once.
    package static let shared = MessageSchema()

    private init() {
        self.visit(FileDescriptors.serializedSet[...]) { schema, number, file in
            guard number == 1 else { return }
            let package = Self.text(file, 2)
            schema.visit(file) { schema, number, part in
                if number == 4 { schema.addMessage(part, scope: package) }
                if number == 5 { schema.addChoice(part, scope: package) }
            }
        }
    }

    private mutating func visit(
        _ bytes: ArraySlice<UInt8>,
        _ body: (inout MessageSchema, UInt32, ArraySlice<UInt8>) -> Void
    ) {
        var reader = WireBytes(bytes)
        while let (number, value) = reader.field() {
            if case .bytes(let bytes) = value { body(&self, number, bytes) }
        }
    }

    private static func text(_ bytes: ArraySlice<UInt8>, _ wanted: UInt32) -> String {
        var reader = WireBytes(bytes)
        while let (number, value) = reader.field() {
            if number == wanted, case .bytes(let text) = value { return String(decoding: text, as: UTF8.self) }
        }
        return ""
    }

    private static func number(_ bytes: ArraySlice<UInt8>, _ wanted: UInt32) -> UInt64 {
        self.given(bytes, wanted) ?? 0
    }

    /// A number that may be left out.
    private static func given(_ bytes: ArraySlice<UInt8>, _ wanted: UInt32) -> UInt64? {
        var reader = WireBytes(bytes)
        while let (number, value) = reader.field() {
            if number == wanted, case .number(let found) = value { return found }
        }
        return nil
    }

    /// Messages inside messages need no care: this project's own have none.
    private mutating func addMessage(_ message: ArraySlice<UInt8>, scope: String) {
        var fields: [Field] = []
        self.visit(message) { _, number, field in
            guard number == 2, let kind = Self.kind(of: field) else { return }
            fields.append(
                Field(
                    number: UInt32(truncatingIfNeeded: Self.number(field, 3)),
                    name: Self.text(field, 1),
                    kind: kind,
                    isList: Self.number(field, 4) == 3,
                    oneof: Self.given(field, 9)
                )
            )
        }
        fields.sort { $0.number < $1.number }
        var places: [String: Int] = [:]
        for (place, field) in fields.enumerated() {
            places[field.name] = place
            places[field.camelName] = place
        }
        let name = "\(scope).\(Self.text(message, 1))"
        self.messages[name] = fields
        self.places[name] = places
    }

    private mutating func addChoice(_ choice: ArraySlice<UInt8>, scope: String) {
        var values: [(name: String, number: UInt64)] = []
        self.visit(choice) { _, number, value in
            if number == 2 { values.append((Self.text(value, 1), Self.number(value, 2))) }
        }
        self.choices["\(scope).\(Self.text(choice, 1))"] = values
    }

    private static func kind(of field: ArraySlice<UInt8>) -> Kind? {
        // Full names in descriptors begin with a dot.
        let type = String(Self.text(field, 6).dropFirst())
        switch Self.number(field, 5) {
        case 2: return .float
        case 4: return .uint64
        case 6: return .fixed64
        case 8: return .bool
        case 9: return .string
        case 11: return .message(type)
        case 12: return .bytes
        case 13: return .uint32
        case 14: return .choice(type)
        default: return nil
        }
    }
}
