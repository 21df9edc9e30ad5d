// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes
internal import Synchronization

/// Memory that is reused and grows when needed.
final class ScratchMemory: @unchecked Sendable {
    // Safety: used by one caller at a time, the one that took it from its shelf, and by the threads that work for that
    // caller until it is returned.

    /// Capacity in bytes.
    private(set) var capacity = 0

    private var base: UnsafeMutableRawPointer?

    /// The first byte; nil before the first call of `reserve`.
    var start: UnsafeRawPointer? { UnsafeRawPointer(self.base) }

    deinit {
        self.base?.deallocate()
    }

    /// Makes room; the old content is lost.
    ///
    /// - Parameter byteCount: Bytes that are needed.
    /// - Returns: As many bytes, at a multiple of 64, valid until the next call.
    func reserve(_ byteCount: Int) -> UnsafeMutableRawPointer {
        if let base, byteCount <= self.capacity {
            return base
        }
        self.base?.deallocate()
        // More than requested, so that slowly growing needs do not allocate each time.
        self.capacity = byteCount + byteCount / 2 + 4096
        let base = UnsafeMutableRawPointer.allocate(byteCount: self.capacity, alignment: 64)
        self.base = base
        return base
    }
}

/// Scratch memory that is not in use.
final class ScratchShelf: Sendable {
    /// Bytes above which memory is freed rather than kept: the inputs of an unusually large call.
    private static let mostKept = 64 << 20

    private let idle = Mutex<[ScratchMemory]>([])

    /// Takes memory from the shelf.
    ///
    /// - Returns: Memory for the caller alone, of any capacity.
    func take() -> ScratchMemory {
        self.idle.withLock { $0.popLast() } ?? ScratchMemory()
    }

    /// Returns memory to the shelf.
    ///
    /// - Parameter memory: What `take()` returned; it must no longer be in use.
    func giveBack(_ memory: ScratchMemory) {
        guard memory.capacity <= ScratchShelf.mostKept else {
            return
        }
        self.idle.withLock { $0.append(memory) }
    }
}
