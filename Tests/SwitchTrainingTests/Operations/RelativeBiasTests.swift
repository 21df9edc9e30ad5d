// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import SwitchyardTypes
import TensorKernels
import Testing

@testable import SwitchTraining

/// Buckets of distances (Raffel et al., "Exploring the Limits of Transfer Learning", 2020, section 2.1).
enum NaiveRelativeBias {
    /// Half of a direction's buckets hold one distance each, the others grow by a constant factor up to the largest distance.
    static func bucket(_ distance: Int, buckets all: Int, isCausal: Bool, largest: Int) -> Int {
        let buckets = isCausal ? all : all / 2
        let first = !isCausal && distance > 0 ? buckets : 0
        let length = isCausal ? max(-distance, 0) : abs(distance)
        let exact = buckets / 2
        guard length >= exact else { return first + length }
        // The bucket whose lower bound, exact * (largest / exact) ^ (i / (buckets - exact)), is the last one not beyond.
        var bucket = exact
        for next in 1..<max(buckets - exact, 1) {
            let bound = Double(exact) * pow(Double(largest) / Double(exact), Double(next) / Double(buckets - exact))
            if Double(length) >= bound * (1 - 1e-7) { bucket = exact + next }
        }
        return first + bucket
    }
}

@Suite("The relative position bias against its definition")
struct RelativeBiasTests {
    struct Table: Sendable, CustomTestStringConvertible {
        var buckets: Int
        var largest: Int
        var longest: Int
        var heads = 3

        var testDescription: String { "\(self.buckets) buckets to \(self.largest), \(self.longest) positions" }

        func bench() throws -> OperationBench {
            try OperationBench(
                ParameterTests.tiny {
                    $0.relativeBuckets = self.buckets
                    $0.relativeMaxDistance = self.largest
                    $0.headCount = self.heads
                }
            )
        }
    }

    static let tables = [
        Table(buckets: 32, largest: 128, longest: 1), Table(buckets: 32, largest: 128, longest: 140),
        Table(buckets: 8, largest: 20, longest: 37, heads: 1), Table(buckets: 7, largest: 50, longest: 60),
        Table(buckets: 64, largest: 300, longest: 2, heads: 5),
    ]

    @Test("Each query finds the bias of each key's distance", arguments: Self.tables, Stack.allCases)
    func forward(table: Table, stack: Stack) throws {
        let bench = try table.bench()
        let weights = bench.run.weights[try #require(bench.parameters.relativeBias[stack])]
        let bias = RelativeBiasTable(bench.run, bench.parameters, stack: stack, longest: table.longest)
        for length in Set([1, (table.longest + 1) / 2, table.longest]) {
            for head in 0..<table.heads {
                for query in 0..<length {
                    for key in 0..<length {
                        let bucket = NaiveRelativeBias.bucket(
                            key - query,
                            buckets: table.buckets,
                            isCausal: stack == .decoder,
                            largest: table.largest
                        )
                        let found = bias.start(head: head, length: length)[length - 1 - query + key]
                        #expect(found == weights[bucket * table.heads + head], "distance \(key - query)")
                    }
                }
            }
        }
    }

    @Test("The table's gradient is the sum over a stack's layers and sequences", arguments: Stack.allCases)
    func gradient(stack: Stack) throws {
        let bench = try Table(buckets: 7, largest: 50, longest: 1).bench()
        let index = try #require(bench.parameters.relativeBias[stack])
        let (heads, buckets) = (3, 7)
        var sums = Array(repeating: RoundedSum(), count: buckets * heads)
        for call in 0..<6 {
            let values = (0..<heads * buckets).map { TrainingCase.number($0, seed: UInt32(call)) }
            bench.run.sums.addBias(stack, block: call % 2, values, count: values.count)
            for head in 0..<heads {
                for bucket in 0..<buckets { sums[bucket * heads + head].add(Rounded(values[head * buckets + bucket])) }
            }
        }
        bench.run.sums.finish(into: bench.gradients, bench.run.configuration, bench.parameters)
        var expected = Grid(buckets, heads)
        expected.values = sums.map(\.result)
        expectRounded(Grid(bench.gradients.values[index], buckets, heads), expected, "the table's gradient")
        #expect(bench.gradients.touched[index])
    }
}
