// SPDX-License-Identifier: Apache-2.0

internal import COpenBLAS

/// Which kernel families this process computes with, for logs and benchmark results.
public enum KernelReport {
    /// One line that names the instruction sets of the packed products and the kernel family of OpenBLAS.
    ///
    /// - Returns: For example `packed product: AVX-512, int8: AVX-512 VNNI; OpenBLAS: SkylakeX, 1 thread`.
    public static func describe() -> String {
        BLAS.prepare()
        let core = openblas_get_corename().map { String(cString: $0) } ?? "unknown"
        let level = KernelLevel.best
        return "packed product: \(level.name), int8: \(level.int8Name); OpenBLAS: \(core), 1 thread"
    }
}
