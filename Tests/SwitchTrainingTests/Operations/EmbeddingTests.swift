// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import TensorKernels
import Testing

@testable import SwitchTraining

@Suite("The embedding against float64")
struct EmbeddingTests {
    struct Lookup: Sendable, CustomTestStringConvertible {
        var width: Int
        /// Two calls' tokens.
        var tokens: [[Int32]]
        var threads = 1

        var testDescription: String { "\(self.tokens.map(\.count)) rows of \(self.width)" }
    }

    static let lookups = [
        Lookup(width: 1, tokens: [[0]]), Lookup(width: 7, tokens: [[10, 0, 3]]),
        Lookup(width: 5, tokens: [[4, 4, 4, 1, 4], [1, 9, 4]]), Lookup(width: 33, tokens: [[], [2]]),
        // Enough rows that threads share the columns.
        Lookup(width: 512, tokens: [(0..<150).map { $0 * 7 % 11 }, (0..<33).map { $0 % 2 }], threads: 2),
    ]

    static func bench(_ lookup: Lookup) throws -> OperationBench {
        try OperationBench(ParameterTests.tiny { $0.modelWidth = lookup.width }, threads: lookup.threads)
    }

    @Test("Rows are the tokens' own", arguments: Self.lookups)
    func forward(lookup: Lookup) throws {
        let bench = try Self.bench(lookup)
        let table = bench.grid(bench.parameters.embedding)
        for tokens in lookup.tokens {
            let rows = bench.garbage(tokens.count, lookup.width)
            Embedding.forward(bench.run, bench.parameters.embedding, tokens: tokens, into: rows)
            for (row, token) in tokens.enumerated() {
                for column in 0..<lookup.width {
                    #expect(Double(rows.row(row)[column]) == table[Int(token), column].value)
                }
            }
        }
    }

    @Test("Each token gets the sum of its rows' gradients, on top of what is there", arguments: Self.lookups)
    func backward(lookup: Lookup) throws {
        let bench = try Self.bench(lookup)
        let embedding = bench.parameters.embedding
        let table = bench.gradients.values[embedding.index]
        for index in table.indices { table[index] = Float(TrainingCase.number(index, seed: 9)) }
        var sums = Array(repeating: RoundedSum(), count: table.count)
        for (sum, value) in zip(sums.indices, bench.gradient(embedding).values) { sums[sum].add(value) }
        let rowSums = RowSums(columns: lookup.width)
        // What a step before has left must not show.
        rowSums.add(bench.rows(1, lookup.width, seed: 8), tokens: [3], pool: bench.run.pool)
        rowSums.clear()
        for (call, tokens) in lookup.tokens.enumerated() {
            let dy = bench.rows(tokens.count, lookup.width, seed: UInt32(20 + call))
            rowSums.add(dy, tokens: tokens, pool: bench.run.pool)
            for (row, token) in tokens.enumerated() {
                for column in 0..<lookup.width {
                    sums[Int(token) * lookup.width + column].add(Rounded(dy.row(row)[column]))
                }
            }
        }
        rowSums.add(to: bench.gradients.values.start(embedding.index))
        var expected = Grid(embedding.outputs, embedding.inputs)
        expected.values = sums.map(\.result)
        expectRounded(bench.gradient(embedding), expected, "the table's gradient")
    }
}
