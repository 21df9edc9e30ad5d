// SPDX-License-Identifier: Apache-2.0

/// A running hash of content, to tell whether files are the ones that a position was saved for.
///
/// Eight bytes at a time through ``Mixing/mixed(_:)``. It finds mistakes, not forgeries.
struct ContentHash {
    /// The hash of what was added.
    private(set) var value: UInt64 = 0x243F_6A88_85A3_08D3

    /// Adds a number.
    mutating func add(_ number: Int) {
        self.add(word: UInt64(bitPattern: Int64(number)))
    }

    /// Adds bytes, whose number is a multiple of 8 unless they are the last ones.
    mutating func add(last bytes: UnsafeRawBufferPointer) {
        let words = bytes.count / 8
        for index in 0..<words {
            self.add(word: UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: index * 8, as: UInt64.self)))
        }
        var rest: UInt64 = 0
        for byte in bytes.dropFirst(words * 8) {
            rest = rest << 8 | UInt64(byte)
        }
        if bytes.count % 8 != 0 {
            self.add(word: rest)
            self.add(word: UInt64(bytes.count % 8))
        }
    }

    private mutating func add(word: UInt64) {
        // One multiplication a word keeps up with a disk.
        self.value = (self.value ^ word) &* 0x9E37_79B9_7F4A_7C15
        self.value ^= self.value >> 29
    }
}
