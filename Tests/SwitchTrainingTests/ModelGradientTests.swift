// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import SwitchModel
import SwitchyardTypes
import TensorKernels
import Testing

@testable import SwitchTraining

@Suite("Gradients of the whole model against float64")
struct ModelGradientTests {
    static func make(
        _ name: String,
        lengths: [(input: Int, target: Int)] = [(5, 4), (1, 1), (7, 3)],
        _ settings: (inout TrainingSettings) -> Void = { _ in },
        _ change: (inout ModelConfiguration) -> Void = { _ in }
    ) -> TrainingCase {
        let configuration = ParameterTests.tiny(change)
        let examples = TrainingCase.examples(lengths, vocabulary: configuration.vocabularySize, seed: 5)
        var result = TrainingCase(name: name, configuration: configuration, batch: TrainingBatch(examples))
        result.settings.capacity = .unlimited
        settings(&result.settings)
        return result
    }

    static func dense(_ configuration: inout ModelConfiguration) {
        configuration.family = .t5
        configuration.encoderSparseStep = 0
        configuration.decoderSparseStep = 0
        configuration.expertCount = 0
    }

    static let cases: [TrainingCase] =
        [
            Self.make("tied, two sparse layers"),
            Self.make("head of its own") { _ in
            } _: {
                $0.tiedEmbeddings = false
            },
            Self.make("router bias and z-loss") {
                $0.routerZ = 0.1
            } _: {
                $0.routerBias = true
            },
            Self.make("transformers' losses") {
                $0.routerLosses = .transformers
                $0.routerZ = 0.1
                $0.balance = 0.5
            } _: {
                $0.encoderBlocks = 4
            },
            Self.make("transformers' losses, every layer sparse") {
                $0.routerLosses = .transformers
                $0.balance = 0.5
            } _: {
                $0.encoderSparseStep = 1
            },
            Self.make("smoothing and softmax z") {
                $0.labelSmoothing = 0.1
                $0.softmaxZ = 0.01
            },
            Self.make("experts not scaled") { _ in
            } _: {
                $0.scalesByProbability = false
            },
            Self.make("recomputed") {
                $0.recomputesBlocks = true
                $0.routerZ = 0.1
            },
            Self.make("long sequences", lengths: [(40, 37)]) { _ in
            } _: {
                $0.relativeMaxDistance = 20
                $0.relativeBuckets = 8
            },
            Self.make("no scaling of a tied head") { _ in
            } _: {
                $0.decoderOutputScaling = false
            },
        ]
        + ModelConfiguration.Activation.allCases.flatMap { activation in
            [false, true]
                .map { isGated in
                    Self.make("\(isGated ? "gated" : "plain") \(activation)") { _ in
                    } _: {
                        $0.activation = activation
                        $0.gatedFeedForward = isGated
                        if isGated { Self.dense(&$0) }
                    }
                }
        }

    @Test("Every tensor's gradient is the float64 one's, rounded", arguments: Self.cases)
    func gradients(of test: TrainingCase) throws {
        let (report, gradients) = try test.gradients()
        let reference = ReferenceModel(test.configuration, settings: test.settings, weights: try test.weights())
        let loss = reference.loss(test.batch)
        reference.tape.backward(loss)
        #expect(abs(report.loss - loss.data[0]) <= 1e-6 * abs(loss.data[0]))
        Self.compare(gradients, reference, within: 3e-5)
    }

    static let random: [TrainingCase] = [
        Self.make("dropout") { $0.dropout = 0.2 },
        Self.make("expert dropout and jitter") {
            $0.expertDropout = 0.4
            $0.jitter = 0.1
        },
        Self.make("all of it, recomputed") { settings in
            settings.dropout = 0.1
            settings.expertDropout = 0.4
            settings.jitter = 0.05
            settings.recomputesBlocks = true
            settings.seed = 0x1234_5678_9ABC_DEF0
        } _: {
            $0.gatedFeedForward = true
            $0.activation = .geluTanh
            $0.routerBias = true
        },
        Self.make("dense with dropout") {
            $0.dropout = 0.3
        } _: {
            Self.dense(&$0)
            $0.activation = .silu
        },
    ]

    @Test("The backward pass draws the masks of the forward pass", arguments: Self.random)
    func masks(of test: TrainingCase) throws {
        let (report, gradients) = try test.gradients(step: 7)
        let weights = try test.weights()
        let reference = ReferenceModel(test.configuration, settings: test.settings, weights: weights, step: 7)
        let loss = reference.loss(test.batch)
        reference.tape.backward(loss)
        #expect(abs(report.loss - loss.data[0]) <= 1e-6 * abs(loss.data[0]))
        Self.compare(gradients, reference, within: 3e-5)
        let (other, _) = try test.gradients(step: 8)
        #expect(other.loss != report.loss)
    }

    static func compare(_ gradients: Gradients, _ reference: ReferenceModel, within limit: Double) {
        let layout = gradients.values.layout
        for (index, entry) in layout.entries.enumerated() {
            guard let expected = reference.parameters[entry.name]?.gradient else {
                Issue.record("no \(entry.name)")
                continue
            }
            let error = relativeError(gradients.values[index].lazy.map(Double.init), expected)
            #expect(error <= limit, "\(entry.name): \(error)")
            if !gradients.touched[index] {
                #expect(expected.allSatisfy { $0 == 0 }, "\(entry.name) has a gradient")
            }
        }
    }

    @Test("Dropped tokens give nothing, or pass", arguments: ModelConfiguration.DroppedTokens.allCases)
    func dropped(choice: ModelConfiguration.DroppedTokens) throws {
        var test = Self.make("dropped") {
            $0.balance = 0.3
        } _: {
            $0.droppedTokens = choice
        }
        let routes: [SparseLayer: [Int32]] = [
            SparseLayer(stack: .encoder, block: 1): [0, -1, 2, 2, 0, -1, 0, 2, 2, 0, 2, -1, 0],
            SparseLayer(stack: .decoder, block: 1): [1, 1, -1, 0, 1, 1, 0, -1],
        ]
        test.batch = TrainingBatch(test.batch.examples, routes: routes)
        let (report, gradients) = try test.gradients()
        let reference = ReferenceModel(test.configuration, settings: test.settings, weights: try test.weights())
        let loss = reference.loss(test.batch)
        reference.tape.backward(loss)
        #expect(abs(report.loss - loss.data[0]) <= 1e-6 * abs(loss.data[0]))
        Self.compare(gradients, reference, within: 3e-5)
        #expect(report.layers[0].dropped == 3.0 / 13)
        #expect(report.dropped == 5.0 / 21)
        // The encoder's expert 1 got no token.
        let role = TensorRole.expert(SparseLayer(stack: .encoder, block: 1), expert: 1, .wi)
        let index = try #require(gradients.values.layout.index(of: role))
        #expect(!gradients.touched[index])
    }
}
