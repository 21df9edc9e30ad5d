// SPDX-License-Identifier: Apache-2.0

internal import COpenBLAS

/// Which kernel families this process computes with, for logs and benchmark results.
public enum KernelReport {
    /// One line that names the instruction set of the packed product and the kernel family of OpenBLAS.
    ///
    /// - Returns: For example `packed product: AVX-512; OpenBLAS: SkylakeX, 1 thread`.
    public static func describe() -> String {
        BLAS.prepare()
        let core = openblas_get_corename().map { String(cString: $0) } ?? "unknown"
        return "packed product: \(KernelLevel.best.name); OpenBLAS: \(core), 1 thread"
    }
}
