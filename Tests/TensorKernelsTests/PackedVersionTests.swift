// SPDX-License-Identifier: Apache-2.0

import SwitchyardTypes
import Testing

@testable import TensorKernels

@Suite("The version of packed matrices")
struct PackedVersionTests {
    /// FNV-1a (Fowler, Noll, Vo, https://datatracker.ietf.org/doc/html/draft-eastlake-fnv-17), short enough for a test.
    private func hash(_ bytes: [UInt8]) -> UInt64 {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in bytes { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
        return hash
    }

    @Test(
        "must be raised when what is packed changes, since files are served as they are",
        arguments: zip(
            DType.packed,
            [0xC72A_5B74_CB86_151B, 0xD023_B891_27B0_E5BB, 0x659B_FEA5_C8A0_8597] as [UInt64]
        )
    )
    func content(dtype: DType, expected: UInt64) {
        #expect(PackedLayout.version == 1)
        #expect(PackedLayout.panelColumns == 32)
        // Halves: the same numbers in float32 and in bfloat16.
        let weights = (0..<(37 * 9)).map { (index: Int) -> Float in Float((index * 7) % 41) / 2 - 10 }
        let matrix = PackedMatrix(weights, outputs: 37, inputs: 9, dtype: dtype)
        let found = self.hash(matrix.bytes)
        #expect(found == expected, "\(String(found, radix: 16))")
    }
}
