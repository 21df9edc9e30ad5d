// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import SwitchModel
import TensorKernels
import Testing

@testable import SwitchTraining

@Suite("A teacher's loss")
struct TeacherLossTests {
    static let vocabulary = 23

    static func dense(_ settings: (inout TrainingSettings) -> Void = { _ in }) -> TrainingCase {
        ModelGradientTests.make("dense", settings) {
            ModelGradientTests.dense(&$0)
            $0.vocabularySize = Self.vocabulary
        }
    }

    @Test(
        "Gradients are the float64 reference's, whatever is kept, its share, and the temperature",
        arguments: [1, 2, 6, 22, 23],
        [(0.25, 1.0), (1, 3), (0.5, 0.5)]
    )
    func gradients(kept: Int, settings: (weight: Double, temperature: Double)) throws {
        let test =
            Self.dense {
                $0.labelSmoothing = 0.1
                $0.softmaxZ = 0.01
            }
            .taught(kept: kept, weight: settings.weight, temperature: settings.temperature)
        let (report, gradients) = try test.gradients()
        let reference = ReferenceModel(test.configuration, settings: test.settings, weights: try test.weights())
        let loss = reference.loss(test.batch)
        reference.tape.backward(loss)
        #expect(abs(report.loss - loss.data[0]) <= 1e-6 * abs(loss.data[0]))
        ModelGradientTests.compare(gradients, reference, within: 3e-5)
    }

    @Test("Threads, instruction sets and parts do not show", arguments: [1, 40, 150])
    func sameBits(kept: Int) throws {
        let test = SameBitsTests.busy().taught(kept: kept, weight: 0.4, temperature: 1.5)
        let whole = try test.gradients()
        let divergence = try #require(whole.0.divergence)
        #expect(divergence > 0)
        SameBitsTests.expectSame(whole, try test.gradients(threads: 3), "3 threads")
        for level in KernelLevel.available {
            SameBitsTests.expectSame(whole, try test.gradients(threads: 2, level: level), "\(level.name)")
        }
        SameBitsTests.expectSame(whole, try test.gradients(parts: [0..<1, 1..<4, 4..<6], threads: 2), "parts")
    }

    @Test("Without a share the teacher teaches nothing, and without a loss its answers are not looked at")
    func noShare() throws {
        let test = SameBitsTests.busy()
        let (report, gradients) = try test.gradients()
        let silent = try test.taught(kept: 5, weight: 0).gradients()
        #expect(silent.0.loss == report.loss && silent.0.divergence != nil && report.divergence == nil)
        // Nothing but the sign of a zero may differ.
        #expect(silent.1.values.all.elementsEqual(gradients.values.all))
        var ignored = test.taught(kept: 5)
        ignored.settings.teacher = nil
        SameBitsTests.expectSame((report, gradients), try ignored.gradients(), "ignored")
    }

    /// Logits as the decoder's rows: the output projection is the identity.
    private func head(
        _ logits: [Double],
        kept: Int,
        temperature: Double = 1,
        teacher: [Double]
    ) throws -> (losses: TargetLosses, gradient: [Double]) {
        let count = logits.count
        let configuration = ParameterTests.tiny {
            $0.modelWidth = count
            $0.vocabularySize = count
            $0.tiedEmbeddings = false
        }
        var loss = TeacherLoss()
        loss.weight = 1
        loss.temperature = temperature
        let bench = try OperationBench(configuration) { $0.teacher = loss }
        let weights = bench.run.weights[bench.parameters.head.index]
        for row in 0..<count { for column in 0..<count { weights[row * count + column] = row == column ? 1 : 0 } }
        let x = bench.rows(1, count, seed: 1)
        for column in 0..<count { x.row(0)[column] = Float(logits[column]) }
        let dx = bench.garbage(1, count)
        let tokens = teacher.indices.sorted { teacher[$0] > teacher[$1] }.prefix(kept).sorted()
        var example = TrainingExample(input: [1], target: [1])
        example.teacher = TeacherAnswer(
            kept: kept,
            tokens: tokens.map { Int32($0) },
            logprobs: tokens.map { Float(teacher[$0]) }
        )
        var losses = TargetLosses()
        HeadLoss(run: bench.run, parameters: bench.parameters)(
            x,
            targets: [1],
            teacher: TeacherRows([example]),
            tokens: 1,
            gradient: dx,
            addingTo: &losses
        )
        return (losses, (0..<count).map { Double(dx.row(0)[$0]) })
    }

    private func logSoftmax(_ logits: [Double]) -> [Double] {
        let most = logits.max() ?? 0
        let normalizer = most + log(logits.reduce(0) { $0 + exp($1 - most) })
        return logits.map { $0 - normalizer }
    }

    @Test("A student that is its teacher has nothing to learn", arguments: [1, 4, 17])
    func equal(kept: Int) throws {
        let logits = (0..<17).map { Double(Float(3 * TrainingCase.number($0, seed: 4))) }
        let result = try self.head(logits, kept: kept, temperature: 2, teacher: self.logSoftmax(logits.map { $0 / 2 }))
        #expect(abs(result.losses.divergence) < 1e-6)
        #expect(result.gradient.allSatisfy { abs($0) < 1e-6 })
    }

    @Test(
        "A student that leaves others almost nothing is told by how much, however sure it is",
        arguments: [20, 90, 300]
    )
    func sure(lead: Int) throws {
        // The named tokens are far ahead of the others, to which the teacher gives a half.
        let count = 33
        let logits = (0..<count).map { ($0 < 3 ? Double(lead) : 0) + Double($0 % 5) }
        let teacher = self.logSoftmax((0..<count).map { $0 < 3 ? log(10.0) : 0 })
        let result = try self.head(logits, kept: 3, teacher: teacher)
        let own = self.logSoftmax(logits)
        let rest = self.logSoftmax(Array(logits[3...]))
        let other = own[3] - rest[0]
        let loss =
            (0..<3).reduce(0.0) { $0 + exp(teacher[$1]) * (teacher[$1] - own[$1]) } + 0.5 * (log(0.5) - other)
        #expect(abs(result.losses.divergence - loss) <= 1e-6 * loss, "\(result.losses.divergence), but \(loss)")
        for token in 0..<count {
            let expected =
                token < 3 ? exp(own[token]) - exp(teacher[token]) : exp(own[token]) - 0.5 * exp(rest[token - 3])
            #expect(abs(result.gradient[token] - expected) <= 1e-6, "token \(token)")
        }
    }

    @Test("What cannot be learnt from is refused with its example, limit and value")
    func refused() throws {
        func refusal(_ change: (inout TrainingCase) -> Void) -> TrainingError? {
            var test = Self.dense().taught(kept: 3)
            change(&test)
            return #expect(throws: TrainingError.self) { try test.gradients() }
        }
        #expect(
            refusal { $0.batch.examples[1].teacher = nil }?.message.contains("example 1 of the step has no") == true
        )
        #expect(refusal { $0.batch.examples[2].teacher?.kept = 0 }?.message.contains("from 1 to the") == true)
        #expect(
            refusal { $0.batch.examples[2].teacher?.tokens.removeLast() }?.message.contains("3 places of 3") == true
        )
        #expect(refusal { $0.batch.examples[0].teacher?.tokens[1] = 23 }?.message.contains("below 23") == true)
        #expect(refusal { $0.batch.examples[0].teacher?.tokens[1] = 0 }?.message.contains("must ascend") == true)
        #expect(refusal { $0.batch.examples[0].teacher?.logprobs[1] = .nan }?.message.contains("at most 0") == true)
        #expect(refusal { $0.batch.examples[0].teacher?.logprobs[1] = 1 }?.message.contains("at most 0") == true)
        #expect(refusal { $0.settings.teacher?.weight = 1.5 }?.message.contains("from 0 to 1") == true)
        #expect(refusal { $0.settings.teacher?.temperature = 0 }?.code == .invalidSettings)
        #expect(refusal { $0.settings.teacher?.temperature = .nan }?.code == .invalidSettings)
    }
}
