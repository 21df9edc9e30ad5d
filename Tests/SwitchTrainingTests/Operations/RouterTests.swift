// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import SwitchModel
import SwitchyardTypes
import TensorKernels
import Testing

@testable import SwitchTraining

/// `softmax(x W^T + b)` of noisy rows, and what its losses give back, one element at a time.
struct NaiveRouter {
    /// `[experts, d_model]`.
    var weights: Grid
    /// `[1, experts]`; nil for none.
    var bias: Grid?
    /// What jitter multiplies an element of a row with.
    var noise: (_ row: Int, _ column: Int) -> Rounded

    struct Output {
        var seen: Grid
        var probabilities: Grid
        /// `log(sum exp(logits))` of each row, `[rows, 1]`.
        var normalizers: Grid

        /// The most probable expert of each row.
        var choices: [Int] {
            (0..<self.probabilities.rows)
                .map { row in
                    (0..<self.probabilities.columns)
                        .reduce(0) {
                            self.probabilities[row, $1].value > self.probabilities[row, $0].value ? $1 : $0
                        }
                }
        }
    }

    func forward(_ x: Grid) -> Output {
        var seen = x
        for row in 0..<x.rows {
            for column in 0..<x.columns { seen[row, column] = x[row, column] * self.noise(row, column) }
        }
        var probabilities = NaiveLinear.forward(seen, self.weights)
        var normalizers = Grid(x.rows, 1)
        for row in 0..<x.rows {
            if let bias {
                for expert in 0..<bias.columns {
                    probabilities[row, expert] = probabilities[row, expert] + bias[0, expert]
                }
            }
            var most = probabilities[row, 0]
            for expert in 0..<probabilities.columns { most = .larger(most, probabilities[row, expert]) }
            var total = RoundedSum()
            for expert in 0..<probabilities.columns {
                probabilities[row, expert] = (probabilities[row, expert] - most).exponential
                total.add(probabilities[row, expert])
            }
            normalizers[row, 0] = most + total.result.logarithm
            for expert in 0..<probabilities.columns {
                probabilities[row, expert] = probabilities[row, expert] / total.result
            }
        }
        return Output(seen: seen, probabilities: probabilities, normalizers: normalizers)
    }

    /// The gradients, given those of the probabilities and the normalizers.
    func backward(_ output: Output, probabilities dp: Grid, normalizers dn: Grid) -> (
        dx: Grid, weights: Grid, bias: Grid
    ) {
        var logits = dp
        var bias = Array(repeating: RoundedSum(), count: dp.columns)
        for row in 0..<dp.rows {
            var mean = RoundedSum()
            for expert in 0..<dp.columns { mean.add(output.probabilities[row, expert], times: dp[row, expert]) }
            for expert in 0..<dp.columns {
                let inner = dp[row, expert] - mean.result + dn[row, 0]
                logits[row, expert] = output.probabilities[row, expert] * inner
                bias[expert].add(logits[row, expert])
            }
        }
        var dx = NaiveLinear.inputGradient(logits, self.weights)
        for row in 0..<dx.rows {
            for column in 0..<dx.columns { dx[row, column] = dx[row, column] * self.noise(row, column) }
        }
        var dBias = Grid(1, dp.columns)
        dBias.values = bias.map(\.result)
        return (dx, NaiveLinear.weightGradient(logits, output.seen), dBias)
    }

    /// The gradients of `sum c_t p_t,choice + balance N sum_e f_e P_e + z mean(n^2)`, as the papers write the losses.
    ///
    /// - Parameters:
    ///   - output: What the router computed.
    ///   - choices: The expert of each row.
    ///   - chosen: `c_t`.
    ///   - tokens: The tokens of the step, of which the rows may be a part.
    ///   - settings: The factors.
    /// - Returns: The gradients of probabilities and normalizers.
    static func lossGradients(
        _ output: Output,
        choices: [Int],
        chosen: [Rounded],
        tokens: Int,
        _ settings: TrainingSettings
    ) -> (dp: Grid, dn: Grid) {
        var (dp, dn) = (output.probabilities, output.normalizers)
        for row in 0..<dp.rows {
            for expert in 0..<dp.columns {
                let share = Double(choices.count { $0 == expert }) / Double(tokens)
                let balance = settings.balance * Double(dp.columns) * share / Double(tokens)
                dp[row, expert] = Rounded(balance) + (choices[row] == expert ? chosen[row] : .zero)
            }
            dn[row, 0] = Rounded(2 * settings.routerZ / Double(tokens)) * output.normalizers[row, 0]
        }
        return (dp, dn)
    }

    /// The losses whose gradients ``lossGradients(_:choices:chosen:tokens:_:)`` gives, for choices that stay.
    static func losses(_ output: Output, choices: [Int], tokens: Int, _ settings: TrainingSettings) -> Double {
        var loss = 0.0
        for expert in 0..<output.probabilities.columns {
            let share = Double(choices.count { $0 == expert }) / Double(tokens)
            let mean =
                (0..<choices.count).reduce(0.0) { $0 + output.probabilities[$1, expert].value } / Double(tokens)
            loss += settings.balance * Double(output.probabilities.columns) * share * mean
        }
        let squares = output.normalizers.values.reduce(0.0) { $0 + $1.value * $1.value }
        return loss + settings.routerZ * squares / Double(tokens)
    }
}

@Suite("The router against float64")
struct RouterTests {
    struct Layer: Sendable, CustomTestStringConvertible {
        var experts = 3
        var width = 6
        var lengths = [5, 1, 7]
        var hasBias = false
        var jitter = 0.0
        var balance = 0.0
        var z = 0.0

        var testDescription: String {
            "\(self.experts) experts, sequences of \(self.lengths), \(self.width) columns, bias \(self.hasBias),"
                + " jitter \(self.jitter), balance \(self.balance), z \(self.z)"
        }

        var count: Int { self.lengths.reduce(0, +) }
    }

    static let layers = [
        Layer(experts: 1, width: 1, lengths: [1], balance: 0.5, z: 0.5),
        Layer(),
        Layer(experts: 17, width: 33, lengths: [1, 1, 3], hasBias: true, balance: 4),
        Layer(experts: 33, width: 7, lengths: [2], z: 0.7),
        Layer(experts: 5, width: 11, hasBias: true, jitter: 0.2, balance: 4, z: 0.7),
        Layer(experts: 8, width: 48, lengths: [60, 1, 40], jitter: 0.01, balance: 0.1, z: 0.01),
    ]

    static let layer = SparseLayer(stack: .encoder, block: 1)

    static func bench(_ layer: Layer) throws -> (OperationBench, SparseParameters) {
        let configuration = ParameterTests.tiny {
            $0.modelWidth = layer.width
            $0.expertCount = layer.experts
            $0.routerBias = layer.hasBias
        }
        let bench = try OperationBench(configuration, lengths: layer.lengths.map { ($0, 1) }, threads: 2, step: 5) {
            $0.jitter = layer.jitter
            $0.balance = layer.balance
            $0.routerZ = layer.z
            $0.capacity = .unlimited
        }
        return (bench, try #require(bench.parameters.blocks[.encoder]?[1].sparse))
    }

    static func reference(_ bench: OperationBench, _ parameters: SparseParameters, _ sequences: SequenceRows)
        -> NaiveRouter
    {
        let random = NaiveRandom(seed: bench.run.settings.seed, step: 5)
        let places = sequences.ranges.enumerated()
            .flatMap { sequence, range in range.indices.map { (sequence, $0 - range.lowerBound) } }
        return NaiveRouter(
            weights: bench.grid(parameters.router),
            bias: parameters.routerBias.map { Grid(bench.run.weights[$0], 1, parameters.router.outputs) }
        ) { row, column in
            random.noise(
                RandomSite(kind: .jitter, stack: .encoder, block: 1),
                epsilon: bench.run.settings.jitter,
                sequence: sequences.first + places[row].0,
                position: places[row].1,
                column: column
            )
        }
    }

    @Test("Probabilities, choices and sums for the losses", arguments: Self.layers)
    func forward(layer: Layer) throws {
        let (bench, parameters) = try Self.bench(layer)
        let sequences = SequenceRows(lengths: layer.lengths, first: 0)
        let router = TrainingRouter(run: bench.run, parameters: parameters, sequences: sequences)
        let x = bench.rows(layer.count, layer.width, seed: 1, scale: 2)
        let before = Grid(x)
        let (kept, choices) = router.forward(x)
        let expected = Self.reference(bench, parameters, sequences).forward(before)
        expectRounded(Grid(kept.probabilities), expected.probabilities, "probabilities")
        expectRounded(Grid(kept.input), expected.seen, "rows with noise")
        expectRounded(Grid(kept.normalizers, layer.count, 1), expected.normalizers, "normalizers", scale: 1)
        #expect(choices.map(Int.init) == expected.choices)
        // The experts see rows without noise.
        #expect(zip(Grid(x).values, before.values).allSatisfy { $0.value == $1.value })
        router.record(kept)
        var squares = RoundedSum()
        var sums = Array(repeating: RoundedSum(), count: layer.experts)
        for row in 0..<layer.count {
            squares.add(expected.normalizers[row, 0], times: expected.normalizers[row, 0])
            for expert in 0..<layer.experts { sums[expert].add(expected.probabilities[row, expert]) }
        }
        let recorded = try #require(bench.run.routing.layers[Self.layer])
        var all = Grid(1, layer.experts)
        all.values = sums.map(\.result)
        expectRounded(Grid(recorded.probabilities, 1, layer.experts), all, "sums of probabilities")
        var one = Grid(1, 1)
        one.values = [squares.result]
        expectRounded(Grid([recorded.squares], 1, 1), one, "sum of squares", scale: 1)
    }

    @Test("The lowest of several experts is chosen")
    func ties() throws {
        let (bench, parameters) = try Self.bench(Layer(experts: 4, width: 5, lengths: [6]))
        let weights = bench.run.weights[parameters.router.index]
        // Experts 1 and 3 are the same, and so are 0 and 2.
        for column in 0..<5 {
            weights[10 + column] = weights[column]
            weights[15 + column] = weights[5 + column]
        }
        let router = TrainingRouter(
            run: bench.run,
            parameters: parameters,
            sequences: SequenceRows(lengths: [6], first: 0)
        )
        let choices = router.forward(bench.rows(6, 5, seed: 3, scale: 2)).choices
        #expect(Set(choices) == [0, 1])
    }

    @Test("Gradients of chosen probabilities, balance and z-loss together", arguments: Self.layers)
    func backward(layer: Layer) throws {
        let (bench, parameters) = try Self.bench(layer)
        let sequences = SequenceRows(lengths: layer.lengths, first: 0)
        let router = TrainingRouter(run: bench.run, parameters: parameters, sequences: sequences)
        let x = bench.rows(layer.count, layer.width, seed: 1, scale: 2)
        let (kept, choices) = router.forward(x)
        let plan = bench.run.routing.plan(Self.layer, choices: choices, sequences: sequences, firstRow: 0)
        let chosen = (0..<layer.count).map { Double(Float(TrainingCase.number($0, seed: 6))) }
        let dx = bench.rows(layer.count, layer.width, seed: 7)
        let prior = Grid(dx)
        router.backward(kept, plan: plan, chosenGradients: chosen, inputGradient: dx, gradients: bench.gradients)
        let reference = Self.reference(bench, parameters, sequences)
        let output = reference.forward(Grid(x))
        let (dp, dn) = NaiveRouter.lossGradients(
            output,
            choices: output.choices,
            chosen: chosen.map { Rounded($0) },
            tokens: layer.count,
            bench.run.settings
        )
        let expected = reference.backward(output, probabilities: dp, normalizers: dn)
        var sum = expected.dx
        for index in sum.values.indices { sum.values[index] = prior.values[index] + sum.values[index] }
        expectRounded(Grid(dx), sum, "dx")
        expectRounded(bench.gradient(parameters.router), expected.weights, "dW", scale: 1)
        if let bias = parameters.routerBias {
            let sums = try #require(bench.run.sums.routerBiases[bias])
            expectRounded(Grid(sums, 1, layer.experts), expected.bias, "db", scale: 1)
        }
        #expect(bench.gradients.touched[parameters.router.index])
    }

    @Test("The reference's gradients are slopes", arguments: Self.layers.dropLast())
    func slopes(layer: Layer) throws {
        let (bench, parameters) = try Self.bench(layer)
        let sequences = SequenceRows(lengths: layer.lengths, first: 0)
        let reference = Self.reference(bench, parameters, sequences)
        let x = Grid(bench.rows(layer.count, layer.width, seed: 1))
        let chosen = (0..<layer.count).map { TrainingCase.number($0, seed: 6) }
        let output = reference.forward(x)
        let (settings, choices) = (bench.run.settings, output.choices)
        let (dp, dn) = NaiveRouter.lossGradients(
            output,
            choices: choices,
            chosen: chosen.map { Rounded($0) },
            tokens: layer.count,
            settings
        )
        let gradients = reference.backward(output, probabilities: dp, normalizers: dn)
        let bias = reference.bias ?? Grid(1, layer.experts)
        expectSlopes([x, reference.weights, bias], [gradients.dx, gradients.weights, gradients.bias]) { inputs in
            let moved = NaiveRouter(weights: inputs[1], bias: inputs[2], noise: reference.noise).forward(inputs[0])
            let along = choices.enumerated()
                .reduce(0.0) { $0 + chosen[$1.offset] * moved.probabilities[$1.offset, $1.element].value }
            return along + NaiveRouter.losses(moved, choices: choices, tokens: layer.count, settings)
        }
    }
}
