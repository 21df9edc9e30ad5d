// SPDX-License-Identifier: Apache-2.0

internal import CNGHTTP2

/// Remembers the peer's header blocks, so that a repeated one costs no strings.
///
/// Most fields that a peer repeats are in the connection's compression table, and the library hands out the table's own
/// buffers for them: the same address is the same text. The buffers are retained here, so that their addresses are not
/// reused. Other fields, paths for example, are compared byte by byte.
struct BlockRecall {
    /// A field as the library holds it.
    struct Buffers {
        var name: OpaquePointer
        var value: OpaquePointer

        /// Whether two fields have the same name and value.
        func equals(_ other: Buffers) -> Bool {
            switchyard_rcbuf_equal(self.name, other.name) != 0 && switchyard_rcbuf_equal(self.value, other.value) != 0
        }

        func retain() {
            nghttp2_rcbuf_incref(self.name)
            nghttp2_rcbuf_incref(self.value)
        }

        func release() {
            nghttp2_rcbuf_decref(self.name)
            nghttp2_rcbuf_decref(self.value)
        }
    }

    /// A block that came before.
    struct Block {
        /// Unique among the blocks of the connection.
        let id: Int
        let buffers: [Buffers]
        let fields: [HTTP2HeaderField]
        let sizeBytes: Int
    }

    /// How many blocks are remembered.
    static let blockLimit = 8
    /// The largest block that is remembered, in bytes as header lists are counted.
    static let blockBytes = 2_048

    private var blocks: [Block] = []
    private var nextReplaced = 0
    private var nextID = 0
    /// The remembered block that matches the received one so far.
    private var candidate = 0
    private var position = 0
    private(set) var isMatching = false

    /// A block begins.
    mutating func begin() {
        self.position = 0
        self.isMatching = !self.blocks.isEmpty
    }

    /// Compares the next field.
    ///
    /// Returns whether some remembered block equals everything up to and including it. If not, ``giveUp()`` says what
    /// was equal before.
    mutating func matches(_ buffers: Buffers) -> Bool {
        let position = self.position
        let current = self.blocks[self.candidate].buffers
        if position < current.count, current[position].equals(buffers) {
            self.position += 1
            return true
        }
        for index in self.blocks.indices where index != self.candidate {
            let other = self.blocks[index].buffers
            if position < other.count, other[position].equals(buffers), self.startsAlike(other, current, position) {
                self.candidate = index
                self.position += 1
                return true
            }
        }
        return false
    }

    /// The block is complete: the remembered one that equals it, if there is one.
    mutating func complete() -> Block? {
        let current = self.blocks[self.candidate].buffers
        if current.count == self.position { return self.blocks[self.candidate] }
        let position = self.position
        guard
            let index = self.blocks.firstIndex(where: {
                $0.buffers.count == position && self.startsAlike($0.buffers, current, position)
            })
        else { return nil }
        self.candidate = index
        return self.blocks[index]
    }

    /// Stops comparing and returns the fields that were equal; their buffers are not retained for the caller.
    mutating func giveUp() -> (buffers: ArraySlice<Buffers>, fields: ArraySlice<HTTP2HeaderField>) {
        self.isMatching = false
        let block = self.blocks[self.candidate]
        return (block.buffers[..<self.position], block.fields[..<self.position])
    }

    /// Remembers a block and takes over its retained buffers.
    mutating func remember(_ buffers: [Buffers], _ fields: [HTTP2HeaderField], sizeBytes: Int) -> Int {
        let block = Block(id: self.nextID, buffers: buffers, fields: fields, sizeBytes: sizeBytes)
        self.nextID += 1
        if self.blocks.count < Self.blockLimit {
            self.candidate = self.blocks.count
            self.blocks.append(block)
        } else {
            for old in self.blocks[self.nextReplaced].buffers { old.release() }
            self.blocks[self.nextReplaced] = block
            self.candidate = self.nextReplaced
            self.nextReplaced = (self.nextReplaced + 1) % Self.blockLimit
        }
        return block.id
    }

    /// Gives all buffers back.
    mutating func forgetAll() {
        for block in self.blocks { for buffers in block.buffers { buffers.release() } }
        self.blocks = []
        self.isMatching = false
    }

    private func startsAlike(_ one: [Buffers], _ other: [Buffers], _ count: Int) -> Bool {
        for index in 0..<count where !one[index].equals(other[index]) { return false }
        return true
    }
}
