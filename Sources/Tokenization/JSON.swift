// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import JSONValues

/// A JSON value of a tokenizer's settings, whose fields can be of several types.
typealias JSON = JSONValue

extension JSONValue {
    /// A value for people, at most about a line of it.
    ///
    /// - Parameter value: The value; nil where there is none.
    /// - Returns: The value in short.
    static func text(_ value: JSON?) -> String {
        switch value {
        case nil: "missing"
        case .null: "null"
        case .bool(let value): "\(value)"
        case .integer(let value): "\(value)"
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
            return try bytes.withUnsafeBytes { try JSONText.decode([String: JSON].self, from: $0) }
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
