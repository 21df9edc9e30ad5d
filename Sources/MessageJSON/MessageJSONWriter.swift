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
        var values: [UInt32: [WireBytes.Value]] = [:]
        var reader = WireBytes(bytes)
        while let (number, value) = reader.field() { values[number, default: []].append(value) }
        let fields = (MessageSchema.shared.messages[message] ?? []).filter { values[$0.number] != nil }
        guard !fields.isEmpty else {
            self.text += "{}"
            return
        }
        let inner = indent + "  "
        self.text += self.isFile ? "{\n" : "{"
        for (index, field) in fields.enumerated() {
            self.text +=
                self.isFile ? "\(inner)\"\(field.name)\": " : "\"\(field.camelName)\":"
            self.write(values[field.number] ?? [], field: field, indent: inner)
            self.separate(index, of: fields.count)
        }
        self.text += self.isFile ? "\(indent)}" : "}"
    }

    private mutating func write(_ values: [WireBytes.Value], field: MessageSchema.Field, indent: String) {
        guard field.isList else {
            if let value = values.last { self.write(value, kind: field.kind, indent: indent) }
            return
        }
        switch field.kind {
        case .message, .string, .bytes:
            self.text += self.isFile ? "[\n" : "["
            for (index, value) in values.enumerated() {
                if self.isFile { self.text += indent + "  " }
                self.write(value, kind: field.kind, indent: indent + "  ")
                self.separate(index, of: values.count)
            }
            self.text += self.isFile ? "\(indent)]" : "]"
        default:
            let numbers = values.flatMap { Self.numbers($0, of: field.kind) }
            let separator = self.isFile ? ", " : ","
            self.text += "[" + numbers.map { self.scalar($0, kind: field.kind) }.joined(separator: separator) + "]"
        }
    }

    /// Ends the entry at an index of a list or of an object.
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
        case (.bytes(let bytes), _): self.text += Self.quoted(String(decoding: bytes, as: UTF8.self))
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
        var result = "\""
        result.reserveCapacity(text.utf8.count + 2)
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
        return result + "\""
    }
}
