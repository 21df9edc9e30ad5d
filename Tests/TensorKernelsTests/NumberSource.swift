// SPDX-License-Identifier: Apache-2.0

import TensorKernels

/// Reproducible numbers for tests (SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
/// 2014, figure 17).
struct NumberSource: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) {
        self.state = seed
    }

    mutating func next() -> UInt64 {
        self.state &+= 0x9E37_79B9_7F4A_7C15
        var z = self.state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }

    mutating func floats(_ count: Int, in range: ClosedRange<Float> = -1...1) -> [Float] {
        (0..<count).map { _ in Float.random(in: range, using: &self) }
    }
}

/// The bits of floats, so that a comparison tells -0 from 0 and equals NaN to itself.
func bits(_ values: [Float]) -> [UInt32] {
    values.map(\.bitPattern)
}

extension FloatMatrix {
    convenience init(_ values: [Float], rows: Int, columns: Int) {
        self.init(rows: rows, columns: columns)
        for (index, value) in values.enumerated() {
            self.pointer[index] = value
        }
    }

    var values: [Float] {
        Array(UnsafeBufferPointer(start: self.pointer, count: self.rows * self.columns))
    }
}

/// The upper half of a float, truncated: exact where the value is a bfloat16.
func bfloat16Bytes(_ values: [Float]) -> [UInt8] {
    values.flatMap { value -> [UInt8] in
        let half = UInt16(value.bitPattern >> 16)
        return [UInt8(half & 0xFF), UInt8(half >> 8)]
    }
}

func floatBytes(_ values: [Float]) -> [UInt8] {
    values.withUnsafeBytes { Array($0) }
}
