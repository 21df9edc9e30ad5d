// SPDX-License-Identifier: Apache-2.0

internal import Foundation

/// A JSON value of a tokenizer's settings, whose fields can be of several types.
enum JSON: Decodable, Sendable {
    case null
    case bool(Bool)
    case number(Double)
    case string(String)
    case array([JSON])
    case object([String: JSON])

    init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if container.decodeNil() {
            self = .null
        } else if let value = try? container.decode(Bool.self) {
            self = .bool(value)
        } else if let value = try? container.decode(Double.self) {
            self = .number(value)
        } else if let value = try? container.decode(String.self) {
            self = .string(value)
        } else if let value = try? container.decode([JSON].self) {
            self = .array(value)
        } else {
            self = .object(try container.decode([String: JSON].self))
        }
    }

    /// Whether Python takes the value for false.
    var isFalse: Bool {
        switch self {
        case .null: true
        case .bool(let value): !value
        case .number(let value): value == 0
        case .string(let value): value.isEmpty
        case .array(let value): value.isEmpty
        case .object(let value): value.isEmpty
        }
    }

    /// A value for people, at most about a line of it.
    ///
    /// - Parameter value: The value; nil where there is none.
    /// - Returns: The value in short.
    static func text(_ value: JSON?) -> String {
        switch value {
        case nil: "missing"
        case .null: "null"
        case .bool(let value): "\(value)"
        case .number(let value): Int(exactly: value).map { "\($0)" } ?? "\(value)"
        case .string(let value): "\"\(value.prefix(60))\""
        case .array(let values): "an array of \(values.count) values"
        case .object(let fields): "an object of \(fields.count) fields"
        }
    }

    /// Reads a file that holds an object.
    ///
    /// - Parameter path: The file's path.
    /// - Returns: The object's fields; nil where there is no such file.
    /// - Throws: `TokenizerError` that names the file.
    static func object(at path: String) throws(TokenizerError) -> [String: JSON]? {
        guard FileManager.default.fileExists(atPath: path) else { return nil }
        let bytes = try TokenizerFolder.read(path)
        do {
            return try JSONDecoder().decode([String: JSON].self, from: bytes)
        } catch {
            throw TokenizerError(.malformedFile, "not a JSON object (\(TokenizerFolder.short(error)))", file: path)
        }
    }
}

/// What is wrong in a tokenizer's file; the reader of the file adds its name.
struct TokenizerFileFault: Error {
    /// What is wrong.
    var message: String

    /// The file's name, where the fault can be in one of several.
    var file: String?

    /// Creates a fault.
    ///
    /// - Parameters:
    ///   - message: What is wrong.
    ///   - file: The file's name, where the fault can be in one of several.
    init(_ message: String, file: String? = nil) {
        self.message = message
        self.file = file
    }
}
