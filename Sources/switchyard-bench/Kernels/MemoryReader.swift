// SPDX-License-Identifier: Apache-2.0

import CKernels
import TensorKernels

/// A plain loop that reads memory: the upper bound for a product that reads its weights once.
enum MemoryReader {
    /// Reads bytes front to back.
    ///
    /// - Parameters:
    ///   - bytes: The memory; need not be aligned.
    ///   - level: The instruction set; the result is the same for all.
    /// - Returns: The exclusive or of the memory's 64-bit words, the last one filled up with zeros.
    static func read(_ bytes: UnsafeRawBufferPointer, level: KernelLevel = .best) -> UInt64 {
        bytes.baseAddress.map { ck_read(level.rawValue, $0, bytes.count) } ?? 0
    }
}
