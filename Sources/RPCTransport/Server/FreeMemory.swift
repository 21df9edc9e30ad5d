// SPDX-License-Identifier: Apache-2.0

#if canImport(Glibc)
internal import Glibc
#endif

/// Memory that was freed and that the allocator keeps.
enum FreeMemory {
    #if canImport(Glibc)
    private typealias Trim = @convention(c) (Int) -> Int32

    /// The C library's function; Swift's module of the library lacks its header.
    private static let trim: Trim? = dlsym(nil, "malloc_trim")
        .map {
            // Safety: the function of that name has this type, int malloc_trim(size_t).
            unsafeBitCast($0, to: Trim.self)
        }
    #endif

    /// Gives the system back whole pages of it, of all threads.
    ///
    /// Source: https://man7.org/linux/man-pages/man3/malloc_trim.3.html. Other libraries' allocators give back by themselves.
    static func giveBack() {
        #if canImport(Glibc)
        _ = self.trim?(0)
        #endif
    }
}
