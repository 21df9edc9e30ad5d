// SPDX-License-Identifier: Apache-2.0

import TensorKernels
import Testing

@testable import switchyard_bench

@Suite("What benchmarks compare with")
struct MemoryReaderTests {
    @Test("every instruction set reads every byte, at any alignment", arguments: [0, 1, 7, 8, 255, 256, 300, 1029])
    func read(count: Int) {
        let bytes = (0..<(count + 3)).map { UInt8(truncatingIfNeeded: $0 &* 89 &+ 7) }
        for start in 0..<3 {
            var expected: UInt64 = 0
            for index in 0..<count { expected ^= UInt64(bytes[start + index]) << UInt64(8 * (index % 8)) }
            bytes.withUnsafeBytes { all in
                let part = UnsafeRawBufferPointer(rebasing: all[start..<(start + count)])
                for level in KernelLevel.available {
                    #expect(MemoryReader.read(part, level: level) == expected)
                }
            }
        }
    }

    @Test("OpenBLAS's product with one vector is that of a matrix of one row")
    func vector() {
        let (outputs, inputs) = (5, 9)
        let weights = (0..<(outputs * inputs)).map { Float($0 % 7) - 3 }
        let input = (0..<inputs).map { Float($0) / 4 - 1 }
        var vector = [Float](repeating: .nan, count: outputs)
        OpenBLAS.multiplyTransposed(vector: input, weights, into: &vector, n: outputs, k: inputs)
        // Quarters of small integers: every sum is exact, in whatever order it is taken.
        for output in 0..<outputs {
            let expected = (0..<inputs).reduce(Float(0)) { $0 + weights[output * inputs + $1] * input[$1] }
            #expect(vector[output] == expected)
        }
    }

    @Test("OpenBLAS's product agrees with the formula at any stride")
    func strides() {
        var numbers = BenchNumbers(seed: 10)
        let (m, n, k) = (5, 7, 9)
        let left = FloatMatrix(uninitializedRows: m, columns: k + 2)
        let right = FloatMatrix(uninitializedRows: n, columns: k + 1)
        numbers.fill(left)
        numbers.fill(right)
        let output = FloatMatrix(rows: m, columns: n + 4)
        OpenBLAS.multiplyTransposed(
            left.pointer,
            leftStride: k + 2,
            right.pointer,
            rightStride: k + 1,
            into: output.pointer,
            outputStride: n + 4,
            m: m,
            n: n,
            k: k
        )
        for row in 0..<m {
            for column in 0..<n {
                let sum = (0..<k).reduce(0.0) { $0 + Double(left.row(row)[$1]) * Double(right.row(column)[$1]) }
                #expect(abs(Double(output.row(row)[column]) - sum) < 1e-5)
            }
        }
        #expect(!OpenBLAS.kernels.isEmpty)
    }
}
