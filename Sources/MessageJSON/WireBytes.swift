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

    private var rest: ArraySlice<UInt8>

    init(_ bytes: ArraySlice<UInt8>) { self.rest = bytes }

    /// The next field; nil at the end.
    mutating func field() -> (number: UInt32, value: Value)? {
        guard !self.rest.isEmpty, let tag = self.varint() else { return nil }
        let number = UInt32(truncatingIfNeeded: tag >> 3)
        switch tag & 7 {
        case 0: return self.varint().map { (number, .number($0)) }
        case 1: return self.fixed(8).map { (number, .number($0)) }
        case 5: return self.fixed(4).map { (number, .number($0)) }
        case 2:
            guard let count = self.varint(), count <= UInt64(self.rest.count) else { return nil }
            let bytes = self.rest.prefix(Int(count))
            self.rest = self.rest.dropFirst(Int(count))
            return (number, .bytes(bytes))
        default: return nil
        }
    }

    /// The next number of a packed list; nil at the end.
    mutating func varint() -> UInt64? {
        var value: UInt64 = 0
        for index in 0..<UInt64(10) {
            guard let byte = self.rest.popFirst() else { return nil }
            value |= UInt64(byte & 0x7F) << (7 * index)
            if byte < 0x80 { return value }
        }
        return nil
    }

    /// The next number of a packed list whose numbers have a fixed width; nil at the end.
    mutating func fixed(_ count: Int) -> UInt64? {
        guard self.rest.count >= count else { return nil }
        let value = self.rest.prefix(count).reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        self.rest = self.rest.dropFirst(count)
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
