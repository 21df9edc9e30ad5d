// SPDX-License-Identifier: Apache-2.0

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// The process's allocations so far, where a library that counts them is preloaded.
///
/// `Tests/Allocations/count_allocations.c` is that library; without it there are no counts.
struct AllocationCounter {
    private typealias Count = @convention(c) () -> UInt
    private typealias Trace = @convention(c) (Int32) -> Void

    private let total: Count
    private let trace: Trace

    /// Finds the library; nil where it was not loaded.
    init?() {
        guard let total = dlsym(nil, "switchyard_allocations"), let trace = dlsym(nil, "switchyard_trace_allocations")
        else {
            return nil
        }
        self.total = unsafeBitCast(total, to: Count.self)
        self.trace = unsafeBitCast(trace, to: Trace.self)
    }

    /// The process's allocations so far; nil where the library was not loaded.
    static var total: Int? { AllocationCounter().map { Int(clamping: $0.total()) } }

    /// Counts what a piece of work allocates, on all threads.
    ///
    /// - Parameter work: The work.
    /// - Returns: The number of allocations.
    /// - Throws: What the work throws.
    func count(_ work: () throws -> Void) rethrows -> Int {
        self.trace(1)
        let before = self.total()
        defer { self.trace(0) }
        try work()
        return Int(clamping: self.total() - before)
    }
}
