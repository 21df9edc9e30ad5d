// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import SwitchModel
import SwitchyardTypes
import TensorKernels
import Testing

@testable import SwitchTraining

/// Router, capacity, experts and combine, a token at a time.
struct NaiveSparseLayer {
    var router: NaiveRouter
    /// The expert with a mask for each token.
    var experts: [NaiveFeedForward]
    /// Whether an expert's output is multiplied with its probability.
    var scales: Bool
    /// Whether a dropped token gives its input rather than nothing.
    var passes: Bool

    /// Each token's expert, and whether it takes the token.
    struct Plan {
        var choices: [Int]
        var keeps: [Bool]

        /// Tokens in order, each expert up to its limit; `restarts` tells where counting begins anew.
        static func limited(_ choices: [Int], to limit: Int, restarts: Set<Int> = []) -> Plan {
            var counts: [Int: Int] = [:]
            var plan = Plan(choices: choices, keeps: [])
            for (token, choice) in choices.enumerated() {
                if restarts.contains(token) { counts = [:] }
                counts[choice, default: 0] += 1
                plan.keeps.append((counts[choice] ?? 0) <= limit)
            }
            return plan
        }
    }

    private func expert(_ plan: Plan, _ token: Int) -> NaiveFeedForward {
        var expert = self.experts[plan.choices[token]]
        let mask = expert.mask
        expert.mask = { _, column in mask(token, column) }
        return expert
    }

    /// What a token's output is before it is scaled; nil for nothing.
    private func value(_ x: Grid, _ plan: Plan, _ token: Int) -> Grid? {
        guard plan.keeps[token] else { return self.passes ? x.row(token) : nil }
        return self.expert(plan, token).forward(x.row(token))
    }

    /// The outputs; where they are not scaled, they are divided by the probabilities `stopped`, if given, and multiplied
    /// with their own.
    func forward(_ x: Grid, _ output: NaiveRouter.Output, _ plan: Plan, stopped: Grid? = nil) -> Grid {
        var y = Grid(x.rows, x.columns)
        for token in 0..<x.rows {
            guard let value = self.value(x, plan, token) else { continue }
            let probability = output.probabilities[token, plan.choices[token]]
            let scale = self.scales ? probability : stopped.map { probability / $0[token, plan.choices[token]] } ?? .one
            for column in 0..<x.columns { y[token, column] = value[0, column] * scale }
        }
        return y
    }

    struct Gradients {
        var x: Grid
        var router: Grid
        var bias: Grid
        /// Those of each expert's matrices; nil for an expert without a token.
        var experts: [[Grid]?]
    }

    func backward(
        _ x: Grid,
        _ output: NaiveRouter.Output,
        _ plan: Plan,
        _ dy: Grid,
        tokens: Int,
        _ settings: TrainingSettings
    ) -> Gradients {
        var dx = Grid(x.rows, x.columns)
        var chosen = Array(repeating: Rounded.zero, count: x.rows)
        var experts: [[[RoundedSum]]?] = Array(repeating: nil, count: self.experts.count)
        for token in 0..<x.rows {
            guard let value = self.value(x, plan, token) else { continue }
            let choice = plan.choices[token]
            let probability = output.probabilities[token, choice]
            var along = RoundedSum()
            var scaled = dy.row(token)
            for column in 0..<x.columns {
                along.add(dy[token, column], times: value[0, column])
                if self.scales { scaled[0, column] = scaled[0, column] * probability }
            }
            chosen[token] = self.scales ? along.result : along.result / probability
            var own = scaled
            if plan.keeps[token] {
                let gradients = self.expert(plan, token).backward(x.row(token), scaled)
                own = gradients.dx
                var sums = experts[choice] ?? gradients.weights.map { $0.values.map { _ in RoundedSum() } }
                for matrix in sums.indices {
                    for index in sums[matrix].indices {
                        sums[matrix][index].add(gradients.weights[matrix].values[index])
                    }
                }
                experts[choice] = sums
            }
            for column in 0..<x.columns { dx[token, column] = own[0, column] }
        }
        let (dp, dn) = NaiveRouter.lossGradients(
            output,
            choices: plan.choices,
            chosen: chosen,
            tokens: tokens,
            settings
        )
        let router = self.router.backward(output, probabilities: dp, normalizers: dn)
        for index in dx.values.indices { dx.values[index] = dx.values[index] + router.dx.values[index] }
        return Gradients(
            x: dx,
            router: router.weights,
            bias: router.bias,
            experts: zip(self.experts, experts)
                .map { expert, sums in sums.map { Self.grids(expert.weights, $0) } }
        )
    }

    /// Sums in the shapes of matrices.
    private static func grids(_ shapes: [Grid], _ sums: [[RoundedSum]]) -> [Grid] {
        zip(shapes, sums)
            .map { shape, sums in
                var grid = shape
                grid.values = sums.map(\.result)
                return grid
            }
    }
}

@Suite("Experts, dispatch and combine against float64")
struct ExpertsTests {
    struct Layer: Sendable, CustomTestStringConvertible {
        var name: String
        var experts = 3
        var lengths = [5, 1, 7]
        var isGated = false
        var scales = true
        var drops = ModelConfiguration.DroppedTokens.zero
        var capacity = CapacityPolicy.unlimited
        var routes: [Int32]?
        var hasBias = false
        var jitter = 0.0
        var dropout = 0.0

        var testDescription: String { self.name }
        var count: Int { self.lengths.reduce(0, +) }
    }

    static let layers =
        [
            Layer(name: "one token, one expert", experts: 1, lengths: [1]),
            Layer(name: "every token taken"),
            Layer(name: "more experts than tokens", experts: 9, lengths: [2, 1]),
            Layer(
                name: "gated, with a bias, jitter and dropout",
                isGated: true,
                hasBias: true,
                jitter: 0.2,
                dropout: 0.4
            ),
            Layer(name: "not scaled", scales: false, jitter: 0.1),
        ]
        + ModelConfiguration.DroppedTokens.allCases.flatMap { drops in
            [true, false]
                .flatMap { scales in
                    [
                        Layer(
                            name: "\(drops), scaled \(scales), a capacity of the step",
                            scales: scales,
                            drops: drops,
                            capacity: .factor(0.5)
                        ),
                        Layer(
                            name: "\(drops), scaled \(scales), a capacity of each sequence",
                            scales: scales,
                            drops: drops,
                            capacity: .checkpoint
                        ),
                        Layer(
                            name: "\(drops), scaled \(scales), given routes",
                            scales: scales,
                            drops: drops,
                            routes: [2, -1, 2, 0, -1, 0, 2, 2, 0, -1, 2, 0, 0],
                            dropout: 0.3
                        ),
                    ]
                }
        }

    static let sparse = SparseLayer(stack: .decoder, block: 1)
    /// Sequences and tokens of the step before the layer's rows.
    static let before = [4, 1]

    /// The operation with its surroundings and the reference.
    struct Setup {
        let bench: OperationBench
        let parameters: SparseParameters
        let sequences: SequenceRows
        let pass: SparseLayerPass
        let reference: NaiveSparseLayer
        let tokens: Int

        init(_ layer: Layer) throws {
            let configuration = ParameterTests.tiny {
                $0.modelWidth = 7
                $0.expertCount = layer.experts
                $0.expertCapacity = 2
                $0.gatedFeedForward = layer.isGated
                $0.activation = layer.isGated ? .silu : .relu
                $0.scalesByProbability = layer.scales
                $0.droppedTokens = layer.drops
                $0.routerBias = layer.hasBias
            }
            let lengths = ExpertsTests.before + layer.lengths
            let first = ExpertsTests.before.reduce(0, +)
            self.tokens = first + layer.count
            let bench = try OperationBench(
                configuration,
                lengths: lengths.map { (1, $0) },
                routes: layer.routes.map { [ExpertsTests.sparse: Array(repeating: 1, count: first) + $0] },
                step: 2
            ) {
                $0.capacity = layer.capacity
                $0.jitter = layer.jitter
                $0.dropout = 0.9
                $0.expertDropout = layer.dropout
                $0.balance = 2
                $0.routerZ = 0.5
            }
            let parameters = try #require(bench.parameters.blocks[.decoder]?[1].sparse)
            let sequences = SequenceRows(lengths: layer.lengths, first: ExpertsTests.before.count)
            (self.bench, self.parameters, self.sequences) = (bench, parameters, sequences)
            self.pass = SparseLayerPass(run: bench.run, parameters: parameters, sequences: sequences, firstRow: first)
            self.reference = Self.reference(layer, bench, parameters, sequences)
        }

        private static func reference(
            _ layer: Layer,
            _ bench: OperationBench,
            _ parameters: SparseParameters,
            _ sequences: SequenceRows
        ) -> NaiveSparseLayer {
            let random = NaiveRandom(seed: bench.run.settings.seed, step: 2)
            let places = sequences.ranges.enumerated()
                .flatMap { sequence, range in
                    range.indices.map { (sequence: sequences.first + sequence, position: $0 - range.lowerBound) }
                }
            func site(_ kind: RandomSite.Kind) -> RandomSite { RandomSite(kind: kind, stack: .decoder, block: 1) }
            let router = NaiveRouter(
                weights: bench.grid(parameters.router),
                bias: parameters.routerBias.map { Grid(bench.run.weights[$0], 1, layer.experts) }
            ) { row, column in
                random.noise(
                    site(.jitter),
                    epsilon: layer.jitter,
                    sequence: places[row].sequence,
                    position: places[row].position,
                    column: column
                )
            }
            let experts = parameters.experts.map { expert in
                NaiveFeedForward(
                    activation: bench.run.configuration.activation,
                    isGated: layer.isGated,
                    weights: Self.matrices(expert).map { bench.grid($0) }
                ) { row, column in
                    random.mask(
                        site(.inner),
                        rate: layer.dropout,
                        sequence: places[row].sequence,
                        position: places[row].position,
                        column: column
                    )
                }
            }
            return NaiveSparseLayer(
                router: router,
                experts: experts,
                scales: layer.scales,
                passes: layer.drops == .pass
            )
        }

        static func matrices(_ expert: FeedForwardParameters) -> [Weight] {
            [expert.inner, expert.factor, expert.wo].compactMap { $0 }
        }

        /// Where the tokens go, by the definition of each capacity.
        func plan(_ layer: Layer, _ output: NaiveRouter.Output) -> NaiveSparseLayer.Plan {
            let choices = output.choices
            if let routes = layer.routes {
                return NaiveSparseLayer.Plan(
                    choices: zip(routes, choices).map { $0 < 0 ? $1 : Int($0) },
                    keeps: routes.map { $0 >= 0 }
                )
            }
            switch layer.capacity {
            case .unlimited: return .limited(choices, to: .max)
            case .checkpoint:
                return .limited(choices, to: 2, restarts: Set(self.sequences.ranges.map(\.lowerBound)))
            case .factor(let factor):
                let limit = (factor * Double(self.tokens) / Double(layer.experts)).rounded(.up)
                return .limited(choices, to: Int(limit))
            case .floor(let factor, _):
                let limit = (factor * Double(self.tokens) / Double(layer.experts)).rounded(.down)
                return .limited(choices, to: Int(limit))
            }
        }
    }

    @Test("Outputs and gradients", arguments: Self.layers)
    func layer(_ layer: Layer) throws {
        let setup = try Setup(layer)
        let (bench, parameters, reference) = (setup.bench, setup.parameters, setup.reference)
        let x = bench.rows(layer.count, 7, seed: 1, scale: 2)
        let (y, dx) = (bench.garbage(layer.count, 7), bench.garbage(layer.count, 7))
        let kept = setup.pass.forward(x, into: y, known: nil)
        let output = reference.router.forward(Grid(x))
        let plan = setup.plan(layer, output)
        #expect(kept.plan.choices.map(Int.init) == plan.choices)
        #expect(kept.plan.slots.map { $0 >= 0 } == plan.keeps)
        expectRounded(Grid(y), reference.forward(Grid(x), output, plan), "y", scale: 0.1)
        let dy = bench.rows(layer.count, 7, seed: 2)
        setup.pass.backward(kept, outputGradient: dy, inputGradient: dx, gradients: bench.gradients)
        let expected = reference.backward(
            Grid(x),
            output,
            plan,
            Grid(dy),
            tokens: setup.tokens,
            bench.run.settings
        )
        expectRounded(Grid(dx), expected.x, "dx")
        expectRounded(bench.gradient(parameters.router), expected.router, "the router's gradient", scale: 1)
        if let bias = parameters.routerBias {
            let sums = try #require(bench.run.sums.routerBiases[bias])
            expectRounded(Grid(sums, 1, layer.experts), expected.bias, "the bias's gradient", scale: 1)
        }
        for (index, expert) in parameters.experts.enumerated() {
            let gradients = expected.experts[index]
            for (place, matrix) in Setup.matrices(expert).enumerated() {
                #expect(bench.gradients.touched[matrix.index] == (gradients != nil), "expert \(index)")
                let zeros = Grid(matrix.outputs, matrix.inputs)
                expectRounded(bench.gradient(matrix), gradients?[place] ?? zeros, "expert \(index)", scale: 0.1)
            }
        }
        let routing = try #require(bench.run.routing.layers[Self.sparse])
        for expert in 0..<layer.experts {
            #expect(routing.sent[expert] == plan.choices.count { $0 == expert })
            #expect(routing.kept[expert] == zip(plan.choices, plan.keeps).count { $0 == expert && $1 })
        }
    }

    @Test("Capacities of the cases drop tokens, and leave experts without any")
    func cases() throws {
        var (dropped, empty) = (0, 0)
        for layer in Self.layers {
            let setup = try Setup(layer)
            let output = setup.reference.router.forward(Grid(setup.bench.rows(layer.count, 7, seed: 1, scale: 2)))
            let plan = setup.plan(layer, output)
            dropped += plan.keeps.contains(false) ? 1 : 0
            empty += Set(zip(plan.choices, plan.keeps).filter(\.1).map(\.0)).count < layer.experts ? 1 : 0
        }
        // Every case with a capacity or with routes drops tokens; those with routes leave expert 1 empty.
        #expect(dropped == 12)
        #expect(empty >= 5)
    }

    @Test("The reference's gradients are slopes", arguments: Self.layers)
    func slopes(layer: Layer) throws {
        let setup = try Setup(layer)
        let (reference, settings) = (setup.reference, setup.bench.run.settings)
        let x = Grid(setup.bench.rows(layer.count, 7, seed: 1, scale: 2))
        let dy = Grid(setup.bench.rows(layer.count, 7, seed: 2))
        let output = reference.router.forward(x)
        let plan = setup.plan(layer, output)
        let gradients = reference.backward(x, output, plan, dy, tokens: setup.tokens, settings)
        let last = try #require(plan.keeps.lastIndex(of: true))
        let expert = plan.choices[last]
        let matrices = try #require(gradients.experts[expert])
        let bias = reference.router.bias ?? Grid(1, layer.experts)
        expectSlopes(
            [x, reference.router.weights, bias] + reference.experts[expert].weights,
            [gradients.x, gradients.router, gradients.bias] + matrices,
            step: 1e-5
        ) { inputs in
            var moved = reference
            moved.router.weights = inputs[1]
            moved.router.bias = inputs[2]
            moved.experts[expert].weights = Array(inputs.dropFirst(3))
            let now = moved.router.forward(inputs[0])
            let y = moved.forward(inputs[0], now, plan, stopped: output.probabilities)
            return y.along(dy) + NaiveRouter.losses(now, choices: plan.choices, tokens: setup.tokens, settings)
        }
    }
}
