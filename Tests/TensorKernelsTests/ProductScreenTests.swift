// SPDX-License-Identifier: Apache-2.0

import SwitchyardTypes
import Testing

@testable import TensorKernels

@Suite("The screen of a product")
struct ProductScreenTests {
    private struct Screened {
        let matrix: PackedMatrix
        let screen: ProductScreen
        let pool = WorkPool(threads: 2)

        init(_ weights: [Float], outputs: Int, inputs: Int, dtype: DType) {
            let bytes = floatBytes(weights)
            let pool = self.pool
            self.matrix = bytes.withUnsafeBytes {
                PackedMatrix(packing: $0, as: .float32, outputs: outputs, inputs: inputs, dtype: dtype)
            }
            let matrix = self.matrix
            self.screen = bytes.withUnsafeBytes {
                ProductScreen(of: $0, as: .float32, weights: matrix, pool: pool)
            }
        }

        func whole(_ input: FloatMatrix) -> FloatMatrix {
            let output = FloatMatrix(uninitializedRows: input.rows, columns: self.matrix.outputs)
            self.pool.run([Product(self.matrix, input, into: output)])
            return output
        }
    }

    /// The lowest index of the greatest element, without one of them.
    private static func greatest(_ row: UnsafeMutableBufferPointer<Float>, except excluded: Int? = nil) -> Int? {
        var best: Int?
        for index in row.indices where index != excluded {
            if best.map({ row[index] > row[$0] }) ?? (row[index] > -.infinity) {
                best = index
            }
        }
        return best
    }

    @Test(
        "holds the greatest outputs, bit for bit, and leaves out most of the others",
        arguments: [DType.float32, .bfloat16],
        KernelLevel.available
    )
    func greatest(dtype: DType, level: KernelLevel) {
        var numbers = NumberSource(seed: 71)
        let (inputs, outputs) = (96, 2061)
        let screened = Screened(
            numbers.floats(outputs * inputs),
            outputs: outputs,
            inputs: inputs,
            dtype: dtype
        )
        for rows in [1, 2, 5, ProductScreen.mostRows] {
            let input = FloatMatrix(numbers.floats(rows * inputs, in: -3...3), rows: rows, columns: inputs)
            let whole = screened.whole(input)
            let part = screened.screen.product(screened.matrix, input, pool: screened.pool, level: level)
            var kept = 0
            for row in 0..<rows {
                #expect(Self.greatest(part.row(row)) == Self.greatest(whole.row(row)))
                let pairs = zip(part.row(row), whole.row(row)).filter { $0.0 > -.infinity }
                let same = pairs.allSatisfy { $0.0.bitPattern == $0.1.bitPattern }
                #expect(same)
                kept += pairs.count
            }
            #expect(kept < rows * outputs / 2, "\(kept) of \(rows * outputs) are kept")
        }
    }

    @Test("keeps all of several equal outputs, and the best of the rest where one is excluded")
    func ties() {
        var numbers = NumberSource(seed: 72)
        let (inputs, outputs) = (40, 640)
        var weights = numbers.floats(outputs * inputs, in: -0.2...0.2)
        let input = FloatMatrix(numbers.floats(inputs), rows: 1, columns: inputs)
        // Two rows that follow the input: the first copy of the greatest output is at 33, the second at 500.
        for output in [33, 500] {
            for k in 0..<inputs { weights[output * inputs + k] = input.pointer[k] }
        }
        let screened = Screened(weights, outputs: outputs, inputs: inputs, dtype: .float32)
        let whole = screened.whole(input)
        let both = screened.screen.product(screened.matrix, input, pool: screened.pool)
        #expect(both.row(0)[33] == whole.row(0)[33] && both.row(0)[500] == both.row(0)[33])
        let others = screened.screen.product(screened.matrix, input, except: [33], pool: screened.pool)
        #expect(others.row(0)[500] == whole.row(0)[500])
        weights.replaceSubrange(500 * inputs..<501 * inputs, with: numbers.floats(inputs, in: -0.2...0.2))
        let single = Screened(weights, outputs: outputs, inputs: inputs, dtype: .float32)
        let rest = single.screen.product(single.matrix, input, except: [33], pool: single.pool)
        let wholeRest = single.whole(input)
        #expect(Self.greatest(rest.row(0), except: 33) == Self.greatest(wholeRest.row(0), except: 33))
    }

    @Test("leaves nothing out where an input or a weight is NaN")
    func notNumbers() {
        var numbers = NumberSource(seed: 73)
        let (inputs, outputs) = (24, 320)
        var weights = numbers.floats(outputs * inputs)
        weights[100 * inputs + 3] = .nan
        weights[200 * inputs + 5] = .infinity
        let screened = Screened(weights, outputs: outputs, inputs: inputs, dtype: .float32)
        var values = numbers.floats(2 * inputs)
        values[inputs + 1] = .nan
        let input = FloatMatrix(values, rows: 2, columns: inputs)
        let whole = screened.whole(input)
        let part = screened.screen.product(screened.matrix, input, pool: screened.pool)
        for output in [100, 200] {
            #expect(part.row(0)[output].bitPattern == whole.row(0)[output].bitPattern)
        }
        #expect(Self.greatest(part.row(0)) == Self.greatest(whole.row(0)))
        let allAreNone = part.row(1).allSatisfy(\.isNaN)
        #expect(allAreNone)
    }
}
