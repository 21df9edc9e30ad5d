// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import TensorKernels
import Testing

@testable import SwitchTraining

/// Output projection and losses, one element at a time.
struct NaiveHead {
    /// `[vocabulary, d_model]`.
    var weights: Grid
    /// What rows are multiplied with first.
    var scale: Rounded
    var targets: [Int32]
    var smoothing: Double
    var z: Double
    /// What losses are divided by.
    var tokens: Double

    struct Losses {
        var crossEntropy = RoundedSum()
        var uniform = RoundedSum()
        var squares = RoundedSum()
        var correct = 0
    }

    private func scaled(_ x: Grid) -> Grid {
        var result = x
        for index in x.values.indices { result.values[index] = x.values[index] * self.scale }
        return result
    }

    /// The probabilities and the logarithm of the sum of exponentials of one row.
    private func softmax(_ logits: Grid, _ row: Int) -> (probabilities: [Rounded], normalizer: Rounded) {
        var most = logits[row, 0]
        for token in 0..<logits.columns { most = .larger(most, logits[row, token]) }
        let powers = (0..<logits.columns).map { (logits[row, $0] - most).exponential }
        var total = RoundedSum()
        for power in powers { total.add(power) }
        return (powers.map { $0 / total.result }, most + total.result.logarithm)
    }

    func losses(_ x: Grid) -> Losses {
        let logits = NaiveLinear.forward(self.scaled(x), self.weights)
        var losses = Losses()
        for row in 0..<x.rows {
            let (target, normalizer) = (Int(self.targets[row]), self.softmax(logits, row).normalizer)
            losses.crossEntropy.add(normalizer - logits[row, target])
            var sum = RoundedSum()
            for token in 0..<logits.columns { sum.add(normalizer - logits[row, token]) }
            losses.uniform.add(sum.result / Rounded(Float(logits.columns)))
            losses.squares.add(normalizer, times: normalizer)
            let isGreatest = (0..<logits.columns).allSatisfy { logits[row, $0].value <= logits[row, target].value }
            losses.correct += isGreatest ? 1 : 0
        }
        return losses
    }

    /// What a step minimises.
    func loss(_ x: Grid) -> Double {
        let losses = self.losses(x)
        let smooth =
            (1 - self.smoothing) * losses.crossEntropy.result.value + self.smoothing * losses.uniform.result.value
        return (smooth + self.z * losses.squares.result.value) / self.tokens
    }

    /// The gradients of the input, and of the weights on top of what is there.
    func backward(_ x: Grid, addingTo before: Grid? = nil) -> (dx: Grid, weights: Grid) {
        let rows = self.scaled(x)
        let logits = NaiveLinear.forward(rows, self.weights)
        var gradients = logits
        for row in 0..<x.rows {
            let (probabilities, normalizer) = self.softmax(logits, row)
            for token in 0..<logits.columns {
                var sum = RoundedSum()
                sum.add(probabilities[token])
                sum.add(probabilities[token], times: Rounded(2 * self.z) * normalizer)
                sum.add(Rounded(-self.smoothing / Double(logits.columns)))
                if token == Int(self.targets[row]) { sum.add(Rounded(self.smoothing - 1)) }
                gradients[row, token] = sum.result * Rounded(1 / self.tokens)
            }
        }
        return (
            self.scaled(NaiveLinear.inputGradient(gradients, self.weights)),
            NaiveLinear.weightGradient(gradients, rows, addingTo: before)
        )
    }
}

@Suite("Head and cross-entropy against float64")
struct HeadLossTests {
    struct Head: Sendable, CustomTestStringConvertible {
        var rows = 5
        var width = 7
        var vocabulary = 33
        var isTied = false
        var smoothing = 0.0
        var z = 0.0
        /// How large the rows are: large ones make a sure model.
        var size = 1.0

        var testDescription: String {
            "\(self.rows) rows, \(self.width) -> \(self.vocabulary), \(self.isTied ? "tied" : "own"),"
                + " smoothing \(self.smoothing), z \(self.z), size \(self.size)"
        }

        /// Target tokens of the step, of which these rows are a part.
        var tokens: Int { self.rows + 3 }
        var targets: [Int32] { (0..<self.rows).map { Int32($0 * 5 % self.vocabulary) } }

        func bench() throws -> OperationBench {
            let configuration = ParameterTests.tiny {
                $0.modelWidth = self.width
                $0.vocabularySize = self.vocabulary
                $0.tiedEmbeddings = self.isTied
            }
            return try OperationBench(configuration, threads: 2) {
                $0.labelSmoothing = self.smoothing
                $0.softmaxZ = self.z
            }
        }

        func reference(_ weights: Grid) -> NaiveHead {
            NaiveHead(
                weights: weights,
                scale: self.isTied ? Rounded(1 / Double(self.width).squareRoot()) : .one,
                targets: self.targets,
                // As the kernel gets them.
                smoothing: Double(Float(self.smoothing)),
                z: Double(Float(self.z)),
                tokens: Double(self.tokens)
            )
        }
    }

    static let heads = [
        Head(rows: 1, width: 1, vocabulary: 2), Head(), Head(isTied: true),
        Head(rows: 3, vocabulary: 16, smoothing: 0.1),
        Head(rows: 1, width: 17, vocabulary: 31, z: 0.01), Head(vocabulary: 47, isTied: true, smoothing: 0.3, z: 0.1),
        Head(rows: 9, width: 40, vocabulary: 101, smoothing: 0.05, z: 0.001, size: 4),
    ]

    static func expect(_ found: TargetLosses, _ expected: NaiveHead.Losses, smoothing: Double) {
        for (name, value, sum) in [
            ("cross-entropy", found.crossEntropy, expected.crossEntropy.result),
            ("sum of squares", found.squares, expected.squares.result),
            // Without smoothing the mean over the vocabulary is not computed: its factor is 0.
            (
                "mean over the vocabulary", found.uniform,
                (smoothing > 0 ? expected.uniform : expected.crossEntropy).result
            ),
        ] {
            #expect(abs(value - sum.value) <= sum.error, "\(name): \(value), but \(sum.value) +- \(sum.error)")
            #expect(sum.error <= 1e-3 * max(abs(sum.value), 1), "\(name): the limit is too wide")
        }
    }

    @Test("Losses and gradients", arguments: Self.heads)
    func gradients(head: Head) throws {
        let bench = try head.bench()
        let weight = bench.parameters.head
        let x = bench.rows(head.rows, head.width, seed: 1, scale: head.size)
        let before = Grid(x)
        let dx = bench.garbage(head.rows, head.width)
        // Losses and gradients go on from what is there.
        var losses = TargetLosses(crossEntropy: 1, uniform: 2, squares: 3, correct: 0, tokens: 4)
        let prior = bench.rows(head.vocabulary, head.width, seed: 5)
        for row in 0..<head.vocabulary {
            for column in 0..<head.width {
                bench.gradients.values[weight.index][row * head.width + column] = prior.row(row)[column]
            }
        }
        HeadLoss(run: bench.run, parameters: bench.parameters)(
            x,
            targets: head.targets,
            tokens: head.tokens,
            gradient: dx,
            addingTo: &losses
        )
        let reference = head.reference(bench.grid(weight))
        var expected = reference.losses(before)
        expected.crossEntropy.add(.one)
        expected.uniform.add(Rounded(2.0))
        expected.squares.add(Rounded(3.0))
        if head.smoothing == 0 { losses.uniform -= 1 }
        Self.expect(losses, expected, smoothing: head.smoothing)
        #expect(losses.tokens == head.rows + 4)
        let gradients = reference.backward(before, addingTo: Grid(prior))
        expectRounded(Grid(dx), gradients.dx, "dx", scale: 1)
        expectRounded(bench.gradient(weight), gradients.weights, "dW")
        #expect(bench.gradients.touched.count { $0 } == 1)
        #expect(bench.gradients.touched[weight.index])
    }

    @Test("Losses alone, and how many answers are right", arguments: Self.heads)
    func evaluation(head: Head) throws {
        let bench = try head.bench()
        let x = bench.rows(head.rows, head.width, seed: 1, scale: head.size)
        // Rows that point to their answers, but the first.
        for row in 1..<max(head.rows, 1) {
            let target = bench.run.weights[bench.parameters.head.index].dropFirst(Int(head.targets[row]) * head.width)
            for (column, value) in target.prefix(head.width).enumerated() { x.row(row)[column] = 4 * value }
        }
        let before = Grid(x)
        var losses = TargetLosses()
        HeadLoss(run: bench.run, parameters: bench.parameters)(
            x,
            targets: head.targets,
            tokens: head.tokens,
            gradient: nil,
            addingTo: &losses
        )
        let expected = head.reference(bench.grid(bench.parameters.head)).losses(before)
        Self.expect(losses, expected, smoothing: head.smoothing)
        #expect(losses.correct == expected.correct)
        #expect(losses.tokens == head.rows)
        #expect(!bench.gradients.touched.contains(true))
    }

    @Test("Rows of several chunks are rows of one")
    func chunks() throws {
        // More rows than there is room for logits: 64 of them at a time.
        let head = Head(rows: 70, width: 1, vocabulary: 1 << 17 | 1, smoothing: 0.1, z: 0.01)
        func pass(_ ranges: [Range<Int>]) throws -> (losses: TargetLosses, bench: OperationBench, dx: Rows) {
            let bench = try head.bench()
            let x = bench.rows(head.rows, head.width, seed: 1)
            let dx = bench.garbage(head.rows, head.width)
            var losses = TargetLosses()
            for range in ranges {
                HeadLoss(run: bench.run, parameters: bench.parameters)(
                    x.slice(range),
                    targets: Array(head.targets[range]),
                    tokens: head.tokens,
                    gradient: dx.slice(range),
                    addingTo: &losses
                )
            }
            return (losses, bench, dx)
        }
        let whole = try pass([0..<head.rows])
        let cut = try pass([0..<40, 40..<head.rows])
        #expect(whole.losses.crossEntropy == cut.losses.crossEntropy)
        #expect(whole.losses.uniform == cut.losses.uniform)
        #expect(whole.losses.squares == cut.losses.squares)
        #expect(whole.losses.tokens == head.rows)
        #expect(whole.bench.gradients.values.all.elementsEqual(cut.bench.gradients.values.all))
        for row in 0..<head.rows { #expect(whole.dx.row(row)[0] == cut.dx.row(row)[0]) }
    }

    @Test("The reference's gradients are slopes", arguments: Self.heads)
    func slopes(head: Head) {
        func grid(_ rows: Int, _ columns: Int, _ seed: UInt32) -> Grid {
            Grid((0..<rows * columns).map { TrainingCase.number($0, seed: seed) }, rows, columns)
        }
        let (x, weights) = (grid(head.rows, head.width, 1), grid(head.vocabulary, head.width, 2))
        let gradients = head.reference(weights).backward(x)
        expectSlopes([x, weights], [gradients.dx, gradients.weights]) { head.reference($0[1]).loss($0[0]) }
    }
}
