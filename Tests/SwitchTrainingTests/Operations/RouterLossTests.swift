// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import SwitchModel
import SwitchyardTypes
import Testing

@testable import SwitchTraining

/// The routers' losses of a step in both forms, a token at a time.
///
/// `paper`: Fedus et al., "Switch Transformers" (2021), equations 4 to 6, and Zoph et al., "ST-MoE" (2022), equation 5, of
/// each layer, added up. `transformers`: `router_z_loss_func` and `load_balancing_loss_func` over the tokens of all sparse
/// layers of a stack together.
struct NaiveRouterLosses {
    /// One layer's logits of each token, `[tokens][experts]`, and where each token went.
    struct Layer {
        var logits: [[Double]]
        var sent: [Int]
    }

    static func probabilities(_ logits: [Double]) -> (values: [Double], normalizer: Double) {
        let most = logits.max() ?? 0
        let normalizer = most + log(logits.reduce(0) { $0 + exp($1 - most) })
        return (logits.map { exp($0 - normalizer) }, normalizer)
    }

    /// The losses of one group of tokens.
    static func losses(_ logits: [[Double]], _ chosen: [Int]) -> (balance: Double, z: Double) {
        let tokens = Double(logits.count)
        let experts = logits[0].count
        var balance = 0.0
        for expert in 0..<experts {
            var (count, probability) = (0.0, 0.0)
            for (row, choice) in zip(logits, chosen) {
                count += choice == expert ? 1 : 0
                probability += Self.probabilities(row).values[expert]
            }
            balance += Double(experts) * (count / tokens) * (probability / tokens)
        }
        var z = 0.0
        for row in logits { z += Self.probabilities(row).normalizer * Self.probabilities(row).normalizer / tokens }
        return (balance, z)
    }

    static func greatest(_ logits: [Double]) -> Int {
        logits.indices.reduce(0) { logits[$1] > logits[$0] ? $1 : $0 }
    }

    /// The losses of a model whose stacks have these layers.
    static func all(
        _ layers: [SparseLayer: Layer],
        _ form: RouterLossForm,
        steps: [Stack: Int]
    ) -> (balance: Double, z: Double) {
        var (balance, z) = (0.0, 0.0)
        func add(_ losses: (balance: Double, z: Double)) {
            balance += losses.balance
            z += losses.z
        }
        switch form {
        case .paper:
            for layer in layers.values { add(Self.losses(layer.logits, layer.sent)) }
        case .transformers:
            for stack in Stack.allCases {
                let logits = layers.filter { $0.key.stack == stack }.flatMap(\.value.logits)
                // A stack whose every block is sparse has no losses there.
                if (steps[stack] ?? 0) > 1, !logits.isEmpty { add(Self.losses(logits, logits.map(Self.greatest))) }
            }
        }
        return (balance, z)
    }
}

@Suite("The routers' losses against float64")
struct RouterLossTests {
    struct Model: Sendable, CustomTestStringConvertible {
        var form: RouterLossForm
        var experts = 3
        var lengths: [(input: Int, target: Int)] = [(5, 4), (1, 1), (7, 3)]
        var encoderStep = 2
        var decoderStep = 2
        /// Whether some tokens are sent elsewhere than where they would go.
        var isRouted = false

        var testDescription: String {
            "\(self.form), \(self.experts) experts, \(self.lengths), steps \(self.encoderStep) and \(self.decoderStep),"
                + " routed \(self.isRouted)"
        }
    }

    static let models = RouterLossForm.allCases.flatMap { form in
        [
            Model(form: form), Model(form: form, experts: 1, lengths: [(1, 1)]), Model(form: form, experts: 9),
            Model(form: form, encoderStep: 1), Model(form: form, encoderStep: 4, decoderStep: 1),
            Model(form: form, encoderStep: 0), Model(form: form, isRouted: true),
        ]
    }

    struct Setup {
        let bench: OperationBench
        var layers: [SparseLayer: NaiveRouterLosses.Layer] = [:]
        let steps: [Stack: Int]
        let configuration: ModelConfiguration

        /// Feeds the step's routing what a forward pass would, sequence by sequence.
        init(_ model: Model) throws {
            self.configuration = ParameterTests.tiny {
                $0.encoderBlocks = 4
                $0.decoderBlocks = 4
                $0.encoderSparseStep = model.encoderStep
                $0.decoderSparseStep = model.decoderStep
                $0.expertCount = model.experts
            }
            self.steps = [.encoder: model.encoderStep, .decoder: model.decoderStep]
            var routes: [SparseLayer: [Int32]] = [:]
            for (index, layer) in self.configuration.sparseLayers.enumerated() {
                let lengths = model.lengths.map { layer.stack == .encoder ? $0.input : $0.target }
                let logits = (0..<lengths.reduce(0, +))
                    .map { token in
                        (0..<model.experts)
                            .map { 2 * TrainingCase.number(token * model.experts + $0, seed: UInt32(40 + index)) }
                    }
                var sent = logits.map(NaiveRouterLosses.greatest)
                if model.isRouted {
                    let route = sent.indices.map { $0 % 3 == 0 ? -1 : $0 % model.experts }
                    for (token, expert) in route.enumerated() where expert >= 0 { sent[token] = expert }
                    routes[layer] = route.map(Int32.init)
                }
                self.layers[layer] = NaiveRouterLosses.Layer(logits: logits, sent: sent)
            }
            self.bench = try OperationBench(
                self.configuration,
                lengths: model.lengths,
                routes: model.isRouted ? routes : nil
            ) {
                $0.routerLosses = model.form
                $0.balance = 0.3
                $0.routerZ = 0.7
                // Dropped tokens count as sent.
                $0.capacity = .factor(0.5)
            }
            for (layer, content) in self.layers {
                let lengths = model.lengths.map { layer.stack == .encoder ? $0.input : $0.target }
                let sequences = SequenceRows(lengths: lengths, first: 0)
                let choices = content.logits.map { Int32(NaiveRouterLosses.greatest($0)) }
                _ = self.bench.run.routing.plan(layer, choices: choices, sequences: sequences, firstRow: 0)
                for range in sequences.ranges {
                    let tokens = content.logits[range].map(NaiveRouterLosses.probabilities)
                    self.bench.run.routing.add(
                        layer,
                        probabilities: (0..<model.experts)
                            .map { expert in tokens.reduce(0) { $0 + $1.values[expert] } },
                        squares: tokens.reduce(0) { $0 + $1.normalizer * $1.normalizer }
                    )
                }
            }
        }
    }

    @Test("Values", arguments: Self.models)
    func values(model: Model) throws {
        let setup = try Setup(model)
        let expected = NaiveRouterLosses.all(setup.layers, model.form, steps: setup.steps)
        let found = setup.bench.run.routing.losses()
        #expect(abs(found.balance - expected.balance) <= 1e-13 * expected.balance)
        #expect(abs(found.z - expected.z) <= 1e-13 * expected.z)
        let hasLosses = model.form == .paper || max(model.encoderStep, model.decoderStep) > 1
        #expect((expected.balance > 0.99) == hasLosses)
    }

    /// The routing gives a layer's gradient by parts: with respect to probabilities for the balance loss, and the factor of
    /// the normalizer for the z-loss, both with the losses' factors.
    @Test("Gradients are the slopes of the losses with respect to each logit", arguments: Self.models)
    func gradients(model: Model) throws {
        let setup = try Setup(model)
        for (layer, content) in setup.layers {
            let parts = setup.bench.run.routing.gradients(layer)
            // Every third token: each difference computes all losses again.
            for token in stride(from: 0, to: content.logits.count, by: 3) {
                let (probabilities, normalizer) = NaiveRouterLosses.probabilities(content.logits[token])
                let mean = zip(probabilities, parts.balance).reduce(0) { $0 + $1.0 * $1.1 }
                for expert in 0..<model.experts {
                    let gradient = probabilities[expert] * (parts.balance[expert] - mean + parts.z * normalizer)
                    func loss(_ step: Double) -> Double {
                        var layers = setup.layers
                        layers[layer]?.logits[token][expert] += step
                        let losses = NaiveRouterLosses.all(layers, model.form, steps: setup.steps)
                        return 0.3 * losses.balance + 0.7 * losses.z
                    }
                    let slope = (8 * (loss(1e-4) - loss(-1e-4)) - (loss(2e-4) - loss(-2e-4))) / 12e-4
                    #expect(abs(gradient - slope) <= 1e-9, "\(layer), token \(token), expert \(expert)")
                }
            }
        }
    }

    @Test("A part's gradients are over the whole step once its counts are known")
    func parts() throws {
        let setup = try Setup(Model(form: .paper))
        let routing = setup.bench.run.routing
        let layer = try #require(setup.configuration.sparseLayers.first)
        let whole = routing.gradients(layer)
        #expect(whole.balance.contains { $0 > 0 })
        routing.knowCounts()
        routing.beginPass()
        let known = routing.gradients(layer)
        #expect(known.balance == whole.balance)
        #expect(known.z == whole.z)
        #expect(routing.losses().balance == 0)
    }
}
