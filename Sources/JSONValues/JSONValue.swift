// SPDX-License-Identifier: Apache-2.0

/// Any JSON value, with numbers and booleans kept apart.
package enum JSONValue: Sendable, Equatable {
    case null
    case bool(Bool)
    case integer(Int)
    case number(Double)
    case string(String)
    case array([JSONValue])
    case object([String: JSONValue])

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

/// What is wrong with a JSON text that is not a file's, for people.
package struct JSONFault: JSONFailure {
    /// What was found, and where: `a trailing comma at byte 12`.
    package var message: String

    /// Describes a fault.
    ///
    /// - Parameter message: What was found, and where.
    package init(message: String) { self.message = message }

    package static func malformed(_ found: String, at position: Int, in file: String) -> JSONFault {
        JSONFault(message: "\(found) at byte \(position)")
    }

    package static func tooManyValues(_ limit: Int, at position: Int, in file: String) -> JSONFault {
        JSONFault(message: "more than \(limit) values by byte \(position)")
    }
}

/// JSON texts as a whole.
package enum JSONText {
    /// Reads a text that is one value.
    ///
    /// - Parameters:
    ///   - bytes: The text.
    ///   - dialect: Whose rules apply.
    ///   - maxValues: The most values, those inside others included.
    ///   - refuseDuplicates: Whether two equal keys of an object are an error; otherwise the last counts.
    /// - Returns: The value.
    /// - Throws: ``JSONFault``.
    package static func value(
        _ bytes: UnsafeRawBufferPointer,
        dialect: JSONScanner<JSONFault>.Dialect,
        maxValues: Int,
        refuseDuplicates: Bool = false
    ) throws(JSONFault) -> JSONValue {
        if let encoding = self.otherEncoding(bytes) { throw JSONFault(message: encoding) }
        var scanner = JSONScanner<JSONFault>(bytes, file: "", dialect: dialect, maxValues: maxValues)
        let value = try scanner.value(refuseDuplicates: refuseDuplicates)
        try scanner.end()
        return value
    }

    /// Says what a text is that begins with a byte order mark or is UTF-16 or UTF-32: Python and serde read UTF-8 alone.
    ///
    /// - Parameter bytes: The text.
    /// - Returns: The encoding for people; nil for what may be plain UTF-8.
    package static func otherEncoding(_ bytes: UnsafeRawBufferPointer) -> String? {
        if bytes.starts(with: [0xEF, 0xBB, 0xBF]) { return "UTF-8 with a byte order mark" }
        let isWide =
            bytes.starts(with: [0xFF, 0xFE]) || bytes.starts(with: [0xFE, 0xFF]) || bytes.prefix(2).contains(0)
        return isWide ? "UTF-16 or UTF-32" : nil
    }
}
