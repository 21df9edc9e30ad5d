// SPDX-License-Identifier: Apache-2.0

import SwitchyardTypes
import Testing

@testable import TensorKernels

@Suite("The int8 product")
struct Int8ProductTests {
    @Test(
        "equals its definition, bit for bit, whatever the shape",
        arguments: [(1, 1), (3, 31), (4, 32), (5, 33), (18, 64), (131, 97), (260, 130)]
    )
    func definition(inputs: Int, outputs: Int) {
        var numbers = NumberSource(seed: 21)
        let weights = numbers.floats(outputs * inputs, in: -0.3...0.3)
        let x = numbers.floats(13 * inputs, in: -4...4)
        let matrix = PackedMatrix(weights, outputs: outputs, inputs: inputs)
        for relu in [false, true] {
            let expected = bits(Int8Reference.product(x, weights, inputs: inputs, relu: relu))
            for level in KernelLevel.available {
                for rows in [1, 2, 3, 6, 7, 12, 13] {
                    let y = matrix.product(Array(x.prefix(rows * inputs)), rows: rows, relu: relu, level: level)
                    let same = bits(y) == Array(expected.prefix(rows * outputs))
                    #expect(same, "\(rows) rows, \(level.int8Name)")
                }
            }
        }
    }

    @Test("gives a row the same bits alone and among 1 to 64 rows, on every instruction set")
    func rowsAndLevels() {
        var numbers = NumberSource(seed: 22)
        let (inputs, outputs) = (26, 75)
        let weights = numbers.floats(outputs * inputs)
        let x = numbers.floats(64 * inputs)
        let matrix = PackedMatrix(weights, outputs: outputs, inputs: inputs)
        let expected = bits(
            (0..<64)
                .flatMap { row in
                    matrix.product(Array(x[row * inputs..<(row + 1) * inputs]), rows: 1, level: .scalar)
                }
        )
        #expect(expected == bits(Int8Reference.product(x, weights, inputs: inputs)))
        for level in KernelLevel.available {
            for rows in 1...64 {
                let y = matrix.product(Array(x.prefix(rows * inputs)), rows: rows, level: level)
                let same = bits(y) == Array(expected.prefix(rows * outputs))
                #expect(same, "\(rows) rows, \(level.int8Name)")
            }
        }
    }

    @Test(
        "keeps its bits where tall products go through several panels at a time",
        arguments: [(2052, 130), (8196, 33)]
    )
    func tall(inputs: Int, outputs: Int) {
        var numbers = NumberSource(seed: 23)
        let weights = numbers.floats(outputs * inputs)
        let rows = 51
        let x = numbers.floats(rows * inputs)
        let matrix = PackedMatrix(weights, outputs: outputs, inputs: inputs)
        let expected = matrix.product(x, rows: rows, level: .scalar)
        for (row, output) in [(0, 0), (12, 32), (50, outputs - 1)] {
            let element = Int8Reference.element(
                Int8Reference.quantize(x[row * inputs..<(row + 1) * inputs]),
                Int8Reference.quantize(weights[output * inputs..<(output + 1) * inputs])
            )
            #expect(expected[row * outputs + output].bitPattern == element.bitPattern)
        }
        for level in KernelLevel.available where level != .scalar {
            let same = bits(matrix.product(x, rows: rows, level: level)) == bits(expected)
            #expect(same, "\(level.int8Name)")
        }
    }

    @Test("differs from the float64 product by no more than rounding to 8 bits explains")
    func accuracy() {
        var numbers = NumberSource(seed: 24)
        let (inputs, outputs, rows) = (300, 70, 5)
        let weights = numbers.floats(outputs * inputs, in: -0.1...0.1)
        let x = numbers.floats(rows * inputs, in: -3...3)
        let y = PackedMatrix(weights, outputs: outputs, inputs: inputs).product(x, rows: rows)
        let columns = Int8Reference.quantize(weights, columns: inputs)
        let lines = Int8Reference.quantize(x, columns: inputs)
        var squares = 0.0
        var errors = 0.0
        for row in 0..<rows {
            for output in 0..<outputs {
                var exact = 0.0
                var quantized = 0.0
                var bound = 0.0
                let stepX = Double(lines[row].scale) / 2
                let stepW = Double(columns[output].scale) / 2
                for k in 0..<inputs {
                    let left = Double(x[row * inputs + k])
                    let right = Double(weights[output * inputs + k])
                    exact += left * right
                    quantized += Double(lines[row].values[k]) * Double(columns[output].values[k])
                    bound += left.magnitude * stepW + right.magnitude * stepX + stepX * stepW
                }
                quantized *= Double(lines[row].scale) * Double(columns[output].scale)
                let result = Double(y[row * outputs + output])
                // Three roundings to float32.
                #expect(abs(result - quantized) <= abs(quantized) * 2e-7)
                #expect(abs(result - exact) <= bound * 1.0001)
                squares += exact * exact
                errors += (result - exact) * (result - exact)
            }
        }
        #expect(errors < squares * 1e-4)
    }

    @Test("turns all results of a row with NaN or infinity into NaN, and no other row's", arguments: [false, true])
    func notFinite(relu: Bool) {
        var numbers = NumberSource(seed: 25)
        let (inputs, outputs, rows) = (37, 50, 14)
        let weights = numbers.floats(outputs * inputs)
        let clean = numbers.floats(rows * inputs)
        var x = clean
        x[2 * inputs + 36] = .nan
        x[5 * inputs] = .infinity
        x[13 * inputs + 7] = -.infinity
        x[13 * inputs + 8] = -.signalingNaN
        let matrix = PackedMatrix(weights, outputs: outputs, inputs: inputs)
        let expected = matrix.product(clean, rows: rows, relu: relu, level: .scalar)
        for level in KernelLevel.available {
            let y = matrix.product(x, rows: rows, relu: relu, level: level)
            for row in 0..<rows {
                let range = row * outputs..<(row + 1) * outputs
                if [2, 5, 13].contains(row) {
                    #expect(y[range].allSatisfy { $0.isNaN }, "row \(row), \(level.int8Name)")
                } else {
                    #expect(bits(Array(y[range])) == bits(Array(expected[range])), "row \(row), \(level.int8Name)")
                }
            }
            let alone = matrix.product(Array(x[2 * inputs..<3 * inputs]), rows: 1, relu: relu, level: level)
            #expect(alone.allSatisfy { $0.isNaN })
        }
    }

    @Test("turns the results of weights that are not finite into NaN", arguments: [Float.nan, .infinity, -.infinity])
    func weightsNotFinite(value: Float) {
        var weights = [Float](repeating: 1, count: 40 * 9)
        weights[33 * 9 + 4] = value
        let matrix = PackedMatrix(weights, outputs: 40, inputs: 9)
        for level in KernelLevel.available {
            let y = matrix.product([Float](repeating: 0.5, count: 18), rows: 2, level: level)
            #expect(y.indices.allSatisfy { y[$0].isNaN == ($0 % 40 == 33) })
        }
    }

    @Test("turns zeros, and numbers too small for a normal scale, into zeros")
    func zeros() {
        var numbers = NumberSource(seed: 26)
        let (inputs, outputs) = (10, 33)
        let rows: [[Float]] = [
            [Float](repeating: 0, count: inputs),
            [Float](repeating: -0.0, count: inputs),
            [Float](repeating: -1.4e-36, count: inputs),
            [Float](repeating: .leastNonzeroMagnitude, count: inputs),
        ]
        let matrix = PackedMatrix(numbers.floats(outputs * inputs), outputs: outputs, inputs: inputs)
        let empty = PackedMatrix([Float](repeating: 0, count: outputs * inputs), outputs: outputs, inputs: inputs)
        for level in KernelLevel.available {
            let y = matrix.product(rows.flatMap { $0 }, rows: rows.count, level: level)
            #expect(y.allSatisfy { $0.bitPattern == 0 }, "\(level.int8Name)")
            let z = empty.product(numbers.floats(inputs), rows: 1, level: level)
            #expect(z.allSatisfy { $0.bitPattern == 0 }, "\(level.int8Name)")
        }
    }

    @Test("holds the largest sum that its limit of inputs allows", arguments: KernelLevel.available)
    func largestSum(level: KernelLevel) {
        let inputs = DType.int8.mostInputs
        let ones = [Float](repeating: 1, count: inputs)
        let matrix = PackedMatrix(ones + ones.map { -$0 }, outputs: 2, inputs: inputs)
        let factor = Float(1) / 127 * (Float(1) / 127)
        let largest = Float(127 * 127 * inputs) * factor
        #expect(matrix.product(ones, rows: 1, level: level) == [largest, -largest])
        #expect(matrix.product(ones.map { -$0 }, rows: 1, level: level) == [-largest, largest])
    }

    @Test("reads and writes rows at the given strides", arguments: KernelLevel.available)
    func strides(level: KernelLevel) {
        var numbers = NumberSource(seed: 27)
        let (inputs, outputs, rows) = (9, 40, 6)
        let matrix = PackedMatrix(numbers.floats(outputs * inputs), outputs: outputs, inputs: inputs)
        let x = numbers.floats(rows * inputs)
        let dense = matrix.product(x, rows: rows, level: level)
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
        product.compute(level: level)
        for row in 0..<rows {
            let expected = bits(Array(dense[row * outputs..<(row + 1) * outputs]))
            #expect(bits(Array(output.row(row).prefix(outputs))) == expected)
            #expect(output.row(row).suffix(5).allSatisfy { $0 == 0 })
        }
    }

    @Test("shares products of all element types among threads without changing a bit", arguments: [1, 2, 3])
    func shared(threads: Int) {
        var numbers = NumberSource(seed: 28)
        let pool = WorkPool(threads: threads)
        let inputs = 516
        let x = FloatMatrix(numbers.floats(70 * inputs), rows: 70, columns: inputs)
        var products: [Product] = []
        var outputs: [FloatMatrix] = []
        var expected: [[Float]] = []
        // The first two share their quantised input, the last quantises other rows.
        for (width, first, rows, dtype) in [
            (97, 0, 65, .int8), (33, 0, 65, .int8), (64, 0, 3, .bfloat16), (40, 0, 0, .int8), (64, 66, 4, .int8),
        ] as [(Int, Int, Int, DType)] {
            let weights = numbers.floats(width * inputs)
            let matrix = PackedMatrix(weights, outputs: width, inputs: inputs, dtype: dtype)
            let output = FloatMatrix(rows: rows, columns: width)
            let input = x.pointer + first * inputs
            products.append(Product(matrix, input: input, rows: rows, output: output.pointer))
            outputs.append(output)
            let values = Array(UnsafeBufferPointer(start: input, count: rows * inputs))
            expected.append(rows == 0 ? [] : matrix.product(values, rows: rows))
        }
        // Twice, since the second time finds memory on the shelf.
        for _ in 0..<2 {
            pool.run(products)
            for (output, values) in zip(outputs, expected) {
                #expect(bits(output.values) == bits(values))
                output.pointer.update(repeating: 0, count: output.rows * output.columns)
            }
        }
    }
}
