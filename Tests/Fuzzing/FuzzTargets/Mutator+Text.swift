// SPDX-License-Identifier: Apache-2.0

/// What the bytes of a target's inputs are, so that mutations keep enough of it to get past the first checks.
enum InputShape: Sendable {
    /// Any bytes.
    case bytes
    /// HTTP/2 frames.
    case frames
    /// JSON texts, perhaps with something in front or between.
    case json
    /// Fields of protocol buffers.
    case fields
    /// A pickle.
    case pickle
}

extension Mutator {
    /// Numbers and other values at the edges of types and limits, as JSON has them or almost has them.
    private static let values: [String] = [
        "0", "-0", "1", "-1", "2", "3", "7", "8", "9", "64", "255", "256", "65536", "262145", "16777217", "1000000000",
        "2147483647", "2147483648", "4294967295", "4294967296", "9007199254740992", "9007199254740993",
        "70368744177664", "70368744177665", "9223372036854775807", "9223372036854775808", "18446744073709551615",
        "18446744073709551616", "-2147483649", "-9223372036854775808", "-9223372036854775809", "1e400", "-1e400",
        "1e-400", "1e308", "0.1", "4.0", "1E2", "-0.0", "NaN", "Infinity", "-Infinity", "01", "1.", ".5", "+1", "1e",
        "null", "true", "false", "True", "nul", "\"\"", "\" \"", "[]", "{}", "[[]]", "[0]", "[0,0]", "[-1]", "[null]",
        "{\"\":0}", "\"\\u0000\"", "\"\\ud800\"", "\"\\ud83d\\ude00\"", "\"\u{0301}\"", "\"../x\"", "\"/\"", "\".\"",
        "\"a\\/b\"", "\"\u{FEFF}\"", "\"0000000000000000\"", "'a'", "// c", "/* c */",
    ]

    /// Changes values, members and nesting of JSON texts.
    mutating func mutateText(_ bytes: inout [UInt8], _ other: [UInt8]) {
        let values = Self.values(in: bytes)
        guard !values.isEmpty else {
            return bytes.insert(contentsOf: self.value(), at: self.random.below(bytes.count + 1))
        }
        let value = values[self.random.below(values.count)]
        switch self.random.below(14) {
        case 0, 1, 2:
            bytes.replaceSubrange(value, with: self.value())
        case 3:
            // Another value of the same or another text.
            let source = self.random.below(2) == 0 ? bytes : other
            let others = Self.values(in: source)
            guard !others.isEmpty else { return }
            bytes.replaceSubrange(value, with: Array(source[others[self.random.below(others.count)]]))
        case 4:
            // An element more, or a member of this name.
            bytes.insert(
                contentsOf: Array("\(self.random.once(in: 8) ? " " : ",")".utf8) + bytes[value],
                at: value.upperBound
            )
        case 5:
            // The same member once more, with another value.
            let start = Self.memberStart(of: value, in: bytes)
            let member = Array(bytes[start..<value.lowerBound]) + self.value()
            bytes.insert(contentsOf: Array(",".utf8) + member, at: value.upperBound)
        case 6:
            bytes.removeSubrange(Self.memberStart(of: value, in: bytes)..<value.upperBound)
        case 7:
            let depth = [1, 2, 100, 126, 127, 128, 511, 512, 513, 3_000][self.random.below(10)]
            let isArray = self.random.below(2) == 0
            let (open, close) = isArray ? ("[", "]") : ("{\"a\":", "}")
            bytes.insert(contentsOf: Array(String(repeating: close, count: depth).utf8), at: value.upperBound)
            bytes.insert(contentsOf: Array(String(repeating: open, count: depth).utf8), at: value.lowerBound)
        case 8:
            // Many of them.
            let piece = Array(",".utf8) + bytes[value].prefix(200)
            let times = [8, 9, 64, 65, 300, 4_097][self.random.below(6)]
            bytes.insert(contentsOf: (0..<times).flatMap { _ in piece }, at: value.upperBound)
        case 9:
            bytes.insert(
                contentsOf: Array([",", " ", "\u{0}", "\"", "\\", "\u{FEFF}", ":"][self.random.below(7)].utf8),
                at: value.upperBound
            )
        case 10:
            // A member that some text of this kind has.
            guard let word = self.word() else { return }
            bytes.insert(contentsOf: Array(",\"".utf8) + word + Array("\":".utf8) + self.value(), at: value.upperBound)
        case 11:
            guard let word = self.word() else { return }
            bytes.replaceSubrange(value, with: Array("\"".utf8) + word + Array("\"".utf8))
        case 12:
            let text = [UInt8](
                repeating: [0x61, 0x20, 0xC3, 0x5C, 0x00][self.random.below(5)],
                count: [300, 1_025, 20_000][self.random.below(3)]
            )
            bytes.replaceSubrange(value, with: [0x22] + text + [0x22])
        default:
            // A digit or a sign in a number, a letter in a word.
            let place = value.lowerBound + self.random.below(value.count)
            bytes[place] = Array("0123456789-+.eE\"[]{},:naN".utf8)[self.random.below(25)]
        }
    }

    private mutating func value() -> [UInt8] { Array(Self.values[self.random.below(Self.values.count)].utf8) }

    private mutating func word() -> [UInt8]? {
        self.words.isEmpty ? nil : self.words[self.random.below(self.words.count)]
    }

    /// Where the member or element begins that a value is the end of: behind the bracket or at the comma before it.
    private static func memberStart(of value: Range<Int>, in bytes: [UInt8]) -> Int {
        var start = value.lowerBound
        while start > 0, value.lowerBound - start < 200, !"{[,".utf8.contains(bytes[start - 1]) { start -= 1 }
        return start
    }

    /// Where the values of a text lie, keys included; what is broken in it does no harm.
    static func values(in bytes: [UInt8]) -> [Range<Int>] {
        var found: [Range<Int>] = []
        var open: [Int] = []
        var position = 0
        while position < bytes.count {
            let start = position
            switch bytes[position] {
            case UInt8(ascii: "\""):
                position += 1
                while position < bytes.count, bytes[position] != UInt8(ascii: "\"") {
                    position += bytes[position] == UInt8(ascii: "\\") ? 2 : 1
                }
                position = min(bytes.count, position + 1)
                found.append(start..<position)
            case UInt8(ascii: "{"), UInt8(ascii: "["):
                open.append(position)
                position += 1
            case UInt8(ascii: "}"), UInt8(ascii: "]"):
                position += 1
                if let begin = open.popLast() { found.append(begin..<position) }
            case 0x2B, 0x2D, 0x2E, 0x30...0x39, 0x41...0x5A, 0x61...0x7A:
                while position < bytes.count, Self.isWordByte(bytes[position]) { position += 1 }
                found.append(start..<position)
            default: position += 1
            }
        }
        return found
    }

    private static func isWordByte(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x2B, 0x2D, 0x2E, 0x30...0x39, 0x41...0x5A, 0x61...0x7A: true
        default: false
        }
    }

    /// The strings of texts, by which further members get names that readers know.
    static func words(of texts: [[UInt8]]) -> [[UInt8]] {
        var words: Set<[UInt8]> = []
        for text in texts {
            for range in Self.values(in: text) where text[range.lowerBound] == UInt8(ascii: "\"") && range.count < 80 {
                words.insert(Array(text[range].dropFirst().dropLast()))
            }
        }
        return words.sorted { $0.lexicographicallyPrecedes($1) }
    }
}
