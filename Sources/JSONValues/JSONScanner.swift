// SPDX-License-Identifier: Apache-2.0

/// How a reader of files says that one of them is not the JSON that it should be.
package protocol JSONFailure: Error {
    /// The failure for a text that breaks JSON's rules, or holds another value than is needed.
    ///
    /// - Parameters:
    ///   - found: What is there, for people: `a trailing comma`.
    ///   - position: The byte at which it is.
    ///   - file: The file.
    /// - Returns: The failure.
    static func malformed(_ found: String, at position: Int, in file: String) -> Self

    /// The failure for a text of more values than a reader takes.
    ///
    /// - Parameters:
    ///   - limit: The most values.
    ///   - position: The byte up to which they were counted.
    ///   - file: The file.
    /// - Returns: The failure.
    static func tooManyValues(_ limit: Int, at position: Int, in file: String) -> Self
}

/// Reads JSON from front to back, as strictly as the programs that wrote a checkpoint read it.
///
/// Follows RFC 8259 (https://www.rfc-editor.org/rfc/rfc8259): UTF-8 without a byte order mark, no trailing comma, no
/// comment. Foundation's decoder is laxer (it takes the first of two equal keys, a trailing comma and UTF-16), so one
/// file could be two models. Every value is counted, and what is not wanted is skipped without being kept, so work and
/// memory stay in proportion to what a checkpoint needs.
package struct JSONScanner<Failure: JSONFailure> {
    /// Where readers differ.
    package enum Dialect {
        /// Rust's serde_json, which reads safetensors headers: numbers that no double holds are refused, and at most 127
        /// values lie inside each other.
        case serde
        /// Python's `json`, which reads configurations: `NaN`, `Infinity` and `-Infinity` are numbers, and too large
        /// ones are infinite. Python follows about 1,000 levels, this reader 512.
        case python

        fileprivate var maxDepth: Int { self == .serde ? 127 : 512 }
    }

    private let bytes: UnsafeRawBufferPointer
    private let file: String
    private let dialect: Dialect
    private let maxValues: Int
    /// The place of the next byte.
    package private(set) var position = 0
    private var values = 0
    private var depth = 0

    /// Begins to read a text.
    ///
    /// - Parameters:
    ///   - bytes: The text, valid as long as the scanner is used.
    ///   - file: The file, for messages.
    ///   - dialect: Whose rules apply.
    ///   - maxValues: The most values, those inside others included.
    package init(_ bytes: UnsafeRawBufferPointer, file: String, dialect: Dialect, maxValues: Int) {
        self.bytes = bytes
        self.file = file
        self.dialect = dialect
        self.maxValues = maxValues
    }

    // MARK: - Structure

    /// Reads an object.
    ///
    /// - Parameter member: Receives each key, and reads or skips its value.
    /// - Throws: `malformed` or `limitExceeded` with the file and the place; what the closure throws.
    package mutating func object(
        _ member: (inout JSONScanner<Failure>, String) throws(Failure) -> Void
    ) throws(Failure) {
        try self.enter(UInt8(ascii: "{"), "an object")
        if self.take(UInt8(ascii: "}")) {
            self.depth -= 1
            return
        }
        while true {
            guard self.peek() == UInt8(ascii: "\"") else { throw self.malformed("no key in quotes") }
            let key = try self.text()
            guard self.take(UInt8(ascii: ":")) else { throw self.malformed("no colon after a key") }
            try member(&self, key)
            if self.take(UInt8(ascii: "}")) {
                self.depth -= 1
                return
            }
            guard self.take(UInt8(ascii: ",")) else { throw self.malformed("neither , nor } after a value") }
            if self.peek() == UInt8(ascii: "}") { throw self.malformed("a trailing comma") }
        }
    }

    /// Reads an array.
    ///
    /// - Parameter element: Reads or skips one element.
    /// - Throws: `malformed` or `limitExceeded` with the file and the place; what the closure throws.
    package mutating func array(
        _ element: (inout JSONScanner<Failure>) throws(Failure) -> Void
    ) throws(Failure) {
        try self.enter(UInt8(ascii: "["), "an array")
        if self.take(UInt8(ascii: "]")) {
            self.depth -= 1
            return
        }
        while true {
            try element(&self)
            if self.take(UInt8(ascii: "]")) {
                self.depth -= 1
                return
            }
            guard self.take(UInt8(ascii: ",")) else { throw self.malformed("neither , nor ] after a value") }
            if self.peek() == UInt8(ascii: "]") { throw self.malformed("a trailing comma") }
        }
    }

    /// Checks that nothing but white space follows.
    package mutating func end() throws(Failure) {
        guard self.peek() == nil else { throw self.malformed("more text after its end") }
    }

    /// The next byte that is not white space, which stays unread; nil at the end.
    package mutating func peek() -> UInt8? {
        while self.position < self.bytes.count {
            switch self.bytes[self.position] {
            case 0x20, 0x09, 0x0A, 0x0D: self.position += 1
            case let byte: return byte
            }
        }
        return nil
    }

    private mutating func take(_ byte: UInt8) -> Bool {
        guard self.peek() == byte else { return false }
        self.position += 1
        return true
    }

    private mutating func enter(_ byte: UInt8, _ what: String) throws(Failure) {
        try self.count()
        guard self.take(byte) else { throw self.malformed("\(try self.kind()) where \(what) is needed") }
        self.depth += 1
        guard self.depth <= self.dialect.maxDepth else {
            throw self.malformed("more than \(self.dialect.maxDepth) values inside each other")
        }
    }

    private mutating func count() throws(Failure) {
        self.values += 1
        guard self.values <= self.maxValues else {
            throw Failure.tooManyValues(self.maxValues, at: self.position, in: self.file)
        }
    }

    // MARK: - Values

    /// Reads any value; of two equal keys of an object the last counts, as in Python and serde's maps.
    ///
    /// - Parameter refuseDuplicates: Whether two equal keys are an error instead.
    /// - Returns: The value.
    /// - Throws: `malformed` or `limitExceeded` with the file and the place.
    package mutating func value(refuseDuplicates: Bool = false) throws(Failure) -> JSONValue {
        switch self.peek() {
        case UInt8(ascii: "{"):
            var members: [String: JSONValue] = [:]
            try self.object { (scanner, key) throws(Failure) in
                let value = try scanner.value(refuseDuplicates: refuseDuplicates)
                if members.updateValue(value, forKey: key) != nil, refuseDuplicates {
                    throw scanner.malformed("the key \"\(key.prefix(80))\" twice")
                }
            }
            return .object(members)
        case UInt8(ascii: "["):
            var elements: [JSONValue] = []
            try self.array { (scanner) throws(Failure) in
                elements.append(try scanner.value(refuseDuplicates: refuseDuplicates))
            }
            return .array(elements)
        case UInt8(ascii: "\""): return .string(try self.string())
        case UInt8(ascii: "t"): return try self.literal("true", .bool(true))
        case UInt8(ascii: "f"): return try self.literal("false", .bool(false))
        case UInt8(ascii: "n"): return try self.literal("null", .null)
        default: return try self.number()
        }
    }

    /// Reads a value and keeps nothing of it.
    package mutating func skip() throws(Failure) {
        switch self.peek() {
        case UInt8(ascii: "{"): try self.object { (scanner, _) throws(Failure) in try scanner.skip() }
        case UInt8(ascii: "["): try self.array { (scanner) throws(Failure) in try scanner.skip() }
        default: _ = try self.value()
        }
    }

    /// Reads a string.
    package mutating func string() throws(Failure) -> String {
        try self.count()
        guard self.peek() == UInt8(ascii: "\"") else {
            throw self.malformed("\(try self.kind()) where a string is needed")
        }
        return try self.text()
    }

    /// Reads an integer that is written without a fraction or an exponent, and is not `-0`, as serde does for sizes.
    package mutating func integer() throws(Failure) -> Int {
        let start = self.position
        guard case .integer(let integer) = try self.value() else {
            self.position = max(start, self.position)
            throw self.malformed("something other than an integer of at most 63 bits where a size is needed")
        }
        return integer
    }

    private mutating func literal(_ text: StaticString, _ value: JSONValue) throws(Failure) -> JSONValue {
        try self.count()
        let rest = UnsafeRawBufferPointer(rebasing: self.bytes[self.position...].prefix(text.utf8CodeUnitCount))
        guard rest.elementsEqual(UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount)) else {
            throw self.malformed("no value")
        }
        self.position += text.utf8CodeUnitCount
        return value
    }

    /// What comes next, for messages.
    private mutating func kind() throws(Failure) -> String {
        guard self.peek() != nil else { return "the end" }
        var ahead = self
        ahead.depth = 0
        switch ahead.peek() {
        case UInt8(ascii: "{"): return "an object"
        case UInt8(ascii: "["): return "an array"
        default: return try ahead.value().kind
        }
    }

    /// The failure that says what was found at the next byte.
    ///
    /// - Parameter found: What is there, for people: `a trailing comma`.
    /// - Returns: The failure.
    package func malformed(_ found: String) -> Failure {
        Failure.malformed(found, at: self.position, in: self.file)
    }
}

// MARK: - Strings and numbers

extension JSONScanner {
    private mutating func text() throws(Failure) -> String {
        let start = self.position + 1
        // A local copy: the loop runs over most bytes of a file.
        var end = start
        var escapes = false
        while end < self.bytes.count {
            let byte = self.bytes[end]
            if byte == UInt8(ascii: "\"") { break }
            if byte < 0x20 {
                self.position = end
                throw self.malformed("a control character in a string")
            }
            if byte == UInt8(ascii: "\\") {
                escapes = true
                end += 1
            }
            end += 1
        }
        self.position = min(end, self.bytes.count)
        guard end < self.bytes.count else { throw self.malformed("a string without an end") }
        let slice = UnsafeRawBufferPointer(rebasing: self.bytes[start..<end])
        guard let text = String(validating: slice, as: UTF8.self) else {
            throw self.malformed("a string that is not UTF-8")
        }
        defer { self.position += 1 }
        return escapes ? try self.unescaped(slice) : text
    }

    private func unescaped(_ text: UnsafeRawBufferPointer) throws(Failure) -> String {
        var output: [UInt8] = []
        output.reserveCapacity(text.count)
        var position = 0
        while position < text.count {
            guard text[position] == UInt8(ascii: "\\") else {
                output.append(text[position])
                position += 1
                continue
            }
            guard position + 1 < text.count else { throw self.malformed("an escape that ends early") }
            position += 2
            switch text[position - 1] {
            case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): output.append(text[position - 1])
            case UInt8(ascii: "b"): output.append(0x08)
            case UInt8(ascii: "f"): output.append(0x0C)
            case UInt8(ascii: "n"): output.append(0x0A)
            case UInt8(ascii: "r"): output.append(0x0D)
            case UInt8(ascii: "t"): output.append(0x09)
            case UInt8(ascii: "u"): output += String(try self.scalar(text, &position)).utf8
            default: throw self.malformed("an unknown escape in a string")
            }
        }
        return String(decoding: output, as: UTF8.self)
    }

    /// The character of `\uXXXX`, or of a surrogate pair of them; a surrogate alone is no text and is refused, as serde does.
    private func scalar(_ text: UnsafeRawBufferPointer, _ position: inout Int) throws(Failure) -> Character {
        func unit() -> UInt32? {
            guard position + 4 <= text.count else { return nil }
            var unit: UInt32 = 0
            for byte in text[position..<position + 4] {
                guard let digit = Character(UnicodeScalar(byte)).hexDigitValue else { return nil }
                unit = unit << 4 | UInt32(digit)
            }
            position += 4
            return unit
        }
        guard var code = unit() else { throw self.malformed("a \\u without four hexadecimal digits") }
        if (0xD800..<0xDC00).contains(code), position + 2 <= text.count,
            text[position] == UInt8(ascii: "\\"), text[position + 1] == UInt8(ascii: "u")
        {
            position += 2
            guard let low = unit(), (0xDC00..<0xE000).contains(low) else {
                throw self.malformed("half of a surrogate pair in a string")
            }
            code = 0x10000 + (code - 0xD800) << 10 + (low - 0xDC00)
        }
        guard let scalar = UnicodeScalar(code) else { throw self.malformed("half of a surrogate pair in a string") }
        return Character(scalar)
    }

    private mutating func number() throws(Failure) -> JSONValue {
        if self.dialect == .python {
            switch self.peek() {
            case UInt8(ascii: "N"): return try self.literal("NaN", .number(.nan))
            case UInt8(ascii: "I"): return try self.literal("Infinity", .number(.infinity))
            case UInt8(ascii: "-") where self.position + 1 < self.bytes.count:
                if self.bytes[self.position + 1] == UInt8(ascii: "I") {
                    return try self.literal("-Infinity", .number(-.infinity))
                }
            default: break
            }
        }
        try self.count()
        let start = self.position
        let isNegative = self.accept(UInt8(ascii: "-"))
        let leadsWithZero = self.position < self.bytes.count && self.bytes[self.position] == UInt8(ascii: "0")
        let whole = self.digits()
        guard whole > 0 else { throw self.malformed("no value") }
        guard !leadsWithZero || whole == 1 else { throw self.malformed("a number that begins with 0") }
        var isInteger = true
        if self.accept(UInt8(ascii: ".")) {
            isInteger = false
            guard self.digits() > 0 else { throw self.malformed("a number without digits after its point") }
        }
        if self.accept(UInt8(ascii: "e")) || self.accept(UInt8(ascii: "E")) {
            isInteger = false
            if !self.accept(UInt8(ascii: "+")) { _ = self.accept(UInt8(ascii: "-")) }
            guard self.digits() > 0 else { throw self.malformed("a number without digits in its exponent") }
        }
        guard self.position - start <= 1_024 else { throw self.malformed("a number of more than 1,024 characters") }
        let text = String(decoding: self.bytes[start..<self.position], as: UTF8.self)
        if isInteger, let integer = Int(text), !(integer == 0 && isNegative && self.dialect == .serde) {
            return .integer(integer)
        }
        guard let number = Double(text), self.dialect == .python || number.isFinite else {
            throw self.malformed("a number out of range")
        }
        return .number(number)
    }

    private mutating func accept(_ byte: UInt8) -> Bool {
        guard self.position < self.bytes.count, self.bytes[self.position] == byte else { return false }
        self.position += 1
        return true
    }

    private mutating func digits() -> Int {
        let start = self.position
        while self.position < self.bytes.count, (0x30...0x39).contains(self.bytes[self.position]) { self.position += 1 }
        return self.position - start
    }
}
