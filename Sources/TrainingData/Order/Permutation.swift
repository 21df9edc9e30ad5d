// SPDX-License-Identifier: Apache-2.0

/// A shuffled order of `0 ..< count` that needs no table: each place is computed from the key.
///
/// A Feistel network over the next power of 4, with cycle walking for what falls beyond the count (J. Black and P. Rogaway,
/// "Ciphers with Arbitrary Finite Domains", CT-RSA 2002, section 4.1; doi:10.1007/3-540-45760-7_9). Eight rounds of
/// SplitMix64's finalizer stand for the cipher: the order shall look random, not be secret. At most 4 walks are needed on
/// average, whatever the count.
public struct Permutation: Sendable, Hashable {
    /// How many numbers are put in order.
    public let count: Int

    private let halfBits: UInt64
    private let roundKeys: SIMD8<UInt64>

    /// Makes an order.
    ///
    /// - Parameters:
    ///   - count: How many numbers there are; not negative.
    ///   - seed: The run's seed.
    ///   - epoch: Which pass over the data; each has an order of its own.
    public init(count: Int, seed: UInt64, epoch: UInt64) {
        precondition(count >= 0, "\(count) numbers have no order")
        self.count = count
        var halfBits: UInt64 = 1
        while halfBits < 31, UInt64(1) << (2 * halfBits) < UInt64(count) {
            halfBits += 1
        }
        // Counts beyond 2^62 do not exist: a line has at least one byte.
        self.halfBits = halfBits
        var random = KeyedRandom(key: seed, epoch, UInt64(count))
        var keys = SIMD8<UInt64>()
        for round in keys.indices {
            keys[round] = random.next()
        }
        self.roundKeys = keys
    }

    /// The number at a place.
    ///
    /// - Parameter place: Within `0 ..< count`.
    /// - Returns: A number within `0 ..< count`; no two places have the same.
    public subscript(place: Int) -> Int {
        precondition(place >= 0 && place < self.count, "place \(place) of \(self.count)")
        var value = UInt64(place)
        repeat {
            value = self.pass(value)
        } while value >= UInt64(self.count)
        return Int(value)
    }

    private func pass(_ value: UInt64) -> UInt64 {
        let mask = (UInt64(1) << self.halfBits) - 1
        var left = value >> self.halfBits
        var right = value & mask
        for round in self.roundKeys.indices {
            (left, right) = (right, left ^ (Mixing.mixed(right ^ self.roundKeys[round]) & mask))
        }
        return left << self.halfBits | right
    }
}
