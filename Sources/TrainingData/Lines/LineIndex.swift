// SPDX-License-Identifier: Apache-2.0

/// Where a file's lines begin: one offset for a block of lines, since one for each line may not fit into memory.
///
/// A block ends before the first line that begins after 64 lines or 64 KiB, so reaching a line costs at most 64 KiB of
/// reading, and the index has at most 16 bytes for 64 KiB of text, or for 64 lines where they are short.
struct LineIndex: Sendable, Hashable {
    /// Lines of a block at most.
    static let linesPerBlock = 64

    /// Bytes after which no further line joins a block.
    static let bytesPerBlock = 1 << 16

    private struct Block: Sendable, Hashable {
        var firstLine: Int
        var offset: Int
    }

    private var blocks: [Block] = []
    private var offset = 0
    private var atLineStart = true

    /// The lines so far, a last one without an end among them.
    private(set) var lineCount = 0

    /// The bytes so far.
    var byteCount: Int { self.offset }

    /// The memory that the index takes.
    var indexBytes: Int { self.blocks.count * MemoryLayout<Block>.stride }

    /// Takes the file's next bytes.
    ///
    /// - Parameter bytes: The bytes; a line may go on in the next call's.
    mutating func add(_ bytes: UnsafeRawBufferPointer) {
        var position = 0
        while position < bytes.count {
            if self.atLineStart {
                self.beginLine(at: self.offset + position)
                self.atLineStart = false
            }
            let rest = UnsafeRawBufferPointer(rebasing: bytes[position...])
            guard let end = rest.firstIndex(of: UInt8(ascii: "\n")) else { break }
            position += end + 1
            self.atLineStart = true
        }
        self.offset += bytes.count
    }

    private mutating func beginLine(at offset: Int) {
        if let last = self.blocks.last, self.lineCount - last.firstLine < Self.linesPerBlock,
            offset - last.offset < Self.bytesPerBlock
        {
            self.lineCount += 1
            return
        }
        self.blocks.append(Block(firstLine: self.lineCount, offset: offset))
        self.lineCount += 1
    }

    /// Where to begin to read for a line.
    ///
    /// - Parameter line: Within `0 ..< lineCount`.
    /// - Returns: The offset of a line's first byte, and how many lines to skip from there.
    func start(of line: Int) -> (offset: Int, skip: Int) {
        var low = 0
        var high = self.blocks.count
        while high - low > 1 {
            let middle = (low + high) / 2
            if self.blocks[middle].firstLine <= line {
                low = middle
            } else {
                high = middle
            }
        }
        let block = self.blocks[low]
        return (block.offset, line - block.firstLine)
    }
}
