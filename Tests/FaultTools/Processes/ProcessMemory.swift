// SPDX-License-Identifier: Apache-2.0

internal import Foundation

/// The memory of another process of this user, as a fault in it changes it.
struct ProcessMemory: Sendable {
    private let process: Int32
    private let maps: [Range<UInt64>]

    /// Bytes that are read at a time.
    private static let window = 16 << 20

    /// Finds a process's own memory: what it may write, and no file holds.
    ///
    /// - Parameter process: Its id.
    /// - Throws: Errors of reading.
    init(_ process: Int32) throws {
        self.process = process
        let text = try String(contentsOfFile: "/proc/\(process)/maps", encoding: .utf8)
        self.maps = text.split(separator: "\n")
            .compactMap { line in
                let fields = line.split(separator: " ", maxSplits: 5, omittingEmptySubsequences: true)
                let ends = fields.first?.split(separator: "-").compactMap { UInt64($0, radix: 16) } ?? []
                guard fields.count >= 5, fields[1].hasPrefix("rw"), ends.count == 2, fields[4] == "0" else {
                    return nil
                }
                return ends[0]..<ends[1]
            }
    }

    private func open() throws -> FileHandle {
        guard let memory = FileHandle(forUpdatingAtPath: "/proc/\(self.process)/mem") else {
            throw FaultError(
                "the memory of process \(self.process) cannot be opened; run this as the same user, or root"
            )
        }
        return memory
    }

    /// Where some bytes are.
    ///
    /// - Parameter bytes: The bytes; only places at a multiple of 4 are looked at.
    /// - Returns: Their addresses, ascending.
    /// - Throws: ``FaultError`` where the memory cannot be read.
    func places(of bytes: Data) throws -> [UInt64] {
        let memory = try self.open()
        defer { try? memory.close() }
        var places: Set<UInt64> = []
        for map in self.maps {
            var start = map.lowerBound
            while start < map.upperBound {
                let count = min(UInt64(Self.window + bytes.count), map.upperBound - start)
                try memory.seek(toOffset: start)
                // A guard page, or one that is gone.
                guard let block = try? memory.read(upToCount: Int(count)), block.count >= bytes.count else { break }
                places.formUnion(Self.offsets(of: bytes, in: block).map { start + UInt64($0) })
                start += UInt64(Self.window)
            }
        }
        return places.sorted()
    }

    /// Where bytes are in a block whose first byte is at a multiple of 4, at such multiples.
    private static func offsets(of bytes: Data, in block: Data) -> [Int] {
        block.withUnsafeBytes { block in
            bytes.withUnsafeBytes { bytes in
                guard let start = block.baseAddress, let sought = bytes.baseAddress, bytes.count >= 8 else { return [] }
                var offsets: [Int] = []
                // Bytes of eight at a time; few places pass.
                let first = sought.loadUnaligned(as: UInt64.self)
                var offset = 0
                while offset + bytes.count <= block.count {
                    if (start + offset).loadUnaligned(as: UInt64.self) == first,
                        memcmp(start + offset, sought, bytes.count) == 0
                    {
                        offsets.append(offset)
                    }
                    offset += 4
                }
                return offsets
            }
        }
    }

    /// Flips a bit.
    ///
    /// - Parameters:
    ///   - address: The byte.
    ///   - mask: The bit.
    /// - Throws: ``FaultError`` where the memory cannot be read or written.
    func flip(_ address: UInt64, mask: UInt8) throws {
        let memory = try self.open()
        defer { try? memory.close() }
        try memory.seek(toOffset: address)
        guard let byte = try memory.read(upToCount: 1)?.first else {
            throw FaultError("the memory of process \(self.process) cannot be read at \(address)")
        }
        try memory.seek(toOffset: address)
        try memory.write(contentsOf: Data([byte ^ mask]))
    }
}
