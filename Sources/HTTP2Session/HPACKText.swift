// SPDX-License-Identifier: Apache-2.0

/// The form of header blocks (RFC 7541, section 6), as far as repeated blocks need it; libnghttp2 codes and decodes them.
enum HPACKText {
    /// What a whole block is made of.
    struct Shape: Sendable, Equatable {
        /// Whether decoding the block leaves the compression table as it was.
        ///
        /// The same bytes then mean the same fields until another block changes the table.
        var keepsTable: Bool
        /// Where the last field begins.
        var lastField: Int
    }

    /// Walks over the fields of a block.
    ///
    /// - Parameter block: A whole block.
    /// - Returns: Its shape; nil if it ends within a field.
    static func shape(of block: UnsafeRawBufferPointer) -> Shape? {
        var index = 0
        var last = 0
        while index < block.count {
            last = index
            let first = block[index]
            if first & 0x80 != 0 {
                guard Self.integer(block, &index, prefixBits: 7) != nil else { return nil }
            } else if first & 0xe0 != 0 {
                // A literal that enters the table, or another size of the table.
                return Shape(keepsTable: false, lastField: last)
            } else {
                guard let name = Self.integer(block, &index, prefixBits: 4) else { return nil }
                if name == 0, !Self.skipString(block, &index) { return nil }
                guard Self.skipString(block, &index) else { return nil }
            }
        }
        return Shape(keepsTable: true, lastField: last)
    }

    /// Reads a literal field that stays out of the table and whose name and value are plain text.
    ///
    /// - Parameters:
    ///   - field: The bytes of one field.
    ///   - name: The name that it must have.
    /// - Returns: The place of the value; nil if the bytes are anything else.
    static func value(of field: UnsafeRawBufferPointer, named name: String) -> Range<Int>? {
        guard field.count > 2, field[0] == 0x00 || field[0] == 0x10 else { return nil }
        var index = 1
        guard let nameText = Self.plainString(field, &index) else { return nil }
        var wanted = name
        let isSame = wanted.withUTF8 { $0.elementsEqual(field[nameText]) }
        guard isSame, let value = Self.plainString(field, &index), index == field.count else { return nil }
        return value
    }

    /// Appends a literal field that stays out of the table, as plain text.
    ///
    /// - Parameters:
    ///   - field: The field.
    ///   - bytes: What it is appended to.
    static func append(_ field: HTTP2HeaderField, to bytes: inout [UInt8]) {
        bytes.append(field.isNeverIndexed ? 0x10 : 0x00)
        Self.append(field.name.utf8, to: &bytes)
        Self.append(field.value.utf8, to: &bytes)
    }

    private static func append(_ text: String.UTF8View, to bytes: inout [UInt8]) {
        var rest = text.count
        if rest < 127 {
            bytes.append(UInt8(rest))
        } else {
            bytes.append(127)
            rest -= 127
            while rest >= 128 {
                bytes.append(UInt8(rest & 127) | 128)
                rest >>= 7
            }
            bytes.append(UInt8(rest))
        }
        bytes.append(contentsOf: text)
    }

    /// Reads an integer (RFC 7541, section 5.1); nil where it is cut off or larger than a block can need.
    private static func integer(_ bytes: UnsafeRawBufferPointer, _ index: inout Int, prefixBits: Int) -> Int? {
        guard index < bytes.count else { return nil }
        let mask = 1 << prefixBits - 1
        var value = Int(bytes[index]) & mask
        index += 1
        guard value == mask else { return value }
        var shift = 0
        while index < bytes.count, shift <= 28 {
            let byte = bytes[index]
            index += 1
            value += Int(byte & 127) << shift
            if byte & 128 == 0 { return value }
            shift += 7
        }
        return nil
    }

    private static func skipString(_ bytes: UnsafeRawBufferPointer, _ index: inout Int) -> Bool {
        guard let count = Self.integer(bytes, &index, prefixBits: 7), count <= bytes.count - index else { return false }
        index += count
        return true
    }

    /// The place of a string that is not Huffman-coded.
    private static func plainString(_ bytes: UnsafeRawBufferPointer, _ index: inout Int) -> Range<Int>? {
        guard index < bytes.count, bytes[index] & 0x80 == 0,
            let count = Self.integer(bytes, &index, prefixBits: 7), count <= bytes.count - index
        else { return nil }
        defer { index += count }
        return index..<index + count
    }
}
