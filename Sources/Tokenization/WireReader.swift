// SPDX-License-Identifier: Apache-2.0

/// Reads the fields of one protocol buffers message from untrusted bytes.
///
/// Only what `sentencepiece_model.proto` uses is understood; groups, which it does not have, are an error. See
/// https://protobuf.dev/programming-guides/encoding/.
struct WireReader {
    /// The error for malformed bytes.
    struct Malformed: Error {
        /// What is wrong and at which byte.
        var message: String
    }

    /// One field's value.
    enum Value {
        case varint(UInt64)
        case fixed64(UInt64)
        case bytes(Range<Int>)
        case fixed32(UInt32)
    }

    private let bytes: [UInt8]
    private let end: Int
    private var position: Int

    /// Creates a reader of a message.
    ///
    /// - Parameters:
    ///   - bytes: The bytes in which the message lies.
    ///   - range: Where it lies; within the bytes.
    init(_ bytes: [UInt8], in range: Range<Int>) {
        self.bytes = bytes
        self.position = range.lowerBound
        self.end = range.upperBound
    }

    /// Reads the next field.
    ///
    /// - Returns: The field's number and value, or nil at the message's end.
    /// - Throws: `Malformed` when the bytes are not a message.
    mutating func next() throws(Malformed) -> (field: UInt64, value: Value)? {
        guard self.position < self.end else { return nil }
        let key = try self.readVarint()
        let field = key >> 3
        guard field > 0 else { throw self.malformed("field number 0") }
        switch key & 7 {
        case 0:
            return (field, .varint(try self.readVarint()))
        case 1:
            return (field, .fixed64(try self.readFixed(8)))
        case 2:
            let count = try self.readVarint()
            guard count <= UInt64(self.end - self.position) else {
                throw self.malformed("a field of \(count) bytes, of which only \(self.end - self.position) are present")
            }
            let start = self.position
            self.position += Int(count)
            return (field, .bytes(start..<self.position))
        case 5:
            return (field, .fixed32(UInt32(truncatingIfNeeded: try self.readFixed(4))))
        default:
            throw self.malformed("wire type \(key & 7)")
        }
    }

    private mutating func readVarint() throws(Malformed) -> UInt64 {
        var value: UInt64 = 0
        var shift: UInt64 = 0
        while self.position < self.end, shift < 64 {
            let byte = self.bytes[self.position]
            self.position += 1
            value |= UInt64(byte & 0x7F) << shift
            if byte < 0x80 { return value }
            shift += 7
        }
        throw self.malformed("an unterminated number")
    }

    private mutating func readFixed(_ count: Int) throws(Malformed) -> UInt64 {
        guard self.end - self.position >= count else { throw self.malformed("a truncated number") }
        var value: UInt64 = 0
        for index in 0..<count {
            value |= UInt64(self.bytes[self.position + index]) << UInt64(8 * index)
        }
        self.position += count
        return value
    }

    private func malformed(_ what: String) -> Malformed {
        Malformed(message: "\(what) at byte \(self.position)")
    }
}

/// Writes the fields of one protocol buffers message.
struct WireWriter {
    /// The message so far.
    private(set) var bytes: [UInt8] = []

    /// Appends a number.
    ///
    /// - Parameters:
    ///   - value: The number.
    ///   - field: The field's number.
    mutating func append(number value: UInt64, field: UInt64) {
        self.appendVarint(field << 3)
        self.appendVarint(value)
    }

    /// Appends a float.
    ///
    /// - Parameters:
    ///   - value: The float.
    ///   - field: The field's number.
    mutating func append(float value: Float, field: UInt64) {
        self.appendVarint(field << 3 | 5)
        withUnsafeBytes(of: value.bitPattern.littleEndian) { self.bytes.append(contentsOf: $0) }
    }

    /// Appends bytes, text or an embedded message.
    ///
    /// - Parameters:
    ///   - value: The bytes.
    ///   - field: The field's number.
    mutating func append(bytes value: some Collection<UInt8>, field: UInt64) {
        self.appendVarint(field << 3 | 2)
        self.appendVarint(UInt64(value.count))
        self.bytes.append(contentsOf: value)
    }

    private mutating func appendVarint(_ value: UInt64) {
        var rest = value
        while rest >= 0x80 {
            self.bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        self.bytes.append(UInt8(rest))
    }
}
