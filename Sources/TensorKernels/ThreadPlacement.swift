// SPDX-License-Identifier: Apache-2.0

internal import CKernels

/// Keeps threads on one processor, so that a figure says where the work ran.
public enum ThreadPlacement {
    /// Binds the calling thread, and every thread that it starts from now on, to one processor.
    ///
    /// - Parameter cpu: Index of the processor.
    /// - Returns: Whether the system allowed it.
    @discardableResult
    public static func bind(to cpu: Int) -> Bool {
        ck_bind_thread(Int32(clamping: cpu)) == 1
    }
}
