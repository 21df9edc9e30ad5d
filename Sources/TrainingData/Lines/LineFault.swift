// SPDX-License-Identifier: Apache-2.0

/// A line that cannot be used: where it is, and why.
public struct LineFault: Error, Sendable, Hashable, CustomStringConvertible {
    /// Why a line cannot be used.
    public enum Reason: Error, Sendable, Hashable {
        /// Nothing but white space.
        case empty
        /// More bytes than a line may have.
        case tooManyBytes(limit: Int)
        /// Bytes that are not UTF-8.
        case notUTF8
        /// A NUL character, which text does not have.
        case holdsNUL
        /// No JSON object: what it is, or what the parser says.
        case notJSON(String)
        /// A JSON object without a field, with the fields that it has.
        case missingField(String, found: [String])
        /// A field that is no text: what it is.
        case fieldIsNoText(String, String)
        /// A field with nothing but white space in it.
        case emptyField(String)
        /// Fewer columns than the format names.
        case missingColumn(Int, found: Int)
        /// More tokens in the input or the target than the limit.
        case tooManyTokens(field: String, Int, limit: Int)
        /// Too few tokens to hide some and show others.
        case tooShort(tokens: Int)
        /// A text that the tokenizer has no ids for: what it says.
        case notEncodable(String)

        /// The reason without the line's own values, to count alike ones.
        public var kind: String {
            switch self {
            case .empty: "empty"
            case .tooManyBytes(let limit): "more than \(limit) bytes"
            case .notUTF8: "not UTF-8"
            case .holdsNUL: "holds NUL"
            case .notJSON: "no JSON object"
            case .missingField(let name, _): "no field \"\(name)\""
            case .fieldIsNoText(let name, _): "\"\(name)\" is no text"
            case .emptyField(let name): "\"\(name)\" is empty"
            case .missingColumn(let column, _): "no column \(column)"
            case .tooManyTokens(let field, _, let limit): "\(field) of more than \(limit) tokens"
            case .tooShort: "too short"
            case .notEncodable: "not in the vocabulary"
            }
        }
    }

    /// Where the line is.
    public let place: LinePlace

    /// Why it cannot be used.
    public let reason: Reason

    /// Creates a fault.
    ///
    /// - Parameters:
    ///   - place: Where the line is.
    ///   - reason: Why it cannot be used.
    public init(_ place: LinePlace, _ reason: Reason) {
        self.place = place
        self.reason = reason
    }

    /// File, line and reason.
    public var description: String { "\(self.place): \(self.reason.explanation)" }
}

extension LineFault.Reason {
    /// The reason as a sentence's end, with the values found and what to do.
    var explanation: String {
        switch self {
        case .empty: "the line is empty"
        case .tooManyBytes(let limit): "the line has more than \(limit) bytes, which is the limit"
        case .notUTF8: "the line is not UTF-8; convert the file with iconv"
        case .holdsNUL: "the line holds a NUL character; is it text?"
        case .notJSON(let what): "the line is no JSON object: \(what)"
        case .missingField(let name, let found):
            "there is no field \"\(name)\"; the line has "
                + (found.isEmpty ? "none" : found.prefix(8).map { "\"\($0.prefix(40))\"" }.joined(separator: ", "))
        case .fieldIsNoText(let name, let what): "the field \"\(name)\" is \(what); it must be a string"
        case .emptyField(let name): "the field \"\(name)\" is empty"
        case .missingColumn(let column, let found):
            "there is no column \(column): the line has \(found) (they are separated by tabs)"
        case .tooManyTokens(let field, let count, let limit):
            "the \(field) has \(count) tokens with </s>; the limit is \(limit)"
        case .tooShort(let tokens):
            "the line has \(tokens) \(tokens == 1 ? "token" : "tokens"); at least 2 are needed to hide some"
        case .notEncodable(let what): "the text \(what)"
        }
    }
}

/// What became of the lines that could not be used.
public struct FaultSummary: Sendable, Hashable, CustomStringConvertible {
    /// Faults of one kind.
    public struct Entry: Sendable, Hashable {
        /// How many lines have it.
        public var count: Int

        /// The first one.
        public var first: LineFault
    }

    /// The faults by their kind.
    public private(set) var entries: [String: Entry] = [:]

    /// All lines that could not be used.
    public var count: Int { self.entries.values.reduce(0) { $0 + $1.count } }

    /// A summary of nothing.
    public init() {}

    /// Counts a fault.
    ///
    /// - Parameter fault: The fault.
    public mutating func add(_ fault: LineFault) {
        self.entries[fault.reason.kind, default: Entry(count: 0, first: fault)].count += 1
    }

    /// The faults without blank lines, which part the paragraphs of plain text and are no fault there.
    public var withoutBlankLines: FaultSummary {
        var rest = self
        rest.entries[LineFault.Reason.empty.kind] = nil
        return rest
    }

    /// One line for each kind, the most frequent first: how many, and where the first one is.
    public var description: String {
        self.entries.sorted { ($1.value.count, $0.key) < ($0.value.count, $1.key) }
            .map { kind, entry in
                "\(entry.count) \(entry.count == 1 ? "line" : "lines") (\(kind)), the first: \(entry.first)"
            }
            .joined(separator: "\n")
    }
}
