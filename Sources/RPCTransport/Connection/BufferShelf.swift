// SPDX-License-Identifier: Apache-2.0

package import NIOCore

/// Buffers that are filled again once all who had them have let go of them.
///
/// It needs no sign that a buffer is free, and no mistake can give the same memory to two users: a `ByteBuffer` copies on write, so
/// one that anything still refers to, such as an answer that is read late, is replaced by a new one. What is kept is bounded by number
/// and size.
package struct BufferShelf: Sendable {
    private var kept: [ByteBuffer]
    private var next = 0
    /// The most bytes of memory of a buffer that is kept.
    private let limitBytes: Int

    /// Creates a shelf without buffers.
    ///
    /// - Parameters:
    ///   - count: How many are kept, at least 1. With more than one, a buffer may stay in use while later ones are filled.
    ///   - limitBytes: The most bytes of memory of each; larger buffers are not kept.
    package init(count: Int = 1, limitBytes: Int) {
        self.kept = Array(repeating: ByteBuffer(), count: max(1, count))
        self.limitBytes = limitBytes
    }

    /// An empty buffer to fill and then to ``keep(_:)``.
    ///
    /// - Parameter capacity: The bytes of room that it has at least.
    /// - Returns: The buffer, which nothing else refers to.
    package mutating func take(capacity: Int) -> ByteBuffer {
        guard capacity <= self.limitBytes else { return ByteBufferAllocator().buffer(capacity: capacity) }
        var buffer = ByteBuffer()
        swap(&buffer, &self.kept[self.next])
        buffer.clear(minimumCapacity: capacity)
        return buffer
    }

    /// Keeps a buffer that was filled, to be taken again after as many others as there are places.
    ///
    /// - Parameter buffer: The buffer; it is not written to any more.
    package mutating func keep(_ buffer: ByteBuffer) {
        guard buffer.storageCapacity <= self.limitBytes else { return }
        self.kept[self.next] = buffer
        self.next = (self.next + 1) % self.kept.count
    }
}
