// SPDX-License-Identifier: Apache-2.0

/// Sizes of files that a manifest, an index or a server states, before any byte of them is there.
public enum StatedSizes {
    /// The most bytes of one file, and of all files of a model: 64 TiB, ten times the largest checkpoint that is known
    /// (1.6 trillion weights in float32).
    public static let most = 1 << 46

    /// Adds up sizes, and never overflows.
    ///
    /// - Parameter sizes: Sizes in bytes, as they were stated.
    /// - Returns: Their sum; nil where one of them is negative, or one or the sum is above ``most``.
    public static func total(_ sizes: some Sequence<Int>) -> Int? {
        var sum = 0
        for size in sizes {
            guard size >= 0, size <= self.most - sum else { return nil }
            sum += size
        }
        return sum
    }
}
