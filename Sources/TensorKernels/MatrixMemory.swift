// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// Memory of freed matrices, kept for the next ones.
///
/// Every layer makes matrices of the sizes that the layer before it made. Large ones would come from the system each
/// time, which clears every page first: in an encoder step over 2,048 tokens that takes a tenth of the time.
enum MatrixMemory {
    /// Alignment of all memory, in bytes: a cache line, and a register of AVX-512.
    static let alignment = 64

    /// Smallest size that is kept; the allocator is fast enough for smaller ones.
    static let smallest = 1 << 14

    /// Most bytes that are kept; memory beyond them goes back to the allocator.
    static let limit = 192 << 20

    private struct Shelf: @unchecked Sendable {
        // Safety: memory on the shelf is not in use elsewhere, and the shelf is touched only under its lock.
        var free: [Int: [UnsafeMutableRawPointer]] = [:]
        var bytes = 0
    }

    private static let shelf = Mutex(Shelf())

    /// Bytes that are kept at the moment.
    static var kept: Int { self.shelf.withLock { $0.bytes } }

    /// The size that is really allocated for a number of bytes: at most an eighth more, so that similar sizes share
    /// memory.
    static func size(_ bytes: Int) -> Int {
        let least = max(bytes, self.alignment)
        guard least >= self.smallest else {
            return least
        }
        let step = 1 << (Int.bitWidth - 1 - least.leadingZeroBitCount - 3)
        return (least + step - 1) & ~(step - 1)
    }

    /// Takes memory whose contents are undefined.
    static func take(_ bytes: Int) -> UnsafeMutableRawPointer {
        let size = self.size(bytes)
        if size >= self.smallest {
            let known = self.shelf.withLock { shelf -> UnsafeMutableRawPointer? in
                guard let pointer = shelf.free[size]?.popLast() else {
                    return nil
                }
                shelf.bytes -= size
                return pointer
            }
            if let known {
                return known
            }
        }
        return .allocate(byteCount: size, alignment: self.alignment)
    }

    /// Returns memory that ``take(_:)`` gave out for `bytes` bytes.
    static func give(_ pointer: UnsafeMutableRawPointer, _ bytes: Int) {
        let size = self.size(bytes)
        let isKept = self.shelf.withLock { shelf in
            guard size >= self.smallest, shelf.bytes + size <= self.limit else {
                return false
            }
            shelf.free[size, default: []].append(pointer)
            shelf.bytes += size
            return true
        }
        if !isKept {
            pointer.deallocate()
        }
    }
}
