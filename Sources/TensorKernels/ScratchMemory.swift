// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes
internal import Synchronization

/// Memory that is used again and again and grows where it must.
final class ScratchMemory: @unchecked Sendable {
    // Safety: used by one caller at a time, the one who has taken it from its shelf, and by the threads that work for
    // that caller until it gives it back.

    /// Bytes that there is room for.
    private(set) var capacity = 0

    private var base: UnsafeMutableRawPointer?

    /// The first byte; nothing before the first call of `reserve`.
    var start: UnsafeRawPointer? { UnsafeRawPointer(self.base) }

    deinit {
        self.base?.deallocate()
    }

    /// Makes room; what was there before is lost.
    ///
    /// - Parameter byteCount: Bytes that are needed.
    /// - Returns: As many bytes, at a multiple of 64, valid until the next call.
    func reserve(_ byteCount: Int) -> UnsafeMutableRawPointer {
        if let base, byteCount <= self.capacity {
            return base
        }
        self.base?.deallocate()
        // More than asked for, so that slowly growing needs do not allocate each time.
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

    /// Puts memory back on the shelf.
    ///
    /// - Parameter memory: What `take()` returned; nobody uses it any more.
    func giveBack(_ memory: ScratchMemory) {
        guard memory.capacity <= ScratchShelf.mostKept else {
            return
        }
        self.idle.withLock { $0.append(memory) }
    }
}
