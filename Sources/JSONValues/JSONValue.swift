// SPDX-License-Identifier: Apache-2.0

internal import Foundation

/// Any JSON value, with numbers and booleans kept apart.
package enum JSONValue: Sendable, Equatable, Decodable {
    case null
    case bool(Bool)
    case integer(Int)
    case number(Double)
    case string(String)
    case array([JSONValue])
    case object([String: JSONValue])

    /// Reads a value; a number is an integer where it can be.
    ///
    /// - Parameter decoder: The decoder.
    /// - Throws: `DecodingError` for what is no JSON.
    package init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if container.decodeNil() {
            self = .null
        } else if let value = try? container.decode(Bool.self) {
            self = .bool(value)
        } else if let value = try? container.decode(Int.self) {
            self = .integer(value)
        } else if let value = try? container.decode(Double.self) {
            self = .number(value)
        } else if let value = try? container.decode(String.self) {
            self = PythonNumbers.number(value).map { .number($0) } ?? .string(value)
        } else if let value = try? container.decode([JSONValue].self) {
            self = .array(value)
        } else {
            self = .object(try container.decode([String: JSONValue].self))
        }
    }

    /// What the value is, for messages.
    package var kind: String {
        switch self {
        case .null: "null"
        case .bool(let value): "the boolean \(value)"
        case .integer(let value): "the integer \(value)"
        case .number(let value): "the number \(value)"
        case .string(let value): "the string \"\(value.prefix(80))\""
        case .array: "an array"
        case .object: "an object"
        }
    }
}

extension JSONValue {
    /// The number, whole or not; nil for anything else.
    package var double: Double? {
        switch self {
        case .integer(let value): Double(value)
        case .number(let value): value
        default: nil
        }
    }

    /// Whether Python takes the value for false: null, false, zero or empty.
    package var isFalse: Bool {
        switch self {
        case .null: true
        case .bool(let value): !value
        case .integer(let value): value == 0
        case .number(let value): value == 0
        case .string(let value): value.isEmpty
        case .array(let value): value.isEmpty
        case .object(let value): value.isEmpty
        }
    }
}

/// Reads JSON as Python's `json` does, with the numbers that it writes and JSON does not have.
package enum JSONText {
    /// Decodes a text.
    ///
    /// - Parameters:
    ///   - type: What to decode; a ``JSONValue`` in it may be `NaN`, `Infinity` or `-Infinity`.
    ///   - bytes: The text.
    /// - Returns: The value.
    /// - Throws: What `JSONDecoder` throws.
    package static func decode<T: Decodable>(_ type: T.Type, from bytes: UnsafeRawBufferPointer) throws -> T {
        try JSONDecoder().decode(type, from: PythonNumbers.escaped(bytes).map { Data($0) } ?? Data(bytes))
    }
}
