// SPDX-License-Identifier: Apache-2.0

import SwitchyardTypes

@testable import SwitchTraining

/// Philox4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", 2011) and what training makes of it, one
/// number at a time.
struct NaiveRandom {
    let seed: UInt64
    let step: UInt32

    static func block(_ counter: [UInt32], key: [UInt32]) -> [UInt32] {
        var (counter, key) = (counter, key)
        for _ in 0..<10 {
            let first = UInt64(counter[0]) * 0xD251_1F53
            let third = UInt64(counter[2]) * 0xCD9E_8D57
            counter = [
                UInt32(third >> 32) ^ counter[1] ^ key[0], UInt32(truncatingIfNeeded: third),
                UInt32(first >> 32) ^ counter[3] ^ key[1], UInt32(truncatingIfNeeded: first),
            ]
            key = [key[0] &+ 0x9E37_79B9, key[1] &+ 0xBB67_AE85]
        }
        return counter
    }

    private func key(_ site: RandomSite) -> [UInt32] {
        let block = Self.block(
            [site.kind.rawValue, UInt32(site.stack.rawValue), UInt32(site.block), self.step],
            key: [UInt32(truncatingIfNeeded: self.seed), UInt32(truncatingIfNeeded: self.seed >> 32)]
        )
        return [block[0], block[1]]
    }

    /// What dropout multiplies an element with: 0, or the inverse of the share that is kept.
    func mask(_ site: RandomSite, rate: Double, sequence: Int, position: Int, column: Int, head: Int = 0) -> Rounded {
        let threshold = UInt32((rate * 65_536).rounded())
        guard threshold > 0 else { return .one }
        let counter = [UInt32(column / 8), UInt32(position), UInt32(sequence), UInt32(head)]
        let words = Self.block(counter, key: self.key(site))
        let half = (words[column % 8 / 2] >> (column % 2 == 0 ? 0 : 16)) & 0xFFFF
        return half < threshold ? .zero : Rounded(65_536 / Double(65_536 - threshold))
    }

    /// What jitter multiplies an element with.
    func noise(_ site: RandomSite, epsilon: Double, sequence: Int, position: Int, column: Int) -> Rounded {
        guard epsilon > 0 else { return .one }
        let counter = [UInt32(column / 4), UInt32(position), UInt32(sequence), 0]
        let word = Self.block(counter, key: self.key(site))[column % 4]
        let unit = Double(Int32(bitPattern: word) >> 8) * 0x1p-23
        return .one + Rounded(epsilon) * Rounded(Float(unit))
    }
}
