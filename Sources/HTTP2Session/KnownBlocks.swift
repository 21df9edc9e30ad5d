// SPDX-License-Identifier: Apache-2.0

internal import CNGHTTP2

/// Remembers the peer's header blocks, so that a repeated one is neither decoded nor checked again.
///
/// The bytes of a block mean the same fields as long as the compression table is the same. So a block that left the table as it
/// was is remembered with the table's generation, and recognised by its bytes until another block changes the table.
struct KnownBlocks {
    /// A block that came before.
    final class Block {
        /// Unique among the blocks of the connection.
        let id: Int
        let fields: [HTTP2HeaderField]
        /// The size of the fields as header lists are counted.
        let sizeBytes: Int
        /// What checking it found.
        let check: MessageCheck
        /// The block on the wire, its variable field aside; empty if it cannot be recognised by that.
        var bytes: [UInt8]
        var generation: Int

        init(
            id: Int,
            _ fields: [HTTP2HeaderField],
            sizeBytes: Int,
            check: MessageCheck,
            bytes: [UInt8],
            generation: Int
        ) {
            self.id = id
            self.fields = fields
            self.sizeBytes = sizeBytes
            self.check = check
            self.bytes = bytes
            self.generation = generation
        }
    }

    /// How many blocks are remembered.
    static let blockLimit = 8
    /// The largest block that is remembered, in bytes as header lists are counted.
    static let blockBytes = 2_048

    private var blocks: [Block] = []
    private var nextReplaced = 0
    private var nextID = 0
    /// The block that was found last: most blocks of one kind are alike.
    private var last = 0
    /// How often the compression table may have changed.
    private(set) var generation = 0

    /// A block came that may have changed the compression table.
    mutating func tableChanged() { self.generation += 1 }

    /// Finds the block that some bytes begin with.
    ///
    /// - Parameters:
    ///   - bytes: A whole block.
    ///   - part: What it is in its message.
    ///   - isRest: Whether the block may end with these bytes; asked with what the remembered one does not cover.
    /// - Returns: The block; nil if it is none of those remembered.
    mutating func find(
        _ bytes: UnsafeRawBufferPointer,
        part: MessageCheck.Part,
        isRest: (UnsafeRawBufferPointer) -> Bool
    ) -> Block? {
        guard !self.blocks.isEmpty else { return nil }
        var place = self.last
        for _ in 0..<self.blocks.count {
            let block = self.blocks[place]
            let count = block.bytes.count
            if count > 0, count <= bytes.count, block.generation == self.generation, block.check.part == part,
                block.bytes.withUnsafeBytes({ Self.begin(bytes, with: $0) }),
                count == bytes.count || isRest(UnsafeRawBufferPointer(rebasing: bytes[count...]))
            {
                self.last = place
                return block
            }
            place = place + 1 == self.blocks.count ? 0 : place + 1
        }
        return nil
    }

    /// Remembers a decoded block.
    ///
    /// - Parameters:
    ///   - fields: Its fields.
    ///   - sizeBytes: Their size.
    ///   - check: What checking it found.
    ///   - bytes: The block on the wire, if it can be recognised by that; otherwise nothing.
    /// - Returns: The number of the block; the same for the same fields.
    mutating func remember(
        _ fields: [HTTP2HeaderField],
        sizeBytes: Int,
        check: MessageCheck,
        bytes: UnsafeRawBufferPointer
    ) -> Int {
        for place in self.blocks.indices where self.blocks[place].fields == fields {
            guard self.blocks[place].check.part == check.part else { continue }
            self.blocks[place].bytes = Array(bytes)
            self.blocks[place].generation = self.generation
            self.last = place
            return self.blocks[place].id
        }
        let block = Block(
            id: self.nextID,
            fields,
            sizeBytes: sizeBytes,
            check: check,
            bytes: Array(bytes),
            generation: self.generation
        )
        self.nextID += 1
        if self.blocks.count < Self.blockLimit {
            self.last = self.blocks.count
            self.blocks.append(block)
        } else {
            self.blocks[self.nextReplaced] = block
            self.last = self.nextReplaced
            self.nextReplaced = (self.nextReplaced + 1) % Self.blockLimit
        }
        return block.id
    }

    private static func begin(_ bytes: UnsafeRawBufferPointer, with start: UnsafeRawBufferPointer) -> Bool {
        guard let one = bytes.baseAddress, let other = start.baseAddress else { return false }
        return switchyard_bytes_equal(one, other, start.count) != 0
    }

    /// What must hold after every event.
    ///
    /// - Returns: The first rule that does not hold; nil if all do.
    func checkInvariants() -> String? {
        if self.blocks.count > Self.blockLimit { return "\(self.blocks.count) header blocks are remembered" }
        for block in self.blocks where block.generation > self.generation {
            return "header block \(block.id) is from generation \(block.generation) of \(self.generation)"
        }
        return nil
    }
}
