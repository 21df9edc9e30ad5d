// SPDX-License-Identifier: Apache-2.0

/// Writes fields in protobuf's wire format.
///
/// Source: https://protobuf.dev/programming-guides/encoding/. Zeros are left out, as proto3 does.
struct WireWriter {
    /// What has been written.
    private(set) var bytes: [UInt8] = []

    /// Creates a writer.
    init(capacity: Int) {
        self.bytes.reserveCapacity(capacity)
    }

    /// Creates a writer in memory that was written before, if it is of no unusual size.
    init(reusing memory: inout [UInt8], capacity: Int) {
        swap(&self.bytes, &memory)
        self.bytes.removeAll(keepingCapacity: self.bytes.capacity <= Self.mostKept)
        self.bytes.reserveCapacity(capacity)
    }

    /// The most bytes of memory that are kept.
    private static let mostKept = 1 << 16

    /// The bytes of a varint.
    static func byteCount(_ value: UInt64) -> Int {
        max(1, (UInt64.bitWidth - value.leadingZeroBitCount + 6) / 7)
    }

    /// The bytes of ``number(_:_:)`` with a field number below 16.
    static func byteCount(number value: UInt64) -> Int { value == 0 ? 0 : 1 + Self.byteCount(value) }

    /// A varint without a tag.
    mutating func varint(_ value: UInt64) {
        var rest = value
        while rest >= 0x80 {
            self.bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        self.bytes.append(UInt8(truncatingIfNeeded: rest))
    }

    /// A field's number and wire type.
    mutating func tag(_ field: UInt32, _ type: WireType) {
        self.varint(UInt64(field << 3 | type.rawValue))
    }

    /// An unsigned number.
    mutating func number(_ field: UInt32, _ value: UInt64) {
        if value != 0 {
            self.tag(field, .varint)
            self.varint(value)
        }
    }

    /// Eight bytes, the least significant first.
    mutating func fixed64(_ field: UInt32, _ value: UInt64) {
        if value != 0 {
            self.tag(field, .fixed64)
            for shift in stride(from: UInt64(0), to: 64, by: 8) {
                self.bytes.append(UInt8(truncatingIfNeeded: value >> shift))
            }
        }
    }

    /// The tag and the length of bytes that follow.
    mutating func lengthPrefix(_ field: UInt32, _ byteCount: Int) {
        self.tag(field, .lengthDelimited)
        self.varint(UInt64(byteCount))
    }

    /// Bytes that are a message, or packed numbers.
    mutating func delimited(_ field: UInt32, _ content: [UInt8]) {
        self.lengthPrefix(field, content.count)
        self.bytes.append(contentsOf: content)
    }

    /// Bytes that are already in the wire format.
    mutating func append(_ content: [UInt8]) {
        self.bytes.append(contentsOf: content)
    }
}

/// How a field's value is laid out.
enum WireType: UInt32 {
    case varint = 0
    case fixed64 = 1
    case lengthDelimited = 2
    case startGroup = 3
    case endGroup = 4
    case fixed32 = 5
}
