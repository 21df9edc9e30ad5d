// SPDX-License-Identifier: Apache-2.0

internal import RPCCore

/// Writes a message as JSON, in one of the forms of ``MessageJSONForm``.
package struct MessageJSONWriter {
    private let form: MessageJSONForm
    private var text = ""

    private init(_ form: MessageJSONForm) { self.form = form }

    /// Writes a message.
    ///
    /// - Parameters:
    ///   - bytes: The message in protobuf's encoding, as this process wrote it.
    ///   - message: Its full name.
    ///   - form: The form.
    /// - Returns: JSON; as a file it is indented and ends with a line break.
    package static func text(_ bytes: [UInt8], message: String, form: MessageJSONForm) -> String {
        var writer = MessageJSONWriter(form)
        writer.write(bytes[...], message: message, indent: "")
        return form == .file ? writer.text + "\n" : writer.text
    }

    private var isFile: Bool { self.form == .file }

    private mutating func write(_ bytes: ArraySlice<UInt8>, message: String, indent: String) {
        let inner = indent + "  "
        var parts = Self.parts(bytes)[...]
        var isEmpty = true
        for field in MessageSchema.shared.messages[message] ?? [] {
            // What comes before the field has numbers that the message does not know.
            while let first = parts.first, first.number < field.number { parts = parts.dropFirst() }
            let end = parts.firstIndex { $0.number != field.number } ?? parts.endIndex
            guard end > parts.startIndex else { continue }
            self.text += isEmpty ? "{" : ","
            isEmpty = false
            if self.isFile {
                self.text += "\n"
                self.text += inner
            }
            self.text += "\""
            self.text += self.form.name(of: field)
            self.text += self.isFile ? "\": " : "\":"
            self.write(parts[..<end], field: field, indent: inner)
            parts = parts[end...]
        }
        guard !isEmpty else {
            self.text += "{}"
            return
        }
        self.text += self.isFile ? "\n\(indent)}" : "}"
    }

    /// The fields of a message, ascending by number; those of one number keep their order.
    private static func parts(_ bytes: ArraySlice<UInt8>) -> [(number: UInt32, value: WireBytes.Value)] {
        var parts: [(number: UInt32, value: WireBytes.Value)] = []
        var isSorted = true
        var reader = WireBytes(bytes)
        while let part = reader.field() {
            if let last = parts.last, last.number > part.number { isSorted = false }
            parts.append(part)
        }
        guard !isSorted else { return parts }
        return parts.enumerated()
            .sorted { ($0.element.number, $0.offset) < ($1.element.number, $1.offset) }
            .map(\.element)
    }

    private mutating func write(
        _ parts: ArraySlice<(number: UInt32, value: WireBytes.Value)>,
        field: MessageSchema.Field,
        indent: String
    ) {
        guard field.isList else {
            if let value = parts.last?.value { self.write(value, kind: field.kind, indent: indent) }
            return
        }
        switch field.kind {
        case .message, .string, .bytes:
            self.text += self.isFile ? "[\n" : "["
            for (index, part) in parts.enumerated() {
                if self.isFile { self.text += indent + "  " }
                self.write(part.value, kind: field.kind, indent: indent + "  ")
                self.separate(index, of: parts.count)
            }
            self.text += self.isFile ? "\(indent)]" : "]"
        default:
            self.text += "["
            var isFirst = true
            for part in parts {
                for number in Self.numbers(part.value, of: field.kind) {
                    if !isFirst { self.text += self.isFile ? ", " : "," }
                    isFirst = false
                    self.text += self.scalar(number, kind: field.kind)
                }
            }
            self.text += "]"
        }
    }

    /// Ends the entry at an index of a list.
    private mutating func separate(_ index: Int, of count: Int) {
        if index + 1 < count { self.text += "," }
        if self.isFile { self.text += "\n" }
    }

    /// The numbers of a packed list, or the one of a list that is not.
    private static func numbers(_ value: WireBytes.Value, of kind: MessageSchema.Kind) -> [UInt64] {
        guard case .bytes(let bytes) = value else {
            if case .number(let number) = value { return [number] }
            return []
        }
        var reader = WireBytes(bytes)
        var numbers: [UInt64] = []
        let width = kind == .float ? 4 : kind == .fixed64 ? 8 : 0
        while let number = width > 0 ? reader.fixed(width) : reader.varint() { numbers.append(number) }
        return numbers
    }

    private mutating func write(_ value: WireBytes.Value, kind: MessageSchema.Kind, indent: String) {
        switch (value, kind) {
        case (.bytes(let bytes), .message(let name)): self.write(bytes, message: name, indent: indent)
        case (.bytes(let bytes), .bytes):
            self.text += self.isFile ? "\"\(Self.hexadecimal(bytes))\"" : "\"\(Self.base64(bytes))\""
        case (.bytes(let bytes), _): Self.append(quoted: String(decoding: bytes, as: UTF8.self), to: &self.text)
        case (.number(let number), _): self.text += self.scalar(number, kind: kind)
        }
    }

    private func scalar(_ number: UInt64, kind: MessageSchema.Kind) -> String {
        switch kind {
        case .float: Self.number(Float(bitPattern: UInt32(truncatingIfNeeded: number)))
        case .bool: number != 0 ? "true" : "false"
        case .uint64, .fixed64: "\"\(number)\""
        case .choice(let name):
            MessageSchema.shared.choices[name]?.first { $0.number == number }.map { "\"\($0.name)\"" } ?? "\(number)"
        default: "\(number)"
        }
    }

    /// The shortest text that means exactly this number, as a JSON value.
    package static func number(_ value: Float) -> String {
        guard value.isFinite else { return value.isNaN ? "\"NaN\"" : value > 0 ? "\"Infinity\"" : "\"-Infinity\"" }
        // A reader that goes through a double must arrive at the same number.
        guard let double = Double(value.description), Float(double) == value else { return Double(value).description }
        return value.description
    }

    /// Padded, as the mapping says.
    private static func base64(_ bytes: ArraySlice<UInt8>) -> String {
        let text = Base64.encode(Array(bytes))
        return text + String(repeating: "=", count: (4 - text.utf8.count % 4) % 4)
    }

    private static func hexadecimal(_ bytes: ArraySlice<UInt8>) -> String {
        let digits = Array("0123456789abcdef".utf8)
        return String(decoding: bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
    }

    /// A text as a JSON string.
    package static func quoted(_ text: String) -> String {
        var result = ""
        result.reserveCapacity(text.utf8.count + 2)
        Self.append(quoted: text, to: &result)
        return result
    }

    /// Adds a text as a JSON string.
    ///
    /// - Parameters:
    ///   - text: The text.
    ///   - result: What it is added to.
    package static func append(quoted text: String, to result: inout String) {
        result += "\""
        // Most texts have nothing to escape; the lead bytes 0xC2 and 0xE2 may begin what is escaped beyond ASCII.
        let isPlain = text.utf8.allSatisfy { byte in
            byte >= 0x20 && byte != UInt8(ascii: "\"") && byte != UInt8(ascii: "\\") && byte != 0x7F && byte != 0xC2
                && byte != 0xE2
        }
        if isPlain { result += text } else { Self.append(escaped: text, to: &result) }
        result += "\""
    }

    private static func append(escaped text: String, to result: inout String) {
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": result += "\\\""
            case "\\": result += "\\\\"
            case "\n": result += "\\n"
            case "\r": result += "\\r"
            case "\t": result += "\\t"
            // Also what ends a line in a terminal, and what turns its direction.
            case _
            where scalar.value < 0x20 || (0x7F...0x9F).contains(scalar.value)
                || (0x2028...0x202E).contains(scalar.value) || (0x2066...0x2069).contains(scalar.value):
                let digits = String(scalar.value, radix: 16)
                result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: result.unicodeScalars.append(scalar)
            }
        }
    }
}
