// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import SwitchyardTypes
import TensorKernels
import Testing

@testable import SwitchTraining

/// The three products of a linear layer, one element at a time.
enum NaiveLinear {
    static func forward(_ x: Grid, _ w: Grid) -> Grid {
        var y = Grid(x.rows, w.rows)
        for row in 0..<x.rows {
            for output in 0..<w.rows {
                var sum = RoundedSum()
                for input in 0..<x.columns { sum.add(x[row, input], times: w[output, input]) }
                y[row, output] = sum.result
            }
        }
        return y
    }

    static func inputGradient(_ dy: Grid, _ w: Grid, addingTo before: Grid? = nil) -> Grid {
        var dx = Grid(dy.rows, w.columns)
        for row in 0..<dy.rows {
            for input in 0..<w.columns {
                var sum = RoundedSum()
                if let before { sum.add(before[row, input]) }
                for output in 0..<w.rows { sum.add(dy[row, output], times: w[output, input]) }
                dx[row, input] = sum.result
            }
        }
        return dx
    }

    static func weightGradient(_ dy: Grid, _ x: Grid, addingTo before: Grid? = nil) -> Grid {
        var dw = Grid(dy.columns, x.columns)
        for output in 0..<dy.columns {
            for input in 0..<x.columns {
                var sum = RoundedSum()
                if let before { sum.add(before[output, input]) }
                for row in 0..<x.rows { sum.add(dy[row, output], times: x[row, input]) }
                dw[output, input] = sum.result
            }
        }
        return dw
    }
}

@Suite("Linear layers against float64")
struct LinearTests {
    struct Shape: Sendable, CustomTestStringConvertible {
        var rows: Int
        var inputs: Int
        var outputs: Int

        var testDescription: String { "\(self.rows) rows, \(self.inputs) -> \(self.outputs)" }

        func bench(threads: Int = 1) throws -> (OperationBench, Weight) {
            let configuration = ParameterTests.tiny {
                $0.modelWidth = self.inputs
                $0.feedForwardWidth = self.outputs
            }
            let bench = try OperationBench(configuration, threads: threads)
            return (bench, try #require(bench.parameters.blocks[.encoder]?[0].dense?.inner))
        }
    }

    /// Single rows and columns, odd widths, and rows whose arena leaves gaps between them.
    static let shapes = [
        Shape(rows: 1, inputs: 1, outputs: 1), Shape(rows: 1, inputs: 7, outputs: 1),
        Shape(rows: 3, inputs: 1, outputs: 5),
        Shape(rows: 5, inputs: 17, outputs: 33), Shape(rows: 37, inputs: 40, outputs: 15),
        Shape(rows: 3, inputs: 512, outputs: 9), Shape(rows: 2, inputs: 11, outputs: 512),
        Shape(rows: 0, inputs: 3, outputs: 2),
    ]

    @Test("Outputs", arguments: Self.shapes, [false, true])
    func forward(shape: Shape, relu: Bool) throws {
        let (bench, weight) = try shape.bench()
        let x = bench.rows(shape.rows, shape.inputs, seed: 1)
        let y = bench.garbage(shape.rows, shape.outputs)
        bench.product(Linear.forward(bench.run, weight, x, into: y, relu: relu))
        var expected = NaiveLinear.forward(Grid(x), bench.grid(weight))
        if relu {
            for index in expected.values.indices { expected.values[index] = .larger(expected.values[index], .zero) }
        }
        expectRounded(Grid(y), expected, "y", scale: 1)
    }

    @Test("The inputs' gradient, alone and added", arguments: Self.shapes, [false, true])
    func inputGradient(shape: Shape, accumulates: Bool) throws {
        let (bench, weight) = try shape.bench(threads: 2)
        let dy = bench.rows(shape.rows, shape.outputs, seed: 2)
        let dx = accumulates ? bench.rows(shape.rows, shape.inputs, seed: 3) : bench.garbage(shape.rows, shape.inputs)
        let before = accumulates ? Grid(dx) : nil
        bench.product(Linear.inputGradient(bench.run, weight, dy, into: dx, accumulates: accumulates))
        expectRounded(Grid(dx), NaiveLinear.inputGradient(Grid(dy), bench.grid(weight), addingTo: before), "dx")
    }

    @Test("The weights' gradient goes on from what is there", arguments: Self.shapes)
    func weightGradient(shape: Shape) throws {
        let (bench, weight) = try shape.bench(threads: 2)
        let before = bench.rows(shape.outputs, shape.inputs, seed: 4)
        for output in 0..<shape.outputs {
            for input in 0..<shape.inputs {
                bench.gradients.values[weight.index][output * shape.inputs + input] = before.row(output)[input]
            }
        }
        let x = bench.rows(shape.rows, shape.inputs, seed: 1)
        let dy = bench.rows(shape.rows, shape.outputs, seed: 2)
        bench.product(Linear.weightGradient(bench.gradients, weight, dy, x))
        let expected = NaiveLinear.weightGradient(Grid(dy), Grid(x), addingTo: Grid(before))
        expectRounded(bench.gradient(weight), expected, "dW")
        // A layer without rows has no gradient, rather than one of zeros.
        #expect(bench.gradients.touched[weight.index] == (shape.rows > 0))
        #expect(bench.gradients.touched.count { $0 } == (shape.rows > 0 ? 1 : 0))
    }

    @Test("The reference's gradients are slopes")
    func slopes() {
        let x = Grid((0..<21).map { TrainingCase.number($0, seed: 1) }, 3, 7)
        let w = Grid((0..<35).map { TrainingCase.number($0, seed: 2) }, 5, 7)
        let dy = Grid((0..<15).map { TrainingCase.number($0, seed: 3) }, 3, 5)
        let gradients = [NaiveLinear.inputGradient(dy, w), NaiveLinear.weightGradient(dy, x)]
        expectSlopes([x, w], gradients) { NaiveLinear.forward($0[0], $0[1]).along(dy) }
    }
}
