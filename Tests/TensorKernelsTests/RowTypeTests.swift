// SPDX-License-Identifier: Apache-2.0

import SwitchyardTypes
import Testing

@testable import TensorKernels

@Suite("Types of token rows")
struct RowTypeTests {
    /// Rounds to nearest even by the definition: the nearer neighbour, and of two as near the one whose last bit is 0.
    private func nearestEven(_ value: Float) -> UInt16 {
        let below = UInt16(truncatingIfNeeded: value.bitPattern >> 16)
        let rest = value.bitPattern & 0xFFFF
        if value.isNaN { return below | 0x40 }
        if rest > 0x8000 || (rest == 0x8000 && below & 1 == 1) { return below + 1 }
        return below
    }

    @Test("bfloat16 is rounded to nearest even and widens exactly, at any alignment", arguments: [0, 1, 2, 3])
    func rounding(offset: Int) {
        var numbers = NumberSource(seed: 9)
        var values: [Float] = [
            0, -0, 1, -1, .infinity, -.infinity, .nan, -.nan, .leastNonzeroMagnitude, .leastNormalMagnitude,
            .greatestFiniteMagnitude, -.greatestFiniteMagnitude,
            // Exactly between two neighbours, above an even and above an odd one; and a little beside that.
            Float(bitPattern: 0x3F80_8000), Float(bitPattern: 0x3F81_8000), Float(bitPattern: 0x3F80_8001),
            Float(bitPattern: 0x3F80_7FFF), Float(bitPattern: 0x7F7F_8000), Float(bitPattern: 0x7F7F_7FFF),
            Float(bitPattern: 0x7F80_0001), Float(bitPattern: 0xFF80_FFFF),
        ]
        values += (0..<1000).map { _ in Float(bitPattern: UInt32.random(in: 0 ... .max, using: &numbers)) }
        for count in [0, 1, 7, 16, 33, values.count] {
            var bytes = [UInt8](repeating: 0xAA, count: offset + 2 * count + 8)
            bytes.withUnsafeMutableBytes { target in
                values.withUnsafeBufferPointer { source in
                    guard let from = source.baseAddress, let to = target.baseAddress else { return }
                    DType.bfloat16.write(from, count: count, to: to + offset)
                }
            }
            #expect(bytes.suffix(8).allSatisfy { $0 == 0xAA }, "written past the end")
            let halves = bytes.withUnsafeBytes { all in
                (0..<count).map { all.loadUnaligned(fromByteOffset: offset + 2 * $0, as: UInt16.self) }
            }
            #expect(halves == values.prefix(count).map(self.nearestEven))
            var wide = [Float](repeating: 0, count: count + 1)
            wide.withUnsafeMutableBufferPointer { target in
                bytes.withUnsafeBytes { source in
                    guard let from = source.baseAddress, let to = target.baseAddress else { return }
                    DType.bfloat16.read(from + offset, count: count, into: to)
                }
            }
            #expect(wide.prefix(count).map(\.bitPattern) == halves.map { UInt32($0) << 16 })
        }
    }

    @Test("float32 is copied")
    func copying() {
        let values: [Float] = [1.5, -0, .nan, .infinity, .leastNonzeroMagnitude]
        var bytes = [UInt8](repeating: 0, count: 21)
        var back = [Float](repeating: 0, count: 5)
        bytes.withUnsafeMutableBytes { target in
            values.withUnsafeBufferPointer { source in
                guard let from = source.baseAddress, let to = target.baseAddress else { return }
                DType.float32.write(from, count: 5, to: to + 1)
            }
        }
        back.withUnsafeMutableBufferPointer { target in
            bytes.withUnsafeBytes { source in
                guard let from = source.baseAddress, let to = target.baseAddress else { return }
                DType.float32.read(from + 1, count: 5, into: to)
            }
        }
        #expect(bits(back) == bits(values))
    }

    @Test("one bfloat16 that is not finite is found at any position", arguments: [1, 31, 32, 33, 80], [0, 1])
    func finite(count: Int, misalignment: Int) {
        let finite: [UInt16] = [0, 0x8000, 0x3F80, 0xBF80, 0x7F7F, 0xFF7F, 1]
        for bad in [0x7F80, 0xFF80, 0x7FC0, 0x7F81, 0xFFFF] as [UInt16] {
            for place in -1..<count {
                var bytes = [UInt8](repeating: 0xFF, count: misalignment)
                for index in 0..<count {
                    let value = index == place ? bad : finite[index % finite.count]
                    bytes += [UInt8(value & 0xFF), UInt8(value >> 8)]
                }
                let isFinite = bytes.withUnsafeBytes { all in
                    FiniteCheck.allFinite(UnsafeRawBufferPointer(rebasing: all[misalignment...]), of: .bfloat16)
                }
                #expect(isFinite == (place == -1), "\(bad) at \(place)")
            }
        }
    }
}
