// SPDX-License-Identifier: Apache-2.0

internal import NIOCore

/// What waits to be written to a socket: a pure machine.
///
/// Only what was flushed is written. Every write has a receipt, which is given back when its last byte is written.
struct OutboundQueue<Receipt> {
    private struct Item {
        var bytes: ByteBuffer
        var receipt: Receipt
    }

    private var items: [Item] = []
    private var first = 0
    /// How many items from the first one were flushed.
    private var flushedCount = 0
    private let low: Int
    private let high: Int
    /// The bytes of all items.
    private(set) var byteCount = 0
    /// Whether more should be added: not from the high mark on until no more than the low mark waits.
    private(set) var isWritable = true

    /// Creates an empty queue.
    ///
    /// - Parameters:
    ///   - low: How many bytes may wait for the queue to be writable again.
    ///   - high: With more bytes it is not writable.
    init(low: Int, high: Int) {
        self.low = low
        self.high = high
    }

    /// Whether nothing waits, flushed or not.
    var isEmpty: Bool { self.first == self.items.count }

    /// Whether something flushed waits.
    var hasFlushed: Bool { self.flushedCount > 0 }

    /// Adds bytes.
    ///
    /// - Returns: Whether the queue stopped being writable.
    mutating func add(_ bytes: ByteBuffer, _ receipt: Receipt) -> Bool {
        self.items.append(Item(bytes: bytes, receipt: receipt))
        self.byteCount += bytes.readableBytes
        guard self.isWritable, self.byteCount > self.high else { return false }
        self.isWritable = false
        return true
    }

    /// Everything so far may be written.
    mutating func flush() { self.flushedCount = self.items.count - self.first }

    /// The next flushed buffers.
    ///
    /// - Parameter limit: How many at most.
    /// - Returns: The buffers, in their order.
    func next(limit: Int) -> [ByteBuffer] {
        self.items[self.first..<self.first + min(limit, self.flushedCount)].map(\.bytes)
    }

    /// The first flushed buffer, and whether it is the only one.
    var head: (bytes: ByteBuffer, isOnly: Bool)? {
        self.flushedCount > 0 ? (self.items[self.first].bytes, self.flushedCount == 1) : nil
    }

    /// Bytes were written.
    ///
    /// - Parameters:
    ///   - count: How many; no more than were flushed.
    ///   - finished: Gets the receipts of the writes that are done, empty ones among them.
    /// - Returns: Whether the queue is writable again.
    mutating func wrote(_ count: Int, finished: inout [Receipt]) -> Bool {
        var left = count
        while self.flushedCount > 0 {
            let size = self.items[self.first].bytes.readableBytes
            guard size <= left else {
                self.items[self.first].bytes.moveReaderIndex(forwardBy: left)
                self.byteCount -= left
                break
            }
            left -= size
            self.byteCount -= size
            finished.append(self.items[self.first].receipt)
            self.items[self.first].bytes = ByteBuffer()
            self.first += 1
            self.flushedCount -= 1
        }
        self.compact()
        guard !self.isWritable, self.byteCount <= self.low else { return false }
        self.isWritable = true
        return true
    }

    /// Nothing will be written any more.
    ///
    /// - Returns: The receipts of all that waited.
    mutating func end() -> [Receipt] {
        defer {
            self.items = []
            self.first = 0
            self.flushedCount = 0
            self.byteCount = 0
        }
        return self.items[self.first...].map(\.receipt)
    }

    /// Checks what must hold between any two calls.
    ///
    /// - Returns: What does not hold; nil if all does.
    func checkInvariants() -> String? {
        var broken: [String] = []
        let waiting = self.items[self.first...]
        if waiting.reduce(0, { $0 + $1.bytes.readableBytes }) != self.byteCount {
            broken.append("the bytes are miscounted")
        }
        if self.flushedCount > waiting.count { broken.append("more is flushed than waits") }
        if self.isWritable && self.byteCount > self.high { broken.append("writable over the high mark") }
        if !self.isWritable && self.byteCount <= self.low && !self.isEmpty {
            broken.append("not writable under the low mark")
        }
        return broken.first
    }

    private mutating func compact() {
        if self.first == self.items.count {
            self.items.removeAll(keepingCapacity: true)
            self.first = 0
        } else if self.first > 256 {
            self.items.removeFirst(self.first)
            self.first = 0
        }
    }
}
