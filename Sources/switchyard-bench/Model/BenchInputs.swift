// SPDX-License-Identifier: Apache-2.0

import Foundation

/// Inputs that every benchmark and every run shares.
enum BenchInputs {
    /// Random token ids, the last of each sequence the end-of-sequence token.
    ///
    /// - Parameters:
    ///   - count: Number of sequences.
    ///   - tokens: Length of each.
    ///   - vocabulary: Number of token ids.
    /// - Returns: The sequences, the same at every call.
    static func sequences(count: Int, tokens: Int, vocabulary: Int) -> [[Int32]] {
        var state: UInt64 = 42
        return (0..<count)
            .map { _ in
                (0..<max(1, tokens))
                    .map { index in
                        guard index < tokens - 1 else { return 1 }
                        // A 64-bit linear congruential generator (Knuth, MMIX) is random enough to pick token ids.
                        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                        return Int32(3 + (state >> 33) % UInt64(max(1, vocabulary - 3)))
                    }
            }
    }
}
