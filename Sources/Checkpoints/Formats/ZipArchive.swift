// SPDX-License-Identifier: Apache-2.0

/// The members of a zip archive whose members are stored, not compressed: what `torch.save` writes.
///
/// Follows PKWARE's APPNOTE.TXT 6.3.10, sections 4.3 and 4.5.3 (zip64). Checksums are not verified, since that would
/// read all weights. Archives in several volumes, encrypted and compressed members are refused.
struct ZipArchive {
    /// Every member's name, and where its bytes lie in the file.
    let members: [String: Range<Int>]

    private static let maxMembers = 1_000_000
    private static let endBytes = 22
    private static let maxCommentBytes = 65_535

    init(_ bytes: UnsafeRawBufferPointer, path: String) throws(CheckpointError) {
        let reader = ByteReader(bytes, path: path)
        let directory = try Self.findDirectory(reader)
        var members: [String: Range<Int>] = [:]
        var position = directory.lowerBound
        while position < directory.upperBound {
            let member = try Self.member(reader, at: position, directoryEnd: directory.upperBound)
            guard members.updateValue(member.data, forKey: member.name) == nil else {
                throw reader.malformed("holds two members named \"\(member.name.prefix(200))\"")
            }
            guard members.count <= Self.maxMembers else {
                throw reader.malformed("holds more than \(Self.maxMembers) members")
            }
            position = member.next
        }
        self.members = members
    }

    /// Where the central directory lies.
    private static func findDirectory(_ reader: ByteReader) throws(CheckpointError) -> Range<Int> {
        guard reader.count >= self.endBytes else {
            throw reader.malformed("is \(reader.count) bytes long, too short for a zip archive")
        }
        var end = reader.count - self.endBytes
        let lowest = max(0, end - self.maxCommentBytes)
        while true {
            if try reader.uint32(end) == 0x0605_4B50,
                end + self.endBytes + Int(try reader.uint16(end + 20)) == reader.count
            {
                break
            }
            guard end > lowest else {
                throw reader.malformed(
                    "is neither a zip archive of torch.save nor its older format, or was cut off"
                )
            }
            end -= 1
        }
        var (disk, offset, size) = (
            UInt64(try reader.uint16(end + 4)), UInt64(try reader.uint32(end + 16)), UInt64(try reader.uint32(end + 12))
        )
        if end >= 20, try reader.uint32(end - 20) == 0x0706_4B50 {
            let record = try reader.position(try reader.uint64(end - 12), needing: 56)
            guard try reader.uint32(record) == 0x0606_4B50 else {
                throw reader.malformed("has a zip64 locator that points at something else")
            }
            disk = UInt64(try reader.uint32(record + 16))
            size = try reader.uint64(record + 40)
            offset = try reader.uint64(record + 48)
        }
        guard disk == 0 else { throw reader.malformed("is one volume of several") }
        guard size <= UInt64(reader.count) else {
            throw reader.malformed("announces a directory of \(size) bytes, more than the file has")
        }
        let start = try reader.position(offset, needing: Int(size))
        return start..<start + Int(size)
    }

    private struct Member {
        var name: String
        var data: Range<Int>
        var next: Int
    }

    private static func member(
        _ reader: ByteReader,
        at position: Int,
        directoryEnd: Int
    ) throws(CheckpointError) -> Member {
        guard position + 46 <= directoryEnd, try reader.uint32(position) == 0x0201_4B50 else {
            throw reader.malformed("has a damaged directory at byte \(position)")
        }
        let flags = try reader.uint16(position + 8)
        let method = try reader.uint16(position + 10)
        let nameBytes = Int(try reader.uint16(position + 28))
        let extraBytes = Int(try reader.uint16(position + 30))
        let commentBytes = Int(try reader.uint16(position + 32))
        let next = position + 46 + nameBytes + extraBytes + commentBytes
        guard next <= directoryEnd else { throw reader.malformed("has a damaged directory at byte \(position)") }
        let name = try reader.text(position + 46, count: nameBytes)
        guard flags & 1 == 0, method == 0 else {
            throw CheckpointError(
                code: .unsupported,
                message:
                    "holds \"\(name.prefix(200))\" encrypted or compressed (method \(method)); save it again with torch.save",
                file: reader.path
            )
        }
        var fields = [
            UInt64(try reader.uint32(position + 24)), UInt64(try reader.uint32(position + 20)),
            UInt64(try reader.uint32(position + 42)),
        ]
        let extra = position + 46 + nameBytes
        try self.widen(&fields, reader, extra..<extra + extraBytes)
        guard fields[0] == fields[1] else {
            throw reader.malformed("holds \"\(name.prefix(200))\" stored, but with two sizes")
        }
        let header = try reader.position(fields[2], needing: 30)
        guard try reader.uint32(header) == 0x0403_4B50 else {
            throw reader.malformed("has no member where the directory puts \"\(name.prefix(200))\"")
        }
        // The local header's name and extra field may have other lengths: torch pads the latter to align the data.
        let skipped = 30 + Int(try reader.uint16(header + 26)) + Int(try reader.uint16(header + 28))
        guard fields[0] <= UInt64(reader.count) else {
            throw reader.malformed("ends before the end of \"\(name.prefix(200))\"")
        }
        let data = try reader.position(UInt64(header + skipped), needing: Int(fields[0]))
        return Member(name: name, data: data..<data + Int(fields[0]), next: next)
    }

    /// Replaces each field that has all bits set by its 64-bit value from the zip64 extra field, in that field's order.
    private static func widen(
        _ fields: inout [UInt64],
        _ reader: ByteReader,
        _ extra: Range<Int>
    ) throws(CheckpointError) {
        let wanted = fields.indices.filter { fields[$0] == 0xFFFF_FFFF }
        guard !wanted.isEmpty else { return }
        var position = extra.lowerBound
        while position + 4 <= extra.upperBound {
            let (kind, count) = (try reader.uint16(position), Int(try reader.uint16(position + 2)))
            position += 4
            guard position + count <= extra.upperBound else { break }
            if kind == 1, count >= wanted.count * 8 {
                for (slot, field) in wanted.enumerated() { fields[field] = try reader.uint64(position + slot * 8) }
                return
            }
            position += count
        }
        throw reader.malformed("lacks the 64-bit sizes of a large member")
    }
}

/// Bounds-checked little-endian reading.
struct ByteReader {
    let bytes: UnsafeRawBufferPointer
    let path: String
    var count: Int { self.bytes.count }

    init(_ bytes: UnsafeRawBufferPointer, path: String) {
        self.bytes = bytes
        self.path = path
    }

    func uint16(_ position: Int) throws(CheckpointError) -> UInt16 {
        try self.check(position, 2)
        return UInt16(littleEndian: self.bytes.loadUnaligned(fromByteOffset: position, as: UInt16.self))
    }

    func uint32(_ position: Int) throws(CheckpointError) -> UInt32 {
        try self.check(position, 4)
        return UInt32(littleEndian: self.bytes.loadUnaligned(fromByteOffset: position, as: UInt32.self))
    }

    func uint64(_ position: Int) throws(CheckpointError) -> UInt64 {
        try self.check(position, 8)
        return UInt64(littleEndian: self.bytes.loadUnaligned(fromByteOffset: position, as: UInt64.self))
    }

    /// Bytes as text, invalid UTF-8 replaced: names are compared, never trusted.
    func text(_ position: Int, count: Int) throws(CheckpointError) -> String {
        try self.check(position, count)
        return String(decoding: self.bytes[position..<position + count], as: UTF8.self)
    }

    /// An offset read from the file as a position, if enough bytes follow it.
    func position(_ offset: UInt64, needing count: Int) throws(CheckpointError) -> Int {
        guard offset <= UInt64(self.count), count <= self.count - Int(offset) else {
            throw self.malformed("is \(self.count) bytes long and points at \(count) bytes from byte \(offset)")
        }
        return Int(offset)
    }

    private func check(_ position: Int, _ needed: Int) throws(CheckpointError) {
        guard position >= 0, needed >= 0, position <= self.count - needed else {
            throw self.malformed("is \(self.count) bytes long and ends inside a record at byte \(position)")
        }
    }

    func malformed(_ complaint: String) -> CheckpointError {
        CheckpointError(code: .malformed, message: complaint + "; fetch the file again", file: self.path)
    }
}
