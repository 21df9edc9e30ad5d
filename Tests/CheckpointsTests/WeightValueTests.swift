// SPDX-License-Identifier: Apache-2.0

import Foundation
import SwitchyardTypes
import Testing

@testable import Checkpoints

@Suite("Values of weights")
struct WeightValueTests {
    private static func tensor(_ dtype: DType, _ bits: [UInt64], shape: [Int]? = nil) throws -> TensorView {
        let bytes = bits.flatMap { word in
            (0..<dtype.byteCount).map { UInt8(truncatingIfNeeded: word >> (8 * UInt64($0))) }
        }
        return try TensorView(name: "weights", dtype: dtype, shape: shape ?? [bits.count], bytes: bytes)
    }

    @Test(
        "the first element that is not finite is found wherever it lies",
        arguments: [
            (
                DType.float32, [0x7F80_0000, 0xFF80_0000, 0x7FC0_0000, 0x7F80_0001] as [UInt64],
                [0, 0x7F7F_FFFF, 0xFF7F_FFFF, 1]
            ),
            (.bfloat16, [0x7F80, 0xFF80, 0x7FC0, 0xFFFF], [0, 0x7F7F, 0xFF7F, 0x8001]),
            (.float16, [0x7C00, 0xFC00, 0x7E00, 0xFFFF], [0, 0x7BFF, 0xFBFF, 0x8001]),
            (.float64, [0x7FF0_0000_0000_0000, 0xFFF8_0000_0000_0000], [0, 0x7FEF_FFFF_FFFF_FFFF, 1 << 63]),
        ] as [(DType, [UInt64], [UInt64])]
    )
    func nonFinite(dtype: DType, wrong: [UInt64], sound: [UInt64]) throws {
        for count in 1...19 {
            let elements = (0..<count).map { sound[$0 % sound.count] }
            #expect(try Self.tensor(dtype, elements).firstNonFinite == nil)
            for place in 0..<count {
                for value in wrong {
                    var elements = elements
                    elements[place] = value
                    elements[count - 1] = place == count - 1 ? value : wrong[0]
                    #expect(try Self.tensor(dtype, elements).firstNonFinite == place)
                }
            }
        }
    }

    @Test("the error names the tensor and the element's place in it")
    func place() throws {
        var bits = [UInt64](repeating: 0x3F80, count: 24)
        bits[17] = 0x7FC0
        let tensor = try Self.tensor(.bfloat16, bits, shape: [2, 3, 4])
        let error = failure { try tensor.requireFinite(in: "folder") }
        #expect(error?.code == .notFinite)
        #expect(error?.tensor == "weights")
        #expect(error?.description.contains("[1, 1, 1]") == true, "\(String(describing: error))")
    }

    @Test("float64 becomes float32 as torch rounds: to nearest, ties to even")
    func narrowed() throws {
        let values: [(Double, Float)] = [
            (0, 0), (1, 1), (-2.5, -2.5), (1 + 0x1p-24, 1), (1 + 0x1.8p-23, 1 + 0x1p-22),
            (1 + 0x1.000001p-24, 1 + 0x1p-23),
            (0.1, 0.1), (1e-50, 0), (0x1p-149, 0x1p-149), (3.4028234663852886e38, .greatestFiniteMagnitude),
        ]
        let source = try Self.tensor(.float64, values.map { $0.0.bitPattern })
        let stored = StoredTensor(
            name: "weights",
            dtype: .float64,
            shape: [values.count],
            storage: source.storage,
            range: source.range,
            strides: nil,
            file: "file"
        )
        #expect(stored.narrowed.dtype == .float32)
        #expect(stored.narrowed.view().floats == values.map(\.1))
    }

    @Test("copies in other types are compared by value")
    func copies() throws {
        func stored(_ dtype: DType, _ bits: [UInt64]) throws -> StoredTensor {
            let view = try Self.tensor(dtype, bits)
            return StoredTensor(
                name: "weights",
                dtype: dtype,
                shape: view.shape,
                storage: view.storage,
                range: view.range,
                strides: nil,
                file: "file"
            )
        }
        // 1, -1.5, 2^-14, the smallest subnormal of float16, 0.
        let single = try stored(.float32, [0x3F80_0000, 0xBFC0_0000, 0x3880_0000, 0x3380_0000, 0])
        let half = try stored(.float16, [0x3C00, 0xBE00, 0x0400, 0x0001, 0])
        let brain = try stored(.bfloat16, [0x3F80, 0xBFC0, 0x3880, 0x3380, 0])
        let double = try stored(.float64, [1, -1.5, 0x1p-14, 0x1p-24, 0].map { (value: Double) in value.bitPattern })
        let all = [single, half, brain, double]
        for left in all { for right in all { #expect(left.hasValues(of: right)) } }
        let other = try stored(.bfloat16, [0x3F80, 0xBFC0, 0x3880, 0x3381, 0])
        for left in all { #expect(!left.hasValues(of: other) && !other.hasValues(of: left)) }
    }
}
