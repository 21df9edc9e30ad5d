// SPDX-License-Identifier: Apache-2.0

internal import JSONValues

/// How a line holds an example.
public enum ExampleFormat: Sendable, Hashable {
    /// A JSON object with a field for the input and one for the target. Other fields are ignored.
    case jsonLines(input: String, target: String)

    /// Columns separated by tabs, counted from 1. There are no quotes and no escapes.
    case tabSeparated(input: Int, target: Int)

    /// Plain text, of which ``SpanCorruption`` makes input and target.
    case text

    /// Plain text of which each window of `length` tokens is an input, and the tokens one place further its target: what models
    /// without an encoder learn from. Its lines are ``TextWindows``.
    case next(length: Int)

    /// Checks names and numbers.
    ///
    /// - Throws: ``DataError`` when a name is empty, a column is not positive, or both are the same.
    func check() throws(DataError) {
        switch self {
        case .jsonLines(let input, let target):
            guard !input.isEmpty, !target.isEmpty, input != target else {
                throw DataError(
                    .invalidSettings,
                    "the fields of input and target are \"\(input)\" and \"\(target)\"; give two different names"
                )
            }
        case .tabSeparated(let input, let target):
            guard input >= 1, target >= 1, input != target else {
                throw DataError(
                    .invalidSettings,
                    "the columns of input and target are \(input) and \(target); give two different ones, from 1"
                )
            }
        case .text: break
        case .next(let length):
            guard (1...Self.mostTokens).contains(length) else {
                throw DataError(
                    .invalidSettings,
                    "a window has \(length) tokens; it must have from 1 to \(Self.mostTokens)"
                )
            }
        }
    }

    /// Tokens of a window at most.
    private static let mostTokens = 1 << 16

    /// The format as a text that changes when the format does.
    var canonicalText: String {
        switch self {
        case .jsonLines(let input, let target): "jsonl \(input.debugDescription) \(target.debugDescription)"
        case .tabSeparated(let input, let target): "tsv \(input) \(target)"
        case .text: "text"
        case .next(let length): "next \(length)"
        }
    }
}

/// The texts of a line.
enum LineTexts: Sendable, Hashable {
    case pair(input: String, target: String)
    case text(String)

    /// Reads a line.
    ///
    /// - Parameters:
    ///   - content: The line.
    ///   - format: How it holds an example.
    /// - Throws: Why it cannot be used.
    init(_ content: LineContent, _ format: ExampleFormat) throws(LineFault.Reason) {
        let bytes: [UInt8]
        switch content {
        case .bytes(let found): bytes = found
        case .tooLong(let limit): throw .tooManyBytes(limit: limit)
        }
        guard bytes.contains(where: { !Self.isSpace($0) }) else {
            throw .empty
        }
        guard !bytes.contains(0) else {
            throw .holdsNUL
        }
        guard let text = String(validating: bytes, as: UTF8.self) else {
            throw .notUTF8
        }
        switch format {
        case .text, .next: self = .text(text)
        case .tabSeparated(let input, let target):
            let columns = bytes.split(separator: UInt8(ascii: "\t"), omittingEmptySubsequences: false)
            func column(_ number: Int) throws(LineFault.Reason) -> String {
                guard number <= columns.count else {
                    throw .missingColumn(number, found: columns.count)
                }
                return try Self.checked(String(decoding: columns[number - 1], as: UTF8.self), "column \(number)")
            }
            self = .pair(input: try column(input), target: try column(target))
        case .jsonLines(let input, let target):
            let object = try Self.object(bytes)
            self = .pair(input: try Self.field(input, of: object), target: try Self.field(target, of: object))
        }
    }

    private static func isSpace(_ byte: UInt8) -> Bool {
        byte == 0x20 || (byte >= 0x09 && byte <= 0x0D)
    }

    /// The most JSON values of a line; a line has at most a mebibyte.
    private static let mostValues = 1_048_576

    private static func object(_ bytes: [UInt8]) throws(LineFault.Reason) -> [String: JSONValue] {
        let value: JSONValue
        do {
            value = try bytes.withUnsafeBytes { try JSONText.value($0, dialect: .python, maxValues: Self.mostValues) }
        } catch {
            throw .notJSON("it begins with \(String(decoding: bytes.prefix(40), as: UTF8.self).debugDescription)")
        }
        guard case .object(let object) = value else {
            throw .notJSON("it is \(value.kind)")
        }
        return object
    }

    private static func field(
        _ name: String,
        of object: [String: JSONValue]
    ) throws(LineFault.Reason) -> String {
        guard let value = object[name] else {
            throw .missingField(name, found: object.keys.sorted())
        }
        guard case .string(let text) = value else {
            throw .fieldIsNoText(name, value.kind)
        }
        return try Self.checked(text, name)
    }

    private static func checked(_ text: String, _ name: String) throws(LineFault.Reason) -> String {
        guard !text.utf8.contains(0) else {
            throw .holdsNUL
        }
        guard text.utf8.contains(where: { !Self.isSpace($0) }) else {
            throw .emptyField(name)
        }
        return text
    }
}
