// SPDX-License-Identifier: Apache-2.0

/// Reads fields in protobuf's wire format from bytes that this process has written itself.
///
/// Source: https://protobuf.dev/programming-guides/encoding/. What is not such a message ends the reading early.
struct WireBytes {
    /// One field of a message.
    enum Value {
        case number(UInt64)
        case bytes(ArraySlice<UInt8>)
    }

    private let bytes: ArraySlice<UInt8>
    private var position: Int

    init(_ bytes: ArraySlice<UInt8>) {
        self.bytes = bytes
        self.position = bytes.startIndex
    }

    /// The next field; nil at the end.
    mutating func field() -> (number: UInt32, value: Value)? {
        guard let tag = self.varint() else { return nil }
        let number = UInt32(truncatingIfNeeded: tag >> 3)
        switch tag & 7 {
        case 0: return self.varint().map { (number, .number($0)) }
        case 1: return self.fixed(8).map { (number, .number($0)) }
        case 5: return self.fixed(4).map { (number, .number($0)) }
        case 2:
            guard let count = self.varint(), count <= UInt64(self.bytes.endIndex - self.position) else { return nil }
            let start = self.position
            self.position += Int(count)
            return (number, .bytes(self.bytes[start..<self.position]))
        default: return nil
        }
    }

    /// The next number of a packed list; nil at the end.
    mutating func varint() -> UInt64? {
        var value: UInt64 = 0
        for index in 0..<UInt64(10) {
            guard self.position < self.bytes.endIndex else { return nil }
            let byte = self.bytes[self.position]
            self.position += 1
            value |= UInt64(byte & 0x7F) << (7 * index)
            if byte < 0x80 { return value }
        }
        return nil
    }

    /// The next number of a packed list whose numbers have a fixed width; nil at the end.
    mutating func fixed(_ count: Int) -> UInt64? {
        guard self.bytes.endIndex - self.position >= count else { return nil }
        var value: UInt64 = 0
        for index in 0..<count { value |= UInt64(self.bytes[self.position + index]) << UInt64(8 * index) }
        self.position += count
        return value
    }

    // MARK: - Writing

    static func append(varint value: UInt64, to bytes: inout [UInt8]) {
        var value = value
        while value >= 0x80 {
            bytes.append(UInt8(truncatingIfNeeded: value) | 0x80)
            value >>= 7
        }
        bytes.append(UInt8(truncatingIfNeeded: value))
    }

    static func append(fixed value: UInt64, count: Int, to bytes: inout [UInt8]) {
        for index in 0..<count { bytes.append(UInt8(truncatingIfNeeded: value >> UInt64(8 * index))) }
    }

    static func append(_ payload: some Collection<UInt8>, field: UInt32, to bytes: inout [UInt8]) {
        self.append(varint: UInt64(field) << 3 | 2, to: &bytes)
        self.append(varint: UInt64(payload.count), to: &bytes)
        bytes += payload
    }
}
