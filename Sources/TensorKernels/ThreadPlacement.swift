// SPDX-License-Identifier: Apache-2.0

internal import CKernels

/// Keeps threads on one processor, so that a figure shows where the work ran.
public enum ThreadPlacement {
    /// The processors that the calling thread may run on.
    ///
    /// - Returns: Their indices, ascending; none where the system does not say.
    public static func allowedProcessors() -> [Int] {
        withUnsafeTemporaryAllocation(of: Int32.self, capacity: 1024) { room in
            let count = ck_allowed_processors(room.baseAddress, Int32(room.count))
            return (0..<Int(count)).map { Int(room[$0]) }
        }
    }

    /// Binds the calling thread, and every thread that it starts from now on, to one processor.
    ///
    /// - Parameter cpu: Index of the processor.
    /// - Returns: Whether the system allowed it.
    @discardableResult
    public static func bind(to cpu: Int) -> Bool {
        ck_bind_thread(Int32(clamping: cpu)) == 1
    }
}
