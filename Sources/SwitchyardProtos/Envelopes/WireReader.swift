// SPDX-License-Identifier: Apache-2.0

/// Reads fields in protobuf's wire format from received bytes, without copying and without trusting any length.
///
/// Source: https://protobuf.dev/programming-guides/encoding/. As protobuf-c does, it refuses groups, the field number
/// 0 and a known field in the wrong wire type.
struct WireReader {
    /// The most bytes of a tag or a length: both have 32 bits, and protobuf-c takes no longer forms of them either.
    private static let maxLengthBytes: UInt64 = 5

    /// All bytes that came.
    let bytes: UnsafeRawBufferPointer

    /// The message's full name, for errors.
    let message: String

    /// Where the next byte is.
    private(set) var position: Int

    /// Where the message ends.
    private let end: Int

    /// Creates a reader of a whole message.
    init(_ bytes: UnsafeRawBufferPointer, message: String) {
        self.init(bytes, message: message, range: 0..<bytes.count)
    }

    /// Creates a reader of a part of a message; the range is one that a reader has returned.
    private init(_ bytes: UnsafeRawBufferPointer, message: String, range: Range<Int>) {
        self.bytes = bytes
        self.message = message
        self.position = range.lowerBound
        self.end = range.upperBound
    }

    /// A reader of a message inside this one.
    func inside(_ range: Range<Int>, message: String) -> WireReader {
        WireReader(self.bytes, message: message, range: range)
    }

    /// Whether all is read.
    var isAtEnd: Bool { self.position >= self.end }

    /// The next field's number and wire type, or nil at the end.
    mutating func field() throws(ProtoError) -> (number: UInt32, type: WireType)? {
        guard !self.isAtEnd else {
            return nil
        }
        let tag = try self.varint(maxBytes: Self.maxLengthBytes)
        guard tag <= UInt64(UInt32.max), let type = WireType(rawValue: UInt32(tag & 7)), tag >> 3 != 0 else {
            throw self.malformed("a field has the impossible tag \(tag)")
        }
        return (UInt32(tag >> 3), type)
    }

    /// A varint of at most this many bytes, ten for a number of 64 bits.
    mutating func varint(maxBytes: UInt64 = 10) throws(ProtoError) -> UInt64 {
        var value: UInt64 = 0
        for index in 0..<Int(maxBytes) {
            guard self.position < self.end else {
                throw self.malformed("it ends inside a number")
            }
            let byte = self.bytes[self.position]
            self.position += 1
            value |= UInt64(byte & 0x7F) << UInt64(7 * index)
            if byte < 0x80 {
                return value
            }
        }
        throw self.malformed("a number has more than \(maxBytes) bytes")
    }

    /// The value of a field that must be a varint.
    mutating func number(_ type: WireType, _ field: String) throws(ProtoError) -> UInt64 {
        try self.expect(type, .varint, field)
        return try self.varint()
    }

    /// The value of a field that must have eight bytes.
    mutating func fixed64(_ type: WireType, _ field: String) throws(ProtoError) -> UInt64 {
        try self.expect(type, .fixed64, field)
        let range = try self.take(8)
        return UInt64(littleEndian: self.bytes.loadUnaligned(fromByteOffset: range.lowerBound, as: UInt64.self))
    }

    /// Where the bytes of a field that must be length-delimited are.
    mutating func delimited(_ type: WireType, _ field: String) throws(ProtoError) -> Range<Int> {
        try self.expect(type, .lengthDelimited, field)
        return try self.takeDelimited()
    }

    /// Passes an unknown field.
    mutating func skip(_ type: WireType) throws(ProtoError) {
        switch type {
        case .varint: _ = try self.varint()
        case .fixed64: _ = try self.take(8)
        case .fixed32: _ = try self.take(4)
        case .lengthDelimited: _ = try self.takeDelimited()
        case .startGroup, .endGroup: throw self.malformed("it has a group, which proto3 does not know")
        }
    }

    /// An error that names the message.
    func error(_ code: ProtoError.Code, _ field: String, _ detail: String) -> ProtoError {
        ProtoError(code, message: self.message, field: field, detail: detail)
    }

    /// An error about the message as a whole.
    private func malformed(_ fault: String) -> ProtoError {
        self.error(.malformed, "", "\(fault) (at byte \(self.position)); compare both sides' .proto files")
    }

    /// Checks a known field's wire type.
    private func expect(_ type: WireType, _ expected: WireType, _ field: String) throws(ProtoError) {
        if type != expected {
            throw self.error(
                .malformed,
                field,
                "the wire type is \(type.rawValue), not \(expected.rawValue); compare both sides' .proto files"
            )
        }
    }

    /// A length and that many bytes.
    private mutating func takeDelimited() throws(ProtoError) -> Range<Int> {
        let length = try self.varint(maxBytes: Self.maxLengthBytes)
        guard length <= UInt64(self.end - self.position) else {
            throw self.malformed("a field of \(length) bytes goes past the end")
        }
        return try self.take(Int(length))
    }

    /// Takes this many bytes.
    private mutating func take(_ count: Int) throws(ProtoError) -> Range<Int> {
        guard count <= self.end - self.position else {
            throw self.malformed("it ends inside a field")
        }
        let start = self.position
        self.position += count
        return start..<self.position
    }
}
