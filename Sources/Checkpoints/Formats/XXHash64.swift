// SPDX-License-Identifier: Apache-2.0

/// XXH64, a fast hash with a fixed published result; it protects against mix-ups, not against forgers.
///
/// Follows the specification at https://github.com/Cyan4973/xxHash/blob/v0.8.3/doc/xxhash_spec.md ("XXH64 Algorithm
/// Description"), without deviation.
public enum XXHash64 {
    private static let prime1: UInt64 = 0x9E37_79B1_85EB_CA87
    private static let prime2: UInt64 = 0xC2B2_AE3D_27D4_EB4F
    private static let prime3: UInt64 = 0x1656_67B1_9E37_79F9
    private static let prime4: UInt64 = 0x85EB_CA77_C2B2_AE63
    private static let prime5: UInt64 = 0x27D4_EB2F_1656_67C5

    /// The hash of bytes.
    ///
    /// - Parameters:
    ///   - bytes: The bytes.
    ///   - seed: The seed.
    /// - Returns: The hash.
    public static func hash(_ bytes: [UInt8], seed: UInt64 = 0) -> UInt64 {
        bytes.withUnsafeBytes { self.hash($0, seed: seed) }
    }

    /// The hash of bytes in memory.
    ///
    /// - Parameters:
    ///   - bytes: The bytes.
    ///   - seed: The seed.
    /// - Returns: The hash.
    public static func hash(_ bytes: UnsafeRawBufferPointer, seed: UInt64 = 0) -> UInt64 {
        var position = 0
        var result: UInt64
        if bytes.count >= 32 {
            var lanes = (seed &+ self.prime1 &+ self.prime2, seed &+ self.prime2, seed, seed &- self.prime1)
            while position + 32 <= bytes.count {
                lanes.0 = self.round(lanes.0, self.word(bytes, position))
                lanes.1 = self.round(lanes.1, self.word(bytes, position + 8))
                lanes.2 = self.round(lanes.2, self.word(bytes, position + 16))
                lanes.3 = self.round(lanes.3, self.word(bytes, position + 24))
                position += 32
            }
            result = self.rotate(lanes.0, 1) &+ self.rotate(lanes.1, 7)
            result = result &+ self.rotate(lanes.2, 12) &+ self.rotate(lanes.3, 18)
            for lane in [lanes.0, lanes.1, lanes.2, lanes.3] {
                result = (result ^ self.round(0, lane)) &* self.prime1 &+ self.prime4
            }
        } else {
            result = seed &+ self.prime5
        }
        result = result &+ UInt64(bytes.count)
        while position + 8 <= bytes.count {
            result ^= self.round(0, self.word(bytes, position))
            result = self.rotate(result, 27) &* self.prime1 &+ self.prime4
            position += 8
        }
        if position + 4 <= bytes.count {
            let half = UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: position, as: UInt32.self))
            result ^= UInt64(half) &* self.prime1
            result = self.rotate(result, 23) &* self.prime2 &+ self.prime3
            position += 4
        }
        while position < bytes.count {
            result ^= UInt64(bytes[position]) &* self.prime5
            result = self.rotate(result, 11) &* self.prime1
            position += 1
        }
        result = (result ^ (result >> 33)) &* self.prime2
        result = (result ^ (result >> 29)) &* self.prime3
        return result ^ (result >> 32)
    }

    private static func word(_ bytes: UnsafeRawBufferPointer, _ position: Int) -> UInt64 {
        UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: position, as: UInt64.self))
    }

    private static func rotate(_ value: UInt64, _ count: UInt64) -> UInt64 {
        (value << count) | (value >> (64 - count))
    }

    private static func round(_ lane: UInt64, _ input: UInt64) -> UInt64 {
        self.rotate(lane &+ input &* self.prime2, 31) &* self.prime1
    }
}
