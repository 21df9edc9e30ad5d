// SPDX-License-Identifier: Apache-2.0

/// The numbers that Python's `json` writes and JSON does not have: `NaN`, `Infinity` and `-Infinity`.
///
/// Trainers leave them in `config.json`, such as a loss that overflowed, and Python reads them back
/// (https://docs.python.org/3/library/json.html#infinite-and-nan-number-values).
enum PythonNumbers {
    /// What a literal becomes: a string that no file has by chance.
    private static let mark = "\u{0}number "

    private static let literals: [(text: [UInt8], number: Double)] = [
        (Array("NaN".utf8), .nan), (Array("Infinity".utf8), .infinity), (Array("-Infinity".utf8), -.infinity),
    ]

    /// Replaces the literals by strings that `number(_:)` reads; strings are left as they are.
    ///
    /// - Parameter bytes: A JSON text, perhaps with such literals.
    /// - Returns: The text without them; nil where it has none.
    static func escaped(_ bytes: UnsafeRawBufferPointer) -> [UInt8]? {
        var output: [UInt8] = []
        var copied = 0
        var position = 0
        var isInString = false
        while position < bytes.count {
            let byte = bytes[position]
            if isInString {
                if byte == UInt8(ascii: "\\") { position += 1 }
                if byte == UInt8(ascii: "\"") { isInString = false }
            } else if byte == UInt8(ascii: "\"") {
                isInString = true
            } else if byte == UInt8(ascii: "N") || byte == UInt8(ascii: "I") || byte == UInt8(ascii: "-"),
                let literal = self.literals.first(where: { self.matches($0.text, bytes, position) })
            {
                output += bytes[copied..<position]
                output += "\"\\u0000number \(String(decoding: literal.text, as: UTF8.self))\"".utf8
                position += literal.text.count
                copied = position
                continue
            }
            position += 1
        }
        guard copied > 0 else { return nil }
        return output + bytes[min(copied, bytes.count)...]
    }

    private static func matches(_ literal: [UInt8], _ bytes: UnsafeRawBufferPointer, _ position: Int) -> Bool {
        bytes[position] == literal[0] && literal.count <= bytes.count - position
            && bytes[position..<position + literal.count].elementsEqual(literal)
    }

    /// The number that a string stands for after `escaped(_:)`.
    ///
    /// - Parameter text: Any string of the file.
    /// - Returns: NaN or an infinity; nil for every other string.
    static func number(_ text: String) -> Double? {
        guard text.hasPrefix(self.mark) else { return nil }
        return self.literals.first { text == self.mark + String(decoding: $0.text, as: UTF8.self) }?.number
    }
}
