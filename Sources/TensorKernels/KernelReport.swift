// SPDX-License-Identifier: Apache-2.0

internal import CKernels

/// Which kernel families this process computes with, for logs and benchmark results.
public enum KernelReport {
    /// One line that names the instruction sets of the packed products and the caches that they are cut for.
    ///
    /// - Returns: For example `packed product: AVX-512, int8: AVX-512 VNNI, for caches of 48 KiB and 2 MiB`; where products of
    ///   few rows are cut for the smaller cache, it ends with `48 KiB (few rows) and 1 MiB`.
    public static func describe() -> String {
        let level = KernelLevel.best
        let few = ck_prefers_near_slices() != 0 ? " (few rows)" : ""
        let caches = "\(size(ofCache: 1))\(few) and \(size(ofCache: 2))"
        return "packed product: \(level.name), int8: \(level.int8Name), for caches of \(caches)"
    }

    /// The size of a cache that products are cut for.
    private static func size(ofCache level: Int32) -> String {
        let kibibytes = ck_cache_bytes(level) >> 10
        return kibibytes % 1024 == 0 ? "\(kibibytes >> 10) MiB" : "\(kibibytes) KiB"
    }

    /// Cuts products of few rows for the smaller cache or not, whatever this processor prefers; nil: as it prefers.
    ///
    /// No bit of a product depends on it.
    static func setNearSlices(_ preferred: Bool?) {
        ck_set_near_slices(preferred.map { $0 ? 1 : 0 } ?? -1)
    }
}
