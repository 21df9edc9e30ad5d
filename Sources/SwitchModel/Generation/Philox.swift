// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

/// Philox4x32-10, a counter-based random number generator: each draw is a function of a key and a counter.
///
/// So a draw depends only on the seed, the sequence and the step, never on what else is generated at the same time or
/// in what order. From J. Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3" (SC 2011), section 3.4
/// (doi:10.1145/2063384.2063405), without deviations.
package enum Philox {
    /// The block of random words for a counter.
    ///
    /// - Parameters:
    ///   - counter: Four words.
    ///   - key: Two words.
    /// - Returns: Four words.
    static func block(counter: SIMD4<UInt32>, key: SIMD2<UInt32>) -> SIMD4<UInt32> {
        var counter = counter
        var key = key
        for round in 0..<10 {
            if round > 0 {
                key &+= SIMD2(0x9E37_79B9, 0xBB67_AE85)
            }
            let first = UInt64(0xD251_1F53) * UInt64(counter[0])
            let second = UInt64(0xCD9E_8D57) * UInt64(counter[2])
            counter = SIMD4(
                UInt32(truncatingIfNeeded: second >> 32) ^ counter[1] ^ key[0],
                UInt32(truncatingIfNeeded: second),
                UInt32(truncatingIfNeeded: first >> 32) ^ counter[3] ^ key[1],
                UInt32(truncatingIfNeeded: first)
            )
        }
        return counter
    }

    /// A number that is uniform within 0..<1, a multiple of 2^-53.
    ///
    /// The key is the seed and the counter is (step, sequence), each as two words, the lower first; the number is made
    /// of the block's first two words, the second being the upper one.
    ///
    /// - Parameters:
    ///   - seed: The request's seed.
    ///   - sequence: Which of the request's sequences draws.
    ///   - step: How many tokens the sequence has.
    /// - Returns: The number.
    package static func uniform(seed: UInt64, sequence: UInt64, step: UInt64) -> Double {
        func words(_ value: UInt64) -> SIMD2<UInt32> {
            SIMD2(UInt32(truncatingIfNeeded: value), UInt32(truncatingIfNeeded: value >> 32))
        }
        let block = Self.block(counter: SIMD4(lowHalf: words(step), highHalf: words(sequence)), key: words(seed))
        let bits = UInt64(block[1]) << 32 | UInt64(block[0])
        return Double(bits >> 11) * 0x1p-53
    }
}
