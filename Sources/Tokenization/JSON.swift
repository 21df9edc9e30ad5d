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
            return try TokenizerScanner.withBytes(bytes) { (bytes) throws(TokenizerFileFault) in
                var scanner = try TokenizerScanner.begin(bytes, file: path, dialect: .python)
                guard case .object(let fields) = try scanner.value() else { throw .init("no JSON object in it") }
                try scanner.end()
                return fields
            }
        } catch {
            throw TokenizerError(.malformedFile, error.message, file: path)
        }
    }
}

/// A scanner that throws faults of a tokenizer's file.
typealias TokenizerScanner = JSONScanner<TokenizerFileFault>

extension TokenizerScanner {
    /// The most JSON values of a file: three for each piece of the largest vocabulary, and as many again.
    static let mostValues = 6 * PieceFile.maximumPieceCount

    /// Runs a closure with a file's bytes; Foundation's own function forgets the type of what the closure throws.
    static func withBytes<R>(
        _ data: Data,
        _ body: (UnsafeRawBufferPointer) throws(TokenizerFileFault) -> R
    ) throws(TokenizerFileFault) -> R {
        try data.withUnsafeBytes { bytes in
            Result { () throws(TokenizerFileFault) in try body(bytes) }
        }
        .get()
    }

    /// Begins to read a file, unless its first bytes show that it is not UTF-8.
    ///
    /// - Parameters:
    ///   - bytes: The whole file, valid as long as the scanner is used.
    ///   - file: The file's name.
    ///   - dialect: Whose rules apply.
    /// - Returns: The scanner.
    /// - Throws: `TokenizerFileFault` that names the encoding.
    static func begin(
        _ bytes: UnsafeRawBufferPointer,
        file: String,
        dialect: Dialect
    ) throws(TokenizerFileFault) -> Self {
        if let encoding = JSONText.otherEncoding(bytes) {
            throw .init("\(encoding), which transformers refuses; save it as plain UTF-8")
        }
        return Self(bytes, file: file, dialect: dialect, maxValues: self.mostValues)
    }
}

extension TokenizerFileFault: JSONFailure {
    static func malformed(_ found: String, at position: Int, in file: String) -> Self {
        Self("not the expected JSON (\(found) at byte \(position)); copy the file from the checkpoint again")
    }

    static func tooManyValues(_ limit: Int, at position: Int, in file: String) -> Self {
        Self("more than \(limit) JSON values by byte \(position), more than any tokenizer has")
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
