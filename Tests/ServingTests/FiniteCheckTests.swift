// SPDX-License-Identifier: Apache-2.0

import SwitchyardTypes
import TensorKernels
import Testing

@Suite
struct FiniteCheckTests {
    @Test("A single value that is not finite is found at any place", arguments: [1, 15, 16, 17, 40], [0, 1, 3])
    func places(count: Int, misalignment: Int) {
        let finite: [Float] = [
            0, -0, 1, -1, .greatestFiniteMagnitude, -.greatestFiniteMagnitude, .leastNonzeroMagnitude,
        ]
        for bad in [Float.infinity, -.infinity, .nan, .signalingNaN, -.nan] {
            for place in -1..<count {
                var bytes = [UInt8](repeating: 0xFF, count: misalignment)
                for index in 0..<count {
                    let value = index == place ? bad : finite[index % finite.count]
                    withUnsafeBytes(of: value.bitPattern) { bytes.append(contentsOf: $0) }
                }
                bytes.withUnsafeBytes { all in
                    let values = UnsafeRawBufferPointer(rebasing: all[misalignment...])
                    #expect(FiniteCheck.allFinite(values) == (place == -1), "\(bad) at \(place)")
                }
            }
        }
    }

    @Test("The rows that are not finite are found in both types", arguments: [DType.float32, .bfloat16], [1, 7, 128])
    func rows(type: DType, columns: Int) {
        for bad in [Set<Int>(), [0], [4], [1, 2], [0, 1, 2, 3, 4]] {
            let rowBytes = columns * type.byteCount
            var bytes = [UInt8](repeating: 0, count: 5 * rowBytes)
            for row in bad {
                let end = (row + 1) * rowBytes
                bytes.replaceSubrange(end - 2..<end, with: [0x80, 0x7F])
            }
            let found = bytes.withUnsafeBytes { FiniteCheck.rowsNotFinite($0, rowBytes: rowBytes, of: type) }
            #expect(found == bad.sorted())
        }
    }

    @Test("Nothing is finite")
    func nothing() {
        #expect(FiniteCheck.allFinite(UnsafeRawBufferPointer(start: nil, count: 0)))
    }
}
