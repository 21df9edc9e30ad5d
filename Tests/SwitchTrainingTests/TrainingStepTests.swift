// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import SwitchModel
import SwitchyardTypes
import TensorKernels
import Testing

@testable import SwitchTraining

@Suite("Training steps")
struct TrainingStepTests {
    static func step(_ test: TrainingCase) throws -> TrainingStep {
        try TrainingStep(test.configuration, settings: test.settings, pool: WorkPool(threads: 1))
    }

    @Test("Steps against the gradient lower the loss")
    func learns() throws {
        let test = ModelGradientTests.make("learns")
        let step = try Self.step(test)
        let weights = try test.weights()
        let gradients = Gradients(layout: step.layout)
        var losses: [Double] = []
        for number in 0..<80 {
            let report = try step.gradients(test.batch, weights: weights, into: gradients, step: number)
            losses.append(report.loss)
            let rate = Float(0.05 / report.gradientNorm)
            for index in weights.all.indices { weights.all[index] -= rate * gradients.values.all[index] }
        }
        #expect(losses[79] < 0.5 * losses[0])
        let evaluation = try step.evaluate(test.batch, weights: weights)
        #expect(evaluation.correctTokens ?? 0 > 3)
        #expect(evaluation.targetTokens == 8)
    }

    @Test("A weight that is not a number is found, with step, part and tensor or loss")
    func notFinite() throws {
        var test = ModelGradientTests.make("not finite")
        test.batch.parts = [0..<2, 2..<3]
        let step = try Self.step(test)
        let weights = try test.weights()
        let role = TensorRole.dense(.decoder, block: 0, .wo)
        weights[try #require(step.layout.index(of: role))][3] = .nan
        let gradients = Gradients(layout: step.layout)
        let error = #expect(throws: TrainingError.self) {
            try step.gradients(test.batch, weights: weights, into: gradients, step: 12)
        }
        #expect(error?.code == .notFinite)
        #expect(error?.message.contains("step 12, part 1 of 2") == true)
        // The next step starts afresh.
        let good = try test.weights()
        let report = try step.gradients(test.batch, weights: good, into: gradients, step: 3)
        SameBitsTests.expectSame((report, gradients), try test.gradients(parts: test.batch.parts), "after an error")
    }

    @Test("Batches that teach nothing are refused, with example, limit and value")
    func refused() throws {
        let test = ModelGradientTests.make("refused")
        let step = try Self.step(test)
        let weights = try test.weights()
        let gradients = Gradients(layout: step.layout)
        let good = TrainingExample(input: [1], target: [1])
        let layer = SparseLayer(stack: .encoder, block: 1)
        let cases: [(TrainingBatch, String)] = [
            (TrainingBatch([]), "at least one example"),
            (
                TrainingBatch([good, TrainingExample(input: [], target: [1])]),
                "example 1 of the step has an empty input"
            ),
            (TrainingBatch([TrainingExample(input: [1], target: [11])]), "token 11 in its target"),
            (TrainingBatch([TrainingExample(input: [-1], target: [1])]), "token -1 in its input"),
            (
                TrainingBatch([TrainingExample(input: Array(repeating: 1, count: 65_537), target: [1])]),
                "the limit is 65536"
            ),
            (TrainingBatch([good], routes: [layer: []]), "an expert for each of 1 tokens"),
            (
                TrainingBatch([good], routes: [layer: [3], SparseLayer(stack: .decoder, block: 1): [0]]),
                "name expert 3"
            ),
        ]
        for (batch, text) in cases {
            let error = #expect(throws: TrainingError.self) {
                try step.gradients(batch, weights: weights, into: gradients, step: 0)
            }
            #expect(error?.code == .invalidBatch)
            #expect(error?.message.contains(text) == true, "\(error?.message ?? "")")
        }
        var gap = TrainingBatch([good, good])
        gap.parts = [1..<2]
        #expect(throws: TrainingError.self) {
            try step.gradients(gap, weights: weights, into: gradients, step: 0)
        }
    }

    @Test("Settings out of range are refused by name")
    func settings() throws {
        let changes: [(String, (inout TrainingSettings) -> Void)] = [
            ("dropout", { $0.dropout = 1 }), ("expertDropout", { $0.expertDropout = -0.1 }),
            ("jitter", { $0.jitter = .nan }), ("labelSmoothing", { $0.labelSmoothing = 1 }),
            ("softmaxZ", { $0.softmaxZ = .infinity }), ("balance", { $0.balance = -1 }),
            ("routerZ", { $0.routerZ = .nan }), ("capacity", { $0.capacity = .factor(0) }),
            ("evaluationCapacity", { $0.evaluationCapacity = .factor(.nan) }),
        ]
        for (name, change) in changes {
            var settings = TrainingSettings()
            change(&settings)
            let error = #expect(throws: TrainingError.self) { try settings.validate() }
            #expect(error?.message.hasPrefix("\(name) must be") == true)
        }
    }

    @Test("An encoder alone is refused")
    func encoderAlone() throws {
        var configuration = ParameterTests.tiny()
        configuration.decoderBlocks = 0
        let error = #expect(throws: TrainingError.self) {
            try TrainingStep(configuration, pool: WorkPool(threads: 1))
        }
        #expect(error?.code == .unsupported)
    }

    @Test("Parts hold as many tokens as they may")
    func parts() {
        let examples = [3, 4, 9, 1, 1, 1].map { TrainingExample(input: Array(repeating: 1, count: $0), target: [1]) }
        #expect(TrainingBatch(examples, mostTokens: 9).parts == [0..<2, 2..<3, 3..<6])
        #expect(TrainingBatch(examples, mostTokens: 1).parts.count == 6)
        #expect(TrainingBatch(examples, mostTokens: 1_000).parts == [0..<6])
    }

    @Test("Capacity in training is counted over the whole step")
    func capacity() throws {
        var test = ModelGradientTests.make("capacity", lengths: [(12, 1), (12, 1)])
        test.settings.capacity = .factor(0.5)
        let report = try test.gradients().0
        // 24 tokens, 3 experts: 4 tokens each.
        let encoder = try #require(report.layers.first)
        let kept = encoder.shares.map { min(Int(($0 * 24).rounded()), 4) }.reduce(0, +)
        #expect(encoder.dropped == Double(24 - kept) / 24)
        #expect(abs(encoder.shares.reduce(0, +) - 1) < 1e-12)
    }
}

@Suite("Random numbers of training")
struct StepRandomnessTests {
    static let site = RandomSite(kind: .inner, stack: .decoder, block: 3)

    static func mask(_ randomness: StepRandomness, rate: Double, _ sequence: Int, _ position: Int) -> [Float] {
        var row = [Float](repeating: 1, count: 1_000)
        for level in KernelLevel.available {
            var other = [Float](repeating: 1, count: 1_000)
            Dropout(rate: rate, site: Self.site, randomness: randomness, level: level)?
                .apply(&other, count: 1_000, place: (sequence, position))
            if level == .scalar { row = other }
            #expect(other == row)
        }
        return row
    }

    @Test("Dropout drops its share and keeps the mean", arguments: [0.1, 0.4])
    func rate(rate: Double) {
        let randomness = StepRandomness(seed: 9, step: 2)
        let all = (0..<20).flatMap { Self.mask(randomness, rate: rate, $0 % 4, $0) }
        let dropped = Double(all.count { $0 == 0 }) / Double(all.count)
        #expect(abs(dropped - rate) < 0.015)
        #expect(abs(Double(all.max() ?? 0) * (1 - rate) - 1) < 1e-4)
    }

    @Test("Masks differ by seed, step, sequence and position, and by nothing else")
    func keys() {
        let base = Self.mask(StepRandomness(seed: 9, step: 2), rate: 0.5, 1, 1)
        #expect(Self.mask(StepRandomness(seed: 9, step: 2), rate: 0.5, 1, 1) == base)
        #expect(Self.mask(StepRandomness(seed: 10, step: 2), rate: 0.5, 1, 1) != base)
        #expect(Self.mask(StepRandomness(seed: 9 << 32 | 9, step: 2), rate: 0.5, 1, 1) != base)
        #expect(Self.mask(StepRandomness(seed: 9, step: 3), rate: 0.5, 1, 1) != base)
        #expect(Self.mask(StepRandomness(seed: 9, step: 2), rate: 0.5, 2, 1) != base)
        #expect(Self.mask(StepRandomness(seed: 9, step: 2), rate: 0.5, 1, 2) != base)
    }

    @Test("Jitter stays within its limits, around 1")
    func jitter() throws {
        let layer = SparseLayer(stack: .encoder, block: 1)
        let randomness = StepRandomness(seed: 4, step: 1)
        var rows: [[Float]] = []
        for level in KernelLevel.available {
            let jitter = try #require(Jitter(epsilon: 0.25, layer: layer, randomness: randomness, level: level))
            var row = [Float](repeating: 1, count: 5_003)
            let ones = row
            jitter.apply(ones, count: row.count, place: (2, 3), into: &row)
            rows.append(row)
        }
        let row = rows[0]
        #expect(rows.allSatisfy { $0 == row })
        #expect(row.allSatisfy { $0 >= 0.75 && $0 <= 1.25 })
        #expect(row.min() ?? 1 < 0.76 && row.max() ?? 1 > 1.24)
        #expect(abs(row.reduce(0, +) / Float(row.count) - 1) < 0.01)
    }
}
