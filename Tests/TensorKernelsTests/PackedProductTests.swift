// SPDX-License-Identifier: Apache-2.0

import SwitchyardTypes
import Testing

@testable import TensorKernels

@Suite("The packed product")
struct PackedProductTests {
    /// The element types of which a product is a chain of float32 multiply-adds.
    static let chained: [DType] = [.float32, .bfloat16]

    /// One chain of fused multiply-adds per element: the definition.
    private func reference(_ x: [Float], _ weights: [Float], rows: Int, inputs: Int, outputs: Int) -> [Float] {
        var result: [Float] = []
        for row in 0..<rows {
            for output in 0..<outputs {
                var sum: Float = 0
                for k in 0..<inputs {
                    sum.addProduct(x[row * inputs + k], weights[output * inputs + k])
                }
                result.append(sum)
            }
        }
        return result
    }

    private func pack(_ weights: [Float], outputs: Int, inputs: Int, dtype: DType = .float32) -> PackedMatrix {
        weights.withUnsafeBytes {
            PackedMatrix(packing: $0, as: .float32, outputs: outputs, inputs: inputs, dtype: dtype)
        }
    }

    private func multiply(
        _ matrix: PackedMatrix,
        _ x: [Float],
        rows: Int,
        relu: Bool = false,
        level: KernelLevel
    ) -> [Float] {
        // A wrong mask would write past the end or leave the filling.
        var y = [Float](repeating: 12345, count: rows * matrix.outputs + 16)
        y.withUnsafeMutableBufferPointer { out in
            x.withUnsafeBufferPointer { input in
                guard let target = out.baseAddress, let source = input.baseAddress else {
                    return
                }
                matrix.multiply(source, rows: rows, into: target, relu: relu, level: level)
            }
        }
        #expect(y.suffix(16).allSatisfy { $0 == 12345 }, "written past the end")
        return Array(y.dropLast(16))
    }

    @Test(
        "equals one chain of fused multiply-adds, bit for bit",
        arguments: KernelLevel.available,
        PackedProductTests.chained
    )
    func definition(level: KernelLevel, dtype: DType) {
        var numbers = NumberSource(seed: 1)
        for (inputs, outputs) in [(1, 1), (5, 31), (17, 32), (19, 33), (33, 130)] {
            var weights = numbers.floats(outputs * inputs)
            if dtype == .bfloat16 {
                weights = weights.map { Float(bitPattern: $0.bitPattern & 0xFFFF_0000) }
            }
            let matrix = self.pack(weights, outputs: outputs, inputs: inputs, dtype: dtype)
            for rows in [1, 2, 3, 4, 7, 13] {
                let x = numbers.floats(rows * inputs)
                let expected = self.reference(x, weights, rows: rows, inputs: inputs, outputs: outputs)
                #expect(bits(self.multiply(matrix, x, rows: rows, level: level)) == bits(expected))
            }
        }
    }

    @Test("has the same bits, whichever cache the slices of few rows are cut for")
    func nearAndFarSlices() {
        // One case after another: what is set holds for the whole process.
        for dtype in Self.chained { self.compareSlices(dtype) }
    }

    private func compareSlices(_ dtype: DType) {
        defer { KernelReport.setNearSlices(nil) }
        var numbers = NumberSource(seed: 5)
        // Several slices for either cache, and a panel that sticks out.
        let (inputs, outputs) = (1501, 75)
        let matrix = self.pack(numbers.floats(outputs * inputs), outputs: outputs, inputs: inputs, dtype: dtype)
        let x = numbers.floats(26 * inputs)
        for level in KernelLevel.available {
            for rows in [4, 5, 8, 12, 13, 24, 25, 26] {
                let results = [true, false]
                    .map { near in
                        KernelReport.setNearSlices(near)
                        return bits(self.multiply(matrix, Array(x.prefix(rows * inputs)), rows: rows, level: level))
                    }
                #expect(results[0] == results[1], "\(level), \(dtype), \(rows) rows")
            }
        }
    }

    @Test("gives a row the same bits among 1 to 64 rows and on every instruction set", arguments: Self.chained)
    func rowsAndLevels(dtype: DType) {
        var numbers = NumberSource(seed: 2)
        let (inputs, outputs) = (24, 75)
        let matrix = self.pack(numbers.floats(outputs * inputs), outputs: outputs, inputs: inputs, dtype: dtype)
        let x = numbers.floats(64 * inputs)
        let expected = bits(
            (0..<64)
                .flatMap { row in
                    self.multiply(matrix, Array(x[row * inputs..<(row + 1) * inputs]), rows: 1, level: .scalar)
                }
        )
        for level in KernelLevel.available {
            for rows in 1...64 {
                let y = self.multiply(matrix, Array(x.prefix(rows * inputs)), rows: rows, level: level)
                #expect(bits(y) == Array(expected.prefix(rows * outputs)), "\(rows) rows, \(level.name)")
            }
        }
    }

    @Test("continues the chain where inputs are cut into blocks", arguments: KernelLevel.available)
    func longChains(level: KernelLevel) {
        var numbers = NumberSource(seed: 3)
        let (inputs, outputs, rows) = (4100, 35, 14)
        let weights = numbers.floats(outputs * inputs)
        let x = numbers.floats(rows * inputs)
        let y = self.multiply(
            self.pack(weights, outputs: outputs, inputs: inputs),
            x,
            rows: rows,
            relu: true,
            level: level
        )
        for (row, output) in [(0, 0), (6, 31), (7, 32), (13, 34)] {
            var sum: Float = 0
            for k in 0..<inputs {
                sum.addProduct(x[row * inputs + k], weights[output * inputs + k])
            }
            #expect(y[row * outputs + output].bitPattern == max(sum, 0).bitPattern)
        }
    }

    @Test(
        "gives 1 to 33 rows the bits of the portable chain where slices of the inputs go through the caches",
        arguments: Self.chained
    )
    func slices(dtype: DType) {
        var numbers = NumberSource(seed: 7)
        // The last panel has 17 columns, more than half of one, or 3.
        for (inputs, outputs) in [(1541, 49), (1030, 35)] {
            let matrix = self.pack(numbers.floats(outputs * inputs), outputs: outputs, inputs: inputs, dtype: dtype)
            let x = numbers.floats(33 * inputs)
            let expected = bits(self.multiply(matrix, x, rows: 33, level: .scalar))
            for level in KernelLevel.available where level != .scalar {
                for rows in 1...33 {
                    let y = self.multiply(matrix, Array(x.prefix(rows * inputs)), rows: rows, level: level)
                    #expect(bits(y) == Array(expected.prefix(rows * outputs)), "\(rows) rows, \(level.name)")
                }
            }
        }
    }

    @Test("gives many rows the same bits in several groups", arguments: KernelLevel.available)
    func groups(level: KernelLevel) {
        var numbers = NumberSource(seed: 8)
        let (inputs, outputs, rows) = (1100, 33, 205)
        let matrix = self.pack(numbers.floats(outputs * inputs), outputs: outputs, inputs: inputs)
        let x = numbers.floats(rows * inputs)
        let y = bits(self.multiply(matrix, x, rows: rows, relu: true, level: level))
        for row in [0, 102, 103, 191, 192, 204] {
            let one = Array(x[row * inputs..<(row + 1) * inputs])
            let alone = bits(self.multiply(matrix, one, rows: 1, relu: true, level: .scalar))
            #expect(Array(y[row * outputs..<(row + 1) * outputs]) == alone, "row \(row), \(level.name)")
        }
    }

    @Test("turns negative results into 0 and keeps NaN when rectifying", arguments: KernelLevel.available)
    func relu(level: KernelLevel) {
        let matrix = self.pack([1, -1, 1, -1], outputs: 4, inputs: 1)
        for rows in [1, 5] {
            let y = self.multiply(matrix, [Float](repeating: 2, count: rows), rows: rows, relu: true, level: level)
            #expect(y == (0..<rows).flatMap { _ in [2, 0, 2, 0] as [Float] })
            let z = self.multiply(matrix, [Float](repeating: .nan, count: rows), rows: rows, relu: true, level: level)
            #expect(z.allSatisfy { $0.isNaN })
        }
    }

    @Test("reads and writes rows at the given strides", arguments: KernelLevel.available)
    func strides(level: KernelLevel) {
        var numbers = NumberSource(seed: 4)
        let (inputs, outputs, rows) = (9, 40, 6)
        let matrix = self.pack(numbers.floats(outputs * inputs), outputs: outputs, inputs: inputs)
        let x = numbers.floats(rows * inputs)
        let dense = self.multiply(matrix, x, rows: rows, level: level)
        let spread = FloatMatrix(rows: rows, columns: inputs + 3)
        for row in 0..<rows {
            for k in 0..<inputs {
                spread.row(row)[k] = x[row * inputs + k]
            }
        }
        let output = FloatMatrix(rows: rows, columns: outputs + 5)
        let product = Product(
            matrix,
            input: spread.pointer,
            inputStride: spread.columns,
            rows: rows,
            output: output.pointer,
            outputStride: output.columns
        )
        WorkPool(threads: 1).run([product], level: level)
        for row in 0..<rows {
            #expect(
                bits(Array(output.row(row).prefix(outputs))) == bits(Array(dense[row * outputs..<(row + 1) * outputs]))
            )
            #expect(output.row(row).suffix(5).allSatisfy { $0 == 0 })
        }
    }

    @Test("packs bfloat16 and float16 from unaligned bytes, exactly")
    func packing() {
        var numbers = NumberSource(seed: 5)
        let (inputs, outputs) = (11, 37)
        let weights = numbers.floats(outputs * inputs).map { Float(bitPattern: $0.bitPattern & 0xFFFF_0000) }
        let x = numbers.floats(inputs)
        let expected = bits(self.reference(x, weights, rows: 1, inputs: inputs, outputs: outputs))
        let shifted = [0] + bfloat16Bytes(weights)
        for dtype in PackedProductTests.chained {
            let matrix = shifted.withUnsafeBytes {
                PackedMatrix(
                    packing: UnsafeRawBufferPointer(rebasing: $0.dropFirst()),
                    as: .bfloat16,
                    outputs: outputs,
                    inputs: inputs,
                    dtype: dtype
                )
            }
            #expect(bits(self.multiply(matrix, x, rows: 1, level: .best)) == expected)
        }
        let halves = weights.map { Float16($0) }
        let fromHalves = halves.withUnsafeBytes {
            PackedMatrix(packing: $0, as: .float16, outputs: outputs, inputs: inputs, dtype: .float32)
        }
        let wide = self.reference(x, halves.map { Float($0) }, rows: 1, inputs: inputs, outputs: outputs)
        #expect(bits(self.multiply(fromHalves, x, rows: 1, level: .best)) == bits(wide))
    }

    @Test("rounds float32 to the nearest bfloat16, ties to even")
    func rounding() {
        let source: [Float] = [
            Float(bitPattern: 0x3F80_8000), Float(bitPattern: 0x3F81_8000), Float(bitPattern: 0x3F80_8001), .infinity,
        ]
        let matrix = self.pack(source, outputs: 4, inputs: 1, dtype: .bfloat16)
        let y = bits(self.multiply(matrix, [1], rows: 1, level: .best))
        #expect(y == [0x3F80_0000, 0x3F82_0000, 0x3F81_0000, 0x7F80_0000])
    }

    @Test("shares several products among threads without changing a bit", arguments: [1, 2, 3, 5])
    func shared(threads: Int) {
        var numbers = NumberSource(seed: 6)
        let pool = WorkPool(threads: threads)
        let inputs = 64
        let x = FloatMatrix(numbers.floats(9 * inputs), rows: 9, columns: inputs)
        var products: [Product] = []
        var outputs: [FloatMatrix] = []
        var expected: [[Float]] = []
        for (width, rows) in [(200, 9), (1, 3), (33, 0), (96, 1), (320, 5)] {
            let matrix = self.pack(numbers.floats(width * inputs), outputs: width, inputs: inputs)
            let output = FloatMatrix(rows: rows, columns: width)
            products.append(Product(matrix, input: x.pointer, rows: rows, output: output.pointer))
            outputs.append(output)
            expected.append(rows == 0 ? [] : self.multiply(matrix, x.values, rows: rows, level: .scalar))
        }
        pool.run(products)
        for (output, values) in zip(outputs, expected) {
            #expect(bits(output.values) == bits(values))
        }
    }

    @Test("shares products of many rows by rows without changing a bit", arguments: [1, 2, 3])
    func sharedRows(threads: Int) {
        var numbers = NumberSource(seed: 9)
        let pool = WorkPool(threads: threads)
        let inputs = 40
        let x = FloatMatrix(numbers.floats(700 * inputs), rows: 700, columns: inputs)
        var products: [Product] = []
        var outputs: [FloatMatrix] = []
        var expected: [[Float]] = []
        // 256 rows for two threads and 384 for three are the fewest that are shared by rows.
        for (width, rows) in [(70, 700), (200, 255), (33, 256), (1, 384), (64, 12), (45, 383)] {
            let matrix = self.pack(numbers.floats(width * inputs), outputs: width, inputs: inputs)
            let output = FloatMatrix(rows: rows, columns: width)
            products.append(Product(matrix, input: x.pointer, rows: rows, output: output.pointer, relu: rows % 2 == 0))
            outputs.append(output)
            expected.append(self.multiply(matrix, x.values, rows: rows, relu: rows % 2 == 0, level: .scalar))
        }
        pool.run(products)
        for (output, values) in zip(outputs, expected) {
            #expect(bits(output.values) == bits(values))
        }
    }
}
