// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import SwitchyardTypes
import TensorKernels
import Testing

@testable import SwitchTraining

/// `y = w x / sqrt(mean(x^2) + epsilon)` and its gradients, one element at a time.
enum NaiveNorm {
    static func inverse(_ x: Grid, _ row: Int, epsilon: Float) -> Rounded {
        var squares = RoundedSum()
        for column in 0..<x.columns { squares.add(x[row, column], times: x[row, column]) }
        return .one / (squares.result / Rounded(Float(x.columns)) + Rounded(epsilon)).squareRoot
    }

    static func forward(_ x: Grid, _ w: Grid, epsilon: Float) -> Grid {
        var y = Grid(x.rows, x.columns)
        for row in 0..<x.rows {
            let inverse = Self.inverse(x, row, epsilon: epsilon)
            for column in 0..<x.columns { y[row, column] = w[0, column] * (x[row, column] * inverse) }
        }
        return y
    }

    /// The quotient rule: `dy/dx` is that of the numerator, less what the root's growth takes.
    static func backward(_ x: Grid, _ w: Grid, _ dy: Grid, epsilon: Float) -> (dx: Grid, dw: Grid) {
        var (dx, dw) = (Grid(x.rows, x.columns), Grid(1, x.columns))
        var sums = Array(repeating: RoundedSum(), count: x.columns)
        for row in 0..<x.rows {
            let inverse = Self.inverse(x, row, epsilon: epsilon)
            var along = RoundedSum()
            for column in 0..<x.columns { along.add(w[0, column] * dy[row, column], times: x[row, column]) }
            let share = along.result * inverse * inverse * inverse / Rounded(Float(x.columns))
            for column in 0..<x.columns {
                dx[row, column] = inverse * (w[0, column] * dy[row, column]) - share * x[row, column]
                sums[column].add(dy[row, column], times: x[row, column] * inverse)
            }
        }
        dw.values = sums.map(\.result)
        return (dx, dw)
    }
}

@Suite("The norm against float64")
struct NormTests {
    struct Shape: Sendable, CustomTestStringConvertible {
        var lengths: [Int]
        var width: Int

        var testDescription: String { "sequences of \(self.lengths), \(self.width) columns" }
    }

    static let shapes = [
        Shape(lengths: [1], width: 1), Shape(lengths: [1], width: 7), Shape(lengths: [3, 1, 5], width: 33),
        Shape(lengths: [2, 2], width: 512), Shape(lengths: [40, 1, 60], width: 48),
    ]

    /// Rows from ordinary size down to where the epsilon decides, and one of zeros.
    static func input(_ bench: OperationBench, _ shape: Shape) -> Rows {
        let count = shape.lengths.reduce(0, +)
        let x = bench.rows(count, shape.width, seed: 1)
        for row in 0..<count {
            let scale: Float = [1, 1e-3, 30, 1e-4, 0][row % 5]
            for column in 0..<shape.width { x.row(row)[column] *= scale }
        }
        return x
    }

    static func bench(_ shape: Shape) throws -> OperationBench {
        try OperationBench(ParameterTests.tiny { $0.modelWidth = shape.width }, threads: 2)
    }

    @Test("Outputs", arguments: Self.shapes)
    func forward(shape: Shape) throws {
        let bench = try Self.bench(shape)
        let index = try #require(bench.parameters.finalNorm[.decoder]?.weight)
        let x = Self.input(bench, shape)
        let y = bench.garbage(x.count, x.columns)
        Norm.forward(bench.run, NormParameters(weight: index), x, into: y)
        let weights = Grid(bench.run.weights[index], 1, shape.width)
        let expected = NaiveNorm.forward(Grid(x), weights, epsilon: bench.run.configuration.layerNormEpsilon)
        for row in 0..<x.count {
            expectRounded(Grid(y.slice(row..<row + 1)), expected.row(row), "y of row \(row)")
        }
    }

    @Test("Gradients, added to what is there", arguments: Self.shapes)
    func backward(shape: Shape) throws {
        let bench = try Self.bench(shape)
        let index = try #require(bench.parameters.finalNorm[.decoder]?.weight)
        let epsilon = bench.run.configuration.layerNormEpsilon
        let x = Self.input(bench, shape)
        let dy = bench.rows(x.count, x.columns, seed: 2)
        let dx = bench.rows(x.count, x.columns, seed: 3)
        let before = Grid(dx)
        let weights = Grid(bench.run.weights[index], 1, shape.width)
        Norm.backward(
            bench.run,
            NormParameters(weight: index),
            input: x,
            outputGradient: dy,
            sequences: SequenceRows(lengths: shape.lengths, first: 0),
            inputGradient: dx
        )
        let expected = NaiveNorm.backward(Grid(x), weights, Grid(dy), epsilon: epsilon)
        for row in 0..<x.count {
            var sum = expected.dx.row(row)
            for column in 0..<sum.columns { sum[0, column] = before[row, column] + sum[0, column] }
            expectRounded(Grid(dx.slice(row..<row + 1)), sum, "dx of row \(row)")
        }
        let sums = try #require(bench.run.sums.norms[index])
        expectRounded(Grid(sums.map(Float.init), 1, shape.width), expected.dw, "dw")
        #expect(bench.run.sums.norms.count == 1)
    }

    @Test("The reference's gradients are slopes", arguments: [1, 1e-3])
    func slopes(scale: Double) {
        let x = Grid((0..<15).map { scale * TrainingCase.number($0, seed: 1) }, 3, 5)
        let w = Grid((0..<5).map { 1 + 0.3 * TrainingCase.number($0, seed: 2) }, 1, 5)
        let dy = Grid((0..<15).map { TrainingCase.number($0, seed: 3) }, 3, 5)
        let gradients = NaiveNorm.backward(x, w, dy, epsilon: 1e-6)
        expectSlopes([x, w], [gradients.dx, gradients.dw], step: 1e-3 * scale) {
            NaiveNorm.forward($0[0], $0[1], epsilon: 1e-6).along(dy)
        }
    }
}
