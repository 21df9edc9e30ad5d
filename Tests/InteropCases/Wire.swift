// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import RPCCore

/// A message of the interop service, read and written by hand: a few fields each, and no code generator to trust.
///
/// Source: https://protobuf.dev/programming-guides/encoding/.
protocol InteropMessage: Sendable, Hashable {
    /// Creates the message with every field at its default.
    init()

    /// Takes one field; fields that the message does not know are skipped.
    ///
    /// - Throws: ``RPCError`` where a value cannot be read.
    mutating func read(_ field: Int, _ value: WireValue) throws(RPCError)

    /// Appends the fields that are not at their defaults.
    func write(to bytes: inout WireBytes)
}

/// The value of a field as it stands on the wire.
enum WireValue: Sendable {
    /// A number.
    case varint(UInt64)
    /// Text, bytes or a message.
    case bytes(ByteBuffer)
    /// Four or eight bytes, which no message here uses.
    case fixed

    /// The number as an `int32`; 0 for another type of value.
    var int32: Int32 {
        if case .varint(let number) = self { Int32(truncatingIfNeeded: number) } else { 0 }
    }

    /// Whether the number is not 0.
    var bool: Bool {
        if case .varint(let number) = self { number != 0 } else { false }
    }

    /// The bytes; none for another type of value.
    var content: ByteBuffer {
        if case .bytes(let bytes) = self { bytes } else { ByteBuffer() }
    }

    /// The bytes as a message.
    ///
    /// - Throws: ``RPCError`` where they are none.
    func message<Message: InteropMessage>(_ type: Message.Type = Message.self) throws(RPCError) -> Message {
        try Message(reading: self.content)
    }
}

extension InteropMessage {
    /// Reads a message.
    ///
    /// - Parameter bytes: The whole message.
    /// - Throws: ``RPCError`` with `INVALID_ARGUMENT` where the bytes are no protobuf.
    init(reading bytes: ByteBuffer) throws(RPCError) {
        self.init()
        var bytes = bytes
        while bytes.readableBytes > 0 {
            let tag = try bytes.readVarint()
            let value: WireValue
            switch tag & 7 {
            case 0: value = .varint(try bytes.readVarint())
            case 1: value = try bytes.skip(8)
            case 2:
                let length = try bytes.readVarint()
                guard let count = Int(exactly: length), let part = bytes.readSlice(length: count) else {
                    throw .malformed("a field of \(length) bytes goes past the end")
                }
                value = .bytes(part)
            case 5: value = try bytes.skip(4)
            default: throw .malformed("the tag \(tag) has an unknown wire type")
            }
            try self.read(Int(truncatingIfNeeded: tag >> 3), value)
        }
    }

    /// The message as it goes over the wire.
    var serialized: ByteBuffer {
        var bytes = WireBytes()
        self.write(to: &bytes)
        return bytes.buffer
    }
}

extension ByteBuffer {
    fileprivate mutating func readVarint() throws(RPCError) -> UInt64 {
        var value: UInt64 = 0
        for index in UInt64(0)..<10 {
            guard let byte = self.readInteger(as: UInt8.self) else { throw .malformed("it ends inside a number") }
            value |= UInt64(byte & 0x7F) << (7 * index)
            if byte < 0x80 { return value }
        }
        throw .malformed("a number has more than ten bytes")
    }

    fileprivate mutating func skip(_ count: Int) throws(RPCError) -> WireValue {
        guard self.readSlice(length: count) != nil else { throw .malformed("it ends inside a field") }
        return .fixed
    }
}

extension RPCError {
    fileprivate static func malformed(_ fault: String) -> RPCError {
        RPCError(.invalidArgument, "the message is malformed: \(fault); compare both sides' .proto files")
    }
}

/// Where a message's fields are written to.
struct WireBytes: Sendable {
    /// The bytes so far.
    private(set) var buffer = ByteBuffer()

    /// Writes a number, unless it is 0.
    mutating func add(_ field: Int, _ number: Int32) {
        guard number != 0 else { return }
        self.varint(UInt64(field << 3))
        // Negative numbers go over the wire as 64 bits.
        self.varint(UInt64(bitPattern: Int64(number)))
    }

    /// Writes a switch, unless it is off.
    mutating func add(_ field: Int, _ value: Bool) { self.add(field, value ? 1 : 0) }

    /// Writes bytes, unless there are none.
    mutating func add(_ field: Int, _ bytes: ByteBuffer) {
        guard bytes.readableBytes > 0 else { return }
        self.always(field, bytes)
    }

    /// Writes a text, unless it is empty.
    mutating func add(_ field: Int, _ text: String) { self.add(field, ByteBuffer(string: text)) }

    /// Writes a message, unless there is none; an empty one is written.
    mutating func add<Message: InteropMessage>(_ field: Int, _ message: Message?) {
        if let message { self.always(field, message.serialized) }
    }

    private mutating func always(_ field: Int, _ bytes: ByteBuffer) {
        self.varint(UInt64(field << 3 | 2))
        self.varint(UInt64(bytes.readableBytes))
        self.buffer.writeImmutableBuffer(bytes)
    }

    private mutating func varint(_ value: UInt64) {
        var value = value
        while value >= 0x80 {
            self.buffer.writeInteger(UInt8(truncatingIfNeeded: value) | 0x80)
            value >>= 7
        }
        self.buffer.writeInteger(UInt8(truncatingIfNeeded: value))
    }
}
