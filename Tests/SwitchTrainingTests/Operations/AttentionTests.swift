// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import SwitchyardTypes
import TensorKernels
import Testing

@testable import SwitchTraining

/// `softmax(q k^T + bias) v` of one sequence's heads, one element at a time.
struct NaiveAttention {
    var heads: Int
    /// Columns of a head.
    var width: Int
    var isCausal: Bool
    /// The bias of a head, a query and a key; nil for none.
    var bias: ((Int, Int, Int) -> Rounded)?
    /// What dropout multiplies a probability with.
    var mask: (_ head: Int, _ query: Int, _ key: Int) -> Rounded

    /// Probabilities of one head, `[queries, keys]`, before dropout.
    func probabilities(_ q: Grid, _ k: Grid, head: Int) -> Grid {
        var result = Grid(q.rows, k.rows)
        for query in 0..<q.rows {
            let keys = 0..<(self.isCausal ? min(query + 1, k.rows) : k.rows)
            var scores: [Rounded] = []
            for key in keys {
                var sum = RoundedSum()
                for column in head * self.width..<(head + 1) * self.width {
                    sum.add(q[query, column], times: k[key, column])
                }
                if let bias = self.bias { sum.add(bias(head, query, key)) }
                scores.append(sum.result)
            }
            let most = scores.reduce(scores[0]) { .larger($0, $1) }
            let powers = scores.map { ($0 - most).exponential }
            var total = RoundedSum()
            for power in powers { total.add(power) }
            for key in keys { result[query, key] = powers[key] / total.result }
        }
        return result
    }

    func forward(_ q: Grid, _ k: Grid, _ v: Grid) -> Grid {
        var context = Grid(q.rows, q.columns)
        for head in 0..<self.heads {
            let probabilities = self.probabilities(q, k, head: head)
            for query in 0..<q.rows {
                for column in head * self.width..<(head + 1) * self.width {
                    var sum = RoundedSum()
                    for key in 0..<k.rows {
                        sum.add(probabilities[query, key] * self.mask(head, query, key), times: v[key, column])
                    }
                    context[query, column] = sum.result
                }
            }
        }
        return context
    }

    struct Gradients {
        var q: Grid
        var k: Grid
        var v: Grid
        /// The gradient of each score, `[queries, keys]` of each head.
        var scores: [Grid]
    }

    func backward(_ q: Grid, _ k: Grid, _ v: Grid, contextGradient dc: Grid) -> Gradients {
        var result = Gradients(
            q: Grid(q.rows, q.columns),
            k: Grid(k.rows, k.columns),
            v: Grid(v.rows, v.columns),
            scores: []
        )
        for head in 0..<self.heads {
            let columns = head * self.width..<(head + 1) * self.width
            let probabilities = self.probabilities(q, k, head: head)
            var scores = Grid(q.rows, k.rows)
            for query in 0..<q.rows {
                var gradients: [Rounded] = []
                var mean = RoundedSum()
                for key in 0..<k.rows {
                    var sum = RoundedSum()
                    for column in columns { sum.add(dc[query, column], times: v[key, column]) }
                    gradients.append(sum.result * self.mask(head, query, key))
                    mean.add(probabilities[query, key], times: gradients[key])
                }
                for key in 0..<k.rows {
                    scores[query, key] = probabilities[query, key] * (gradients[key] - mean.result)
                }
            }
            for column in columns {
                for query in 0..<q.rows {
                    var sum = RoundedSum()
                    for key in 0..<k.rows { sum.add(scores[query, key], times: k[key, column]) }
                    result.q[query, column] = sum.result
                }
                for key in 0..<k.rows {
                    var (keySum, valueSum) = (RoundedSum(), RoundedSum())
                    for query in 0..<q.rows {
                        keySum.add(scores[query, key], times: q[query, column])
                        valueSum.add(probabilities[query, key] * self.mask(head, query, key), times: dc[query, column])
                    }
                    result.k[key, column] = keySum.result
                    result.v[key, column] = valueSum.result
                }
            }
            result.scores.append(scores)
        }
        return result
    }
}

@Suite("Attention against float64")
struct AttentionTests {
    struct Layer: Sendable, CustomTestStringConvertible {
        var kind: AttentionKind
        var stack: Stack
        var lengths: [(queries: Int, keys: Int)]
        var heads = 3
        var width = 5
        var dropout = 0.0
        var threads = 1

        var testDescription: String {
            "\(self.stack) \(self.kind), \(self.lengths), \(self.heads) heads of \(self.width), dropout \(self.dropout)"
        }
    }

    static let layers =
        Stack.allCases.flatMap { stack in
            [
                Layer(kind: .selfAttention, stack: stack, lengths: [(1, 1)], heads: 1, width: 1),
                Layer(kind: .selfAttention, stack: stack, lengths: [(3, 3), (1, 1), (6, 6)]),
                Layer(kind: .selfAttention, stack: stack, lengths: [(33, 33)], heads: 2, width: 16, threads: 2),
                Layer(kind: .selfAttention, stack: stack, lengths: [(4, 4), (1, 1), (17, 17)], width: 3, dropout: 0.3),
            ]
        } + [
            Layer(kind: .cross, stack: .decoder, lengths: [(1, 1)], heads: 1, width: 1),
            Layer(kind: .cross, stack: .decoder, lengths: [(2, 1), (1, 7), (5, 3)]),
            Layer(kind: .cross, stack: .decoder, lengths: [(1, 40), (33, 2)], heads: 2, width: 16, threads: 2),
            Layer(kind: .cross, stack: .decoder, lengths: [(3, 4), (1, 9), (9, 1)], width: 3, dropout: 0.4),
        ]

    /// One layer's operation, its rows, and the reference of each sequence.
    struct Setup {
        static let firstSequence = 4
        static let block = 1
        let bench: OperationBench
        let attention: Attention
        let q: Rows
        let k: Rows
        let v: Rows
        let table: Grid

        init(_ layer: Layer) throws {
            let configuration = ParameterTests.tiny {
                $0.headCount = layer.heads
                $0.keyWidth = layer.width
                $0.relativeBuckets = 8
                $0.relativeMaxDistance = 20
            }
            let bench = try OperationBench(configuration, threads: layer.threads, step: 6) {
                $0.dropout = layer.dropout
            }
            let queries = SequenceRows(lengths: layer.lengths.map(\.queries), first: Self.firstSequence)
            let keys = SequenceRows(lengths: layer.lengths.map(\.keys), first: Self.firstSequence)
            let columns = layer.heads * layer.width
            let index = try #require(bench.parameters.relativeBias[layer.stack])
            self.bench = bench
            self.table = Grid(bench.run.weights[index], 8, layer.heads)
            self.attention = Attention(
                run: bench.run,
                stack: layer.stack,
                block: Self.block,
                queries: queries,
                keys: keys,
                bias: layer.kind == .cross
                    ? nil
                    : RelativeBiasTable(bench.run, bench.parameters, stack: layer.stack, longest: queries.longest),
                isCausal: layer.stack == .decoder && layer.kind == .selfAttention
            )
            self.q = bench.rows(queries.rowCount, columns, seed: 1)
            self.k = bench.rows(keys.rowCount, columns, seed: 2)
            self.v = bench.rows(keys.rowCount, columns, seed: 3)
        }

        static func bucket(_ distance: Int, _ layer: Layer) -> Int {
            NaiveRelativeBias.bucket(distance, buckets: 8, isCausal: layer.stack == .decoder, largest: 20)
        }

        static func reference(_ layer: Layer, sequence: Int, seed: UInt64, table: Grid) -> NaiveAttention {
            let random = NaiveRandom(seed: seed, step: 6)
            let site = RandomSite(
                kind: layer.kind == .cross ? .crossAttentionWeights : .selfAttentionWeights,
                stack: layer.stack,
                block: Self.block
            )
            return NaiveAttention(
                heads: layer.heads,
                width: layer.width,
                isCausal: layer.stack == .decoder && layer.kind == .selfAttention,
                bias: layer.kind == .cross ? nil : { table[Self.bucket($2 - $1, layer), $0] },
                mask: { head, query, key in
                    random.mask(
                        site,
                        rate: layer.dropout,
                        sequence: Self.firstSequence + sequence,
                        position: query,
                        column: key,
                        head: head
                    )
                }
            )
        }
    }

    @Test("Contexts and gradients", arguments: Self.layers)
    func attention(layer: Layer) throws {
        let setup = try Setup(layer)
        let (bench, attention) = (setup.bench, setup.attention)
        let columns = layer.heads * layer.width
        let probabilities = bench.run.arena.floats(attention.probabilityCount)
        let context = bench.garbage(setup.q.count, columns)
        attention.forward(query: setup.q, key: setup.k, value: setup.v, probabilities: probabilities, context: context)
        let dc = bench.rows(setup.q.count, columns, seed: 4)
        let (dq, dk) = (bench.garbage(setup.q.count, columns), bench.garbage(setup.k.count, columns))
        let dv = bench.garbage(setup.k.count, columns)
        attention.backward(
            AttentionActivations(
                query: setup.q,
                key: setup.k,
                value: setup.v,
                probabilities: probabilities,
                context: context
            ),
            contextGradient: dc,
            queryGradient: dq,
            keyGradient: dk,
            valueGradient: dv
        )
        var bias = Array(repeating: RoundedSum(), count: layer.heads * 8)
        for sequence in layer.lengths.indices {
            let reference = Setup.reference(
                layer,
                sequence: sequence,
                seed: bench.run.settings.seed,
                table: setup.table
            )
            let queries = attention.queries.ranges[sequence]
            let keys = attention.keys.ranges[sequence]
            let (q, k, v) = (Grid(setup.q.slice(queries)), Grid(setup.k.slice(keys)), Grid(setup.v.slice(keys)))
            let name = "sequence \(sequence)"
            expectRounded(Grid(context.slice(queries)), reference.forward(q, k, v), "\(name): context")
            let expected = reference.backward(q, k, v, contextGradient: Grid(dc.slice(queries)))
            expectRounded(Grid(dq.slice(queries)), expected.q, "\(name): dq", scale: 1)
            expectRounded(Grid(dk.slice(keys)), expected.k, "\(name): dk", scale: 1)
            expectRounded(Grid(dv.slice(keys)), expected.v, "\(name): dv")
            for (head, scores) in expected.scores.enumerated() {
                for query in 0..<scores.rows {
                    for key in 0..<scores.columns {
                        bias[head * 8 + Setup.bucket(key - query, layer)].add(scores[query, key])
                    }
                }
            }
        }
        let sums = try #require(bench.run.sums.biases[layer.stack])
        guard layer.kind == .selfAttention else {
            #expect(sums.allSatisfy { $0.allSatisfy { $0 == 0 } })
            return
        }
        var expected = Grid(layer.heads, 8)
        expected.values = bias.map(\.result)
        expectRounded(Grid(sums[Setup.block].map(Float.init), layer.heads, 8), expected, "dbias", scale: 1)
        #expect(sums[1 - Setup.block].allSatisfy { $0 == 0 })
    }

    @Test("The reference's gradients are slopes", arguments: [true, false])
    func slopes(isCausal: Bool) {
        let (queries, keys) = (4, isCausal ? 4 : 3)
        func grid(_ rows: Int, _ columns: Int, _ seed: UInt32) -> Grid {
            Grid((0..<rows * columns).map { TrainingCase.number($0, seed: seed) }, rows, columns)
        }
        let (q, k, v, dc) = (grid(queries, 6, 1), grid(keys, 6, 2), grid(keys, 6, 3), grid(queries, 6, 4))
        func attention(_ bias: Grid) -> NaiveAttention {
            NaiveAttention(
                heads: 2,
                width: 3,
                isCausal: isCausal,
                bias: { head, query, key in bias[head, query * keys + key] },
                mask: { head, query, key in Rounded(Float((head + 2 * query + key) % 3)) }
            )
        }
        let bias = grid(2, queries * keys, 5)
        let gradients = attention(bias).backward(q, k, v, contextGradient: dc)
        var biasGradient = Grid(2, queries * keys)
        biasGradient.values = gradients.scores.flatMap(\.values)
        expectSlopes([q, k, v, bias], [gradients.q, gradients.k, gradients.v, biasGradient]) {
            attention($0[3]).forward($0[0], $0[1], $0[2]).along(dc)
        }
    }
}
