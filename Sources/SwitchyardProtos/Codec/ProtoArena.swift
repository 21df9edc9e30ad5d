// SPDX-License-Identifier: Apache-2.0

import CProtobufC

/// Memory for the C structures of one message: handed out in order, zeroed, freed all at once.
///
/// protobuf-c 1.4.1 counts neither depth nor bytes while it unpacks, so the limit is enforced here: an allocation over
/// it fails, and with it the message. Zeroed blocks also make up for `unknown_fields`, which 1.4.1 leaves to others to
/// initialize (https://github.com/protobuf-c/protobuf-c/pull/703).
final class ProtoArena {
    /// The alignment of every block.
    private static let alignment = 16

    /// The most bytes to hand out.
    private let limit: Int

    /// The bytes handed out so far.
    private(set) var allocatedBytes = 0

    /// Whether an allocation was refused.
    private(set) var isExhausted = false

    private var chunks: [UnsafeMutableRawPointer] = []
    private var next: UnsafeMutableRawPointer?
    private var remaining = 0
    private var chunkBytes = 2048

    /// Creates an arena.
    ///
    /// - Parameter limit: The most bytes to hand out.
    init(limit: Int = Int.max) {
        self.limit = limit
    }

    deinit {
        for chunk in self.chunks {
            chunk.deallocate()
        }
    }

    /// Hands out a block if the limit allows it.
    func allocate(_ byteCount: Int) -> UnsafeMutableRawPointer? {
        guard byteCount >= 0, byteCount <= self.limit - self.allocatedBytes else {
            self.isExhausted = true
            return nil
        }
        return self.block(byteCount)
    }

    /// Hands out a block regardless of the limit; for sizes that this process chooses.
    func block(_ byteCount: Int) -> UnsafeMutableRawPointer {
        let rounded = (max(byteCount, 1) + Self.alignment - 1) & ~(Self.alignment - 1)
        if let start = self.next, rounded <= self.remaining {
            return self.advance(from: start, by: rounded)
        }
        self.chunkBytes = min(self.chunkBytes * 2, 1 << 20)
        let size = max(rounded, self.chunkBytes)
        let chunk = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: Self.alignment)
        chunk.initializeMemory(as: UInt8.self, repeating: 0, count: size)
        self.chunks.append(chunk)
        self.remaining = size
        return self.advance(from: chunk, by: rounded)
    }

    /// Takes a block off the front of the current chunk.
    private func advance(from start: UnsafeMutableRawPointer, by byteCount: Int) -> UnsafeMutableRawPointer {
        self.next = start + byteCount
        self.remaining -= byteCount
        self.allocatedBytes += byteCount
        return start
    }

    /// Lends the arena to protobuf-c.
    func withAllocator<R>(_ body: (UnsafeMutablePointer<ProtobufCAllocator>) -> R) -> R {
        var allocator = ProtobufCAllocator(
            alloc: { context, size in
                guard let context, let size = Int(exactly: size) else {
                    return nil
                }
                return Unmanaged<ProtoArena>.fromOpaque(context).takeUnretainedValue().allocate(size)
            },
            free: { _, _ in },
            allocator_data: Unmanaged.passUnretained(self).toOpaque()
        )
        return withExtendedLifetime(self) { body(&allocator) }
    }
}
