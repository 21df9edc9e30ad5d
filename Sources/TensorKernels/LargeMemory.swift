// SPDX-License-Identifier: Apache-2.0

#if canImport(Glibc)
internal import Glibc
#elseif canImport(Musl)
internal import Musl
#endif

/// Zeroed memory for large arrays that live long.
///
/// From 4 MiB on it comes from the system page by page as it is first written, in pages of 2 MiB where the system has them:
/// nothing is cleared twice, what is never touched takes no memory, and walks over gigabytes miss the processor's address
/// tables less often.
public final class LargeMemory: @unchecked Sendable {
    // Safety: only the address is kept here; its owner says which thread writes where.

    /// The first byte, at a multiple of 64.
    ///
    /// The memory is zeros at first, and valid as long as this object lives.
    public let start: UnsafeMutableRawPointer

    /// Bytes.
    public let byteCount: Int

    /// Bytes that are mapped; 0 where the memory is the allocator's.
    private let mapped: Int

    private static let least = 4 << 20
    private static let page = 2 << 20

    /// Takes memory.
    ///
    /// - Parameter byteCount: Bytes, at least 0.
    public init(byteCount: Int) {
        self.byteCount = byteCount
        if byteCount >= Self.least, let (start, mapped) = Self.map(byteCount) {
            self.start = start
            self.mapped = mapped
            return
        }
        self.start = .allocate(byteCount: max(byteCount, 64), alignment: 64)
        self.start.initializeMemory(as: UInt8.self, repeating: 0, count: byteCount)
        self.mapped = 0
    }

    deinit {
        if self.mapped > 0 {
            #if os(Linux)
            munmap(self.start, self.mapped)
            #endif
        } else {
            self.start.deallocate()
        }
    }

    /// Maps whole large pages at a multiple of their size; nil where the system refuses, or knows no such calls.
    private static func map(_ byteCount: Int) -> (UnsafeMutableRawPointer, Int)? {
        #if os(Linux)
        let (rounded, overflows) = byteCount.addingReportingOverflow(Self.page - 1)
        guard !overflows, rounded < Int.max - Self.page else { return nil }
        let length = rounded / Self.page * Self.page
        let wanted = length + Self.page
        guard let base = mmap(nil, wanted, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
            base != MAP_FAILED
        else { return nil }
        let before = (Self.page - Int(bitPattern: base) % Self.page) % Self.page
        if before > 0 { munmap(base, before) }
        munmap(base + before + length, Self.page - before)
        // The system may have no large pages; small ones do.
        _ = madvise(base + before, length, MADV_HUGEPAGE)
        return (base + before, length)
        #else
        return nil
        #endif
    }
}
