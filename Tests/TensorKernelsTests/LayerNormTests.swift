// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import TensorKernels

@Suite("Layer norm")
struct LayerNormTests {
    @Test("it equals its formula and has the same bits on every level", arguments: [1, 15, 16, 33, 96, 128])
    func formula(columns: Int) {
        var numbers = NumberSource(seed: UInt64(columns))
        let x = FloatMatrix(numbers.floats(3 * columns, in: -4...6), rows: 3, columns: columns)
        let norm = LayerNorm(
            weights: FloatMatrix(numbers.floats(columns), rows: 1, columns: columns),
            bias: FloatMatrix(numbers.floats(columns), rows: 1, columns: columns),
            epsilon: 1e-5
        )
        let y = norm(x)
        for row in 0..<3 {
            let values = x.row(row).map { Double($0) }
            let mean = values.reduce(0, +) / Double(columns)
            let variance = values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(columns)
            for (column, value) in values.enumerated() {
                let expected =
                    Double(norm.weights.pointer[column]) * (value - mean) / (variance + 1e-5).squareRoot()
                    + Double(norm.bias.pointer[column])
                #expect(abs(Double(y.row(row)[column]) - expected) <= 4e-6)
            }
        }
        for level in KernelLevel.available { #expect(bits(norm(x, level: level).values) == bits(y.values)) }
    }

    @Test("joined to the residual it has the bits of the two steps", arguments: [1, 17, 64])
    func adding(columns: Int) {
        var numbers = NumberSource(seed: UInt64(columns))
        let residual = FloatMatrix(numbers.floats(5 * columns), rows: 5, columns: columns)
        let update = FloatMatrix(numbers.floats(5 * columns), rows: 5, columns: columns)
        let norm = LayerNorm(
            weights: FloatMatrix(numbers.floats(columns), rows: 1, columns: columns),
            bias: FloatMatrix(numbers.floats(columns), rows: 1, columns: columns),
            epsilon: 1e-5
        )
        let pool = WorkPool(threads: 2)
        let (sum, normed) = norm.adding(update, to: residual, pool: pool)
        #expect(bits(sum.values) == bits(Residual.add(residual, update).values))
        #expect(bits(normed.values) == bits(norm(sum).values))
    }
}
