// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import SwitchyardTypes
import TensorKernels
import Testing

@testable import SwitchTraining

/// `x + mask * o(attention(q n, k m, v m))` with `n = norm(x)`, and `m = n` or the memory, from the references of its parts.
struct NaiveAttentionSublayer {
    struct Weights {
        /// `[1, d_model]`.
        var norm: Grid
        /// `q`, `k`, `v` and `o`.
        var matrices: [Grid]
    }

    var weights: Weights
    /// Each sequence's attention, and its rows of `x` and of the memory.
    var sequences: [(attention: NaiveAttention, queries: Range<Int>, keys: Range<Int>)]
    /// What dropout multiplies an element of the output with.
    var mask: (_ row: Int, _ column: Int) -> Rounded
    let epsilon: Float = 1e-6

    /// What the backward pass needs.
    private struct Middle {
        var normed: Grid
        var q: Grid
        var k: Grid
        var v: Grid
        var context: Grid
    }

    private func middle(_ x: Grid, _ memory: Grid?) -> Middle {
        let normed = NaiveNorm.forward(x, self.weights.norm, epsilon: self.epsilon)
        let products = self.weights.matrices.prefix(3).enumerated()
            .map { NaiveLinear.forward($0.offset == 0 ? normed : memory ?? normed, $0.element) }
        var middle = Middle(normed: normed, q: products[0], k: products[1], v: products[2], context: products[0])
        for (attention, queries, keys) in self.sequences {
            let part = attention.forward(middle.q.rows(queries), middle.k.rows(keys), middle.v.rows(keys))
            middle.context.replace(queries, with: part)
        }
        return middle
    }

    private func masked(_ x: Grid) -> Grid {
        var result = x
        for row in 0..<x.rows {
            for column in 0..<x.columns { result[row, column] = x[row, column] * self.mask(row, column) }
        }
        return result
    }

    func forward(_ x: Grid, _ memory: Grid?) -> Grid {
        var y = self.masked(NaiveLinear.forward(self.middle(x, memory).context, self.weights.matrices[3]))
        for index in y.values.indices { y.values[index] = x.values[index] + y.values[index] }
        return y
    }

    struct Gradients {
        var x: Grid
        /// Nil in self-attention.
        var memory: Grid?
        var norm: Grid
        var matrices: [Grid]
    }

    /// The gradients; the memory's on top of what is there.
    func backward(_ x: Grid, _ memory: Grid?, _ dy: Grid, addingTo before: Grid? = nil) -> Gradients {
        let middle = self.middle(x, memory)
        let matrices = self.weights.matrices
        let outer = self.masked(dy)
        let dContext = NaiveLinear.inputGradient(outer, matrices[3])
        var (dq, dk, dv) = (middle.q, middle.k, middle.v)
        for (attention, queries, keys) in self.sequences {
            let part = attention.backward(
                middle.q.rows(queries),
                middle.k.rows(keys),
                middle.v.rows(keys),
                contextGradient: dContext.rows(queries)
            )
            dq.replace(queries, with: part.q)
            dk.replace(keys, with: part.k)
            dv.replace(keys, with: part.v)
        }
        let source = memory ?? middle.normed
        var dNormed = NaiveLinear.inputGradient(dq, matrices[0])
        var dSource = NaiveLinear.inputGradient(dk, matrices[1], addingTo: memory == nil ? dNormed : before)
        dSource = NaiveLinear.inputGradient(dv, matrices[2], addingTo: dSource)
        if memory == nil { dNormed = dSource }
        let norm = NaiveNorm.backward(x, self.weights.norm, dNormed, epsilon: self.epsilon)
        var dx = norm.dx
        for index in dx.values.indices { dx.values[index] = dy.values[index] + dx.values[index] }
        return Gradients(
            x: dx,
            memory: memory == nil ? nil : dSource,
            norm: norm.dw,
            matrices: [
                NaiveLinear.weightGradient(dq, middle.normed), NaiveLinear.weightGradient(dk, source),
                NaiveLinear.weightGradient(dv, source), NaiveLinear.weightGradient(outer, middle.context),
            ]
        )
    }
}

@Suite("Attention sublayers against float64")
struct AttentionSublayerTests {
    struct Layer: Sendable, CustomTestStringConvertible {
        var kind: AttentionKind
        var stack: Stack
        var lengths: [(queries: Int, keys: Int)]
        var dropout = 0.0

        var testDescription: String { "\(self.stack) \(self.kind), \(self.lengths), dropout \(self.dropout)" }
    }

    static let layers = [
        Layer(kind: .selfAttention, stack: .encoder, lengths: [(1, 1)]),
        Layer(kind: .selfAttention, stack: .encoder, lengths: [(3, 3), (1, 1), (5, 5)], dropout: 0.3),
        Layer(kind: .selfAttention, stack: .decoder, lengths: [(4, 4), (1, 1)]),
        Layer(kind: .selfAttention, stack: .decoder, lengths: [(5, 5), (2, 2)], dropout: 0.2),
        Layer(kind: .cross, stack: .decoder, lengths: [(1, 1)]),
        Layer(kind: .cross, stack: .decoder, lengths: [(2, 5), (4, 1), (1, 3)]),
        Layer(kind: .cross, stack: .decoder, lengths: [(2, 5), (4, 1), (1, 3)], dropout: 0.3),
    ]

    static let (block, first, heads, width) = (1, 2, 3, 5)

    struct Setup {
        let bench: OperationBench
        let queries: SequenceRows
        let keys: SequenceRows
        let parameters: AttentionParameters
        let sublayer: AttentionSublayer
        let reference: NaiveAttentionSublayer
        let x: Rows
        let memory: Rows?

        init(_ layer: Layer) throws {
            let bench = try OperationBench(
                ParameterTests.tiny {
                    $0.modelWidth = 7
                    $0.headCount = AttentionSublayerTests.heads
                    $0.keyWidth = AttentionSublayerTests.width
                },
                threads: 2,
                step: 6
            ) { $0.dropout = layer.dropout }
            let block = try #require(bench.parameters.blocks[layer.stack]?[AttentionSublayerTests.block])
            let isCross = layer.kind == .cross
            let queries = SequenceRows(lengths: layer.lengths.map(\.queries), first: AttentionSublayerTests.first)
            let keys = SequenceRows(lengths: layer.lengths.map(\.keys), first: AttentionSublayerTests.first)
            let parameters = isCross ? try #require(block.crossAttention) : block.selfAttention
            (self.bench, self.queries, self.keys, self.parameters) = (bench, queries, keys, parameters)
            self.x = bench.rows(queries.rowCount, 7, seed: 1, scale: 2)
            let memory = isCross ? bench.rows(keys.rowCount, 7, seed: 2) : nil
            self.memory = memory
            self.sublayer = AttentionSublayer(
                bench.run,
                block,
                queries: queries,
                bias: RelativeBiasTable(bench.run, bench.parameters, stack: layer.stack, longest: queries.longest),
                memory: memory.map { ($0, keys) }
            )
            self.reference = try Self.reference(layer, bench, parameters, queries, keys)
        }

        private static func reference(
            _ layer: Layer,
            _ bench: OperationBench,
            _ parameters: AttentionParameters,
            _ queries: SequenceRows,
            _ keys: SequenceRows
        ) throws -> NaiveAttentionSublayer {
            let random = NaiveRandom(seed: bench.run.settings.seed, step: 6)
            let isCross = layer.kind == .cross
            let index = try #require(bench.parameters.relativeBias[layer.stack])
            let table = Grid(bench.run.weights[index], 32, AttentionSublayerTests.heads)
            func mask(_ kind: RandomSite.Kind, _ sequence: Int, _ position: Int, _ column: Int, head: Int = 0)
                -> Rounded
            {
                random.mask(
                    RandomSite(kind: kind, stack: layer.stack, block: AttentionSublayerTests.block),
                    rate: layer.dropout,
                    sequence: AttentionSublayerTests.first + sequence,
                    position: position,
                    column: column,
                    head: head
                )
            }
            let sequences = layer.lengths.indices.map { sequence in
                let attention = NaiveAttention(
                    heads: AttentionSublayerTests.heads,
                    width: AttentionSublayerTests.width,
                    isCausal: layer.stack == .decoder && !isCross,
                    bias: isCross
                        ? nil
                        : { head, query, key in
                            let isCausal = layer.stack == .decoder
                            return table[
                                NaiveRelativeBias.bucket(key - query, buckets: 32, isCausal: isCausal, largest: 128),
                                head
                            ]
                        },
                    mask: { mask(isCross ? .crossAttentionWeights : .selfAttentionWeights, sequence, $1, $2, head: $0) }
                )
                return (attention: attention, queries: queries.ranges[sequence], keys: keys.ranges[sequence])
            }
            let places = queries.ranges.enumerated()
                .flatMap { sequence, range in range.indices.map { (sequence, $0 - range.lowerBound) } }
            return NaiveAttentionSublayer(
                weights: NaiveAttentionSublayer.Weights(
                    norm: Grid(bench.run.weights[parameters.norm.weight], 1, 7),
                    matrices: Self.matrices(parameters).map { bench.grid($0) }
                ),
                sequences: sequences,
                mask: { mask(isCross ? .crossAttention : .selfAttention, places[$0].0, places[$0].1, $1) }
            )
        }

        static func matrices(_ parameters: AttentionParameters) -> [Weight] {
            [parameters.query, parameters.key, parameters.value, parameters.output]
        }
    }

    @Test("Outputs and gradients", arguments: Self.layers)
    func sublayer(_ layer: Layer) throws {
        let setup = try Setup(layer)
        let (bench, x) = (setup.bench, Grid(setup.x))
        let memory = setup.memory.map { Grid($0) }
        // Limits add up from one operation to the next, and unscaled scores multiply them.
        func expect(_ found: Grid, _ expected: Grid, _ what: String) {
            expectRounded(found, expected, what, scale: 1, limit: 1e-2)
        }
        let y = bench.garbage(setup.x.count, 7)
        let kept = setup.sublayer.forward(setup.x, into: y)
        expect(Grid(y), setup.reference.forward(x, memory), "y")
        let gradient = bench.rows(setup.x.count, 7, seed: 3)
        let dy = Grid(gradient)
        // Blocks add to the encoder's gradient, one after the other.
        let memoryGradient = setup.memory.map { bench.rows($0.count, 7, seed: 4) }
        let before = memoryGradient.map { Grid($0) }
        setup.sublayer.backward(kept, gradient: gradient, memoryGradient: memoryGradient, gradients: bench.gradients)
        let expected = setup.reference.backward(x, memory, dy, addingTo: before)
        expect(Grid(gradient), expected.x, "dx")
        if let memoryGradient, let sum = expected.memory {
            expect(Grid(memoryGradient), sum, "the encoder's gradient")
        }
        for (matrix, gradient) in zip(Setup.matrices(setup.parameters), expected.matrices) {
            let name = bench.gradients.values.layout.entries[matrix.index].name
            expect(bench.gradient(matrix), gradient, name)
            #expect(bench.gradients.touched[matrix.index])
        }
        let sums = try #require(bench.run.sums.norms[setup.parameters.norm.weight])
        expect(Grid(sums.map { Float($0) }, 1, 7), expected.norm, "the norm's gradient")
        #expect(bench.gradients.touched.count { $0 } == 4)
    }

    @Test("The reference's gradients are slopes", arguments: Self.layers)
    func slopes(_ layer: Layer) throws {
        let setup = try Setup(layer)
        let reference = setup.reference
        let x = Grid(setup.x)
        let memory = setup.memory.map { Grid($0) }
        let dy = Grid(setup.bench.rows(setup.x.count, 7, seed: 3))
        let gradients = reference.backward(x, memory, dy)
        expectSlopes(
            [x, reference.weights.norm] + reference.weights.matrices + (memory.map { [$0] } ?? []),
            [gradients.x, gradients.norm] + gradients.matrices + (gradients.memory.map { [$0] } ?? [])
        ) { inputs in
            var moved = reference
            moved.weights.norm = inputs[1]
            moved.weights.matrices = Array(inputs[2..<6])
            return moved.forward(inputs[0], inputs.count > 6 ? inputs[6] : nil).along(dy)
        }
    }
}
