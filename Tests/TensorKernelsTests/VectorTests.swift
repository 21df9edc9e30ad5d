// SPDX-License-Identifier: Apache-2.0

import SwitchyardTypes
import Testing

@testable import TensorKernels

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

@Suite("Vector operations")
struct VectorTests {
    @Test("RMS norm equals its formula and has the same bits on every level", arguments: [1, 15, 16, 33, 96])
    func rmsNorm(columns: Int) {
        var numbers = NumberSource(seed: UInt64(columns))
        let x = FloatMatrix(numbers.floats(3 * columns, in: -4...4), rows: 3, columns: columns)
        let weights = FloatMatrix(numbers.floats(columns), rows: 1, columns: columns)
        let norm = RMSNorm(weights: weights, epsilon: 1e-6)
        let y = norm(x)
        for row in 0..<3 {
            let squares = x.row(row).reduce(0.0) { $0 + Double($1) * Double($1) }
            let inverse = 1 / (squares / Double(columns) + 1e-6).squareRoot()
            for column in 0..<columns {
                let expected = Double(weights.pointer[column]) * Double(x.row(row)[column]) * inverse
                #expect(abs(Double(y.row(row)[column]) - expected) <= 1e-6 * max(abs(expected), 1e-3))
            }
        }
        for level in KernelLevel.available {
            let other = FloatMatrix(rows: 3, columns: columns)
            norm(x, into: other, level: level)
            #expect(bits(other.values) == bits(y.values))
        }
    }

    @Test("softmax equals its formula and has the same bits on every level", arguments: [1, 2, 15, 16, 17, 100])
    func softmax(count: Int) {
        var numbers = NumberSource(seed: UInt64(count))
        let scores = numbers.floats(count, in: -30...30)
        let highest = scores.max() ?? 0
        let exponentials = scores.map { exp(Double($0 - highest)) }
        let sum = exponentials.reduce(0, +)
        var results: [[UInt32]] = []
        for level in KernelLevel.available {
            var values = scores
            values.withUnsafeMutableBufferPointer { buffer in
                if let base = buffer.baseAddress {
                    Softmax.apply(base, count: count, level: level)
                }
            }
            for (value, exponential) in zip(values, exponentials) {
                #expect(abs(Double(value) - exponential / sum) <= 1e-6 * exponential / sum + 1e-37)
            }
            results.append(bits(values))
        }
        #expect(results.allSatisfy { $0 == results[0] })
    }

    @Test("softmax survives scores that differ by more than an exponential can hold")
    func extremeSoftmax() {
        var values: [Float] = [-3.0e38, 1000, 1000, -.infinity]
        values.withUnsafeMutableBufferPointer { buffer in
            if let base = buffer.baseAddress {
                Softmax.apply(base, count: 4)
            }
        }
        #expect(values == [0, 0.5, 0.5, 0])
    }

    @Test("the exponential is within 2 units in the last place of the true value")
    func exponential() {
        var worst = 0.0
        var x: Float = -87
        while x <= 0 {
            let exact = exp(Double(x))
            worst = max(worst, abs(Double(Softmax.exponential(x)) - exact) / Double(Float(exact).ulp))
            x += 0.0137
        }
        #expect(worst < 2)
        #expect(Softmax.exponential(0) == 1)
        #expect(Softmax.exponential(-200) == 0)
        #expect(Softmax.exponential(.nan).isNaN)
    }

    @Test("residual sums are plain sums, the scaled one rounding its product first")
    func residuals() {
        var numbers = NumberSource(seed: 9)
        let a = FloatMatrix(numbers.floats(21), rows: 3, columns: 7)
        let b = FloatMatrix(numbers.floats(21), rows: 3, columns: 7)
        #expect(bits(Residual.add(a, b).values) == bits(zip(a.values, b.values).map { $0 + $1 }))
        let output = FloatMatrix(rows: 1, columns: 21)
        var bytes: [UInt8] = [0] + floatBytes(b.values)
        bytes.withUnsafeMutableBytes { raw in
            if let base = raw.baseAddress {
                Residual.addScaled(a.pointer, base + 1, scale: 0.3, count: 21, into: output.pointer)
            }
        }
        let expected = zip(a.values, b.values)
            .map { pair -> Float in
                let product: Float = 0.3 * pair.1
                return pair.0 + product
            }
        #expect(bits(output.values) == bits(expected))
        Residual.scale(a.pointer, by: 0.7, count: 21, into: output.pointer)
        #expect(bits(output.values) == bits(a.values.map { 0.7 * $0 }))
    }

    @Test("activations equal their formulas", arguments: Activation.allCases)
    func activations(activation: Activation) {
        let inputs: [Float] = [-20, -3, -1, -0.25, 0, 0.5, 1, 2.5, 20]
        let values = FloatMatrix(inputs, rows: 1, columns: inputs.count)
        activation.apply(values.pointer, count: inputs.count)
        for (input, value) in zip(inputs, values.values) {
            let x = Double(input)
            let expected =
                switch activation {
                case .relu: max(x, 0)
                case .gelu: x * 0.5 * (1 + erf(x / 2.0.squareRoot()))
                case .geluTanh: 0.5 * x * (1 + tanh((2 / Double.pi).squareRoot() * (x + 0.044715 * x * x * x)))
                case .silu: x / (1 + exp(-x))
                case .quickGELU: x / (1 + exp(-1.702 * x))
                case .tanh: tanh(x)
                case .relu6: min(max(x, 0), 6)
                case .squaredReLU: max(x, 0) * max(x, 0)
                }
            #expect(abs(Double(value) - expected) <= 1e-6 * max(1, abs(expected)))
        }
    }

    @Test("activations give the same bits at every level, alone and as a gate", arguments: Activation.allCases)
    func activationLevels(activation: Activation) {
        var numbers = NumberSource(seed: 12)
        // A length that no vector divides, with values from both tails and the middle.
        let inputs = numbers.floats(1_003).map { $0 * 6 } + [-200, -90, -0.0, 0, 90, 200, .infinity, .nan]
        let factors = numbers.floats(inputs.count)
        for gate in [nil, FloatMatrix(factors, rows: 1, columns: factors.count)] {
            var expected: [UInt32]?
            for level in KernelLevel.available {
                let values = FloatMatrix(inputs, rows: 1, columns: inputs.count)
                activation.apply(
                    values.pointer,
                    times: gate.map { UnsafePointer($0.pointer) },
                    count: inputs.count,
                    level: level
                )
                let found = values.values.map { $0.isNaN ? Float.nan.bitPattern : $0.bitPattern }
                #expect(found == expected ?? found, "\(level)")
                expected = found
                #expect(values.values.last?.isNaN == true)
            }
            guard gate != nil else { continue }
            let plain = FloatMatrix(inputs, rows: 1, columns: inputs.count)
            activation.apply(plain.pointer, count: inputs.count)
            let products = zip(plain.values, factors)
                .map { ($0 * $1).isNaN ? Float.nan.bitPattern : ($0 * $1).bitPattern }
            #expect(products == expected)
        }
    }

    @Test("widening float16 gives every value exactly")
    func halves() {
        let patterns = (0...UInt16.max).map { $0 }
        var wide = [Float](repeating: 0, count: patterns.count)
        patterns.withUnsafeBytes { source in
            wide.withUnsafeMutableBufferPointer { target in
                if let from = source.baseAddress, let to = target.baseAddress {
                    DType.float16.read(from, count: patterns.count, into: to)
                }
            }
        }
        for pattern in patterns {
            let expected = Float(Float16(bitPattern: pattern))
            let value = wide[Int(pattern)]
            #expect(value.bitPattern == expected.bitPattern || (value.isNaN && expected.isNaN))
        }
    }

    @Test("the report names the best instruction set")
    func report() {
        #expect(KernelReport.describe().contains(KernelLevel.best.name))
    }
}
