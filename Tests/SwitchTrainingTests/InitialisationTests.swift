// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import SwitchyardTypes
import TensorKernels
import Testing

@testable import SwitchTraining

@Suite("New weights")
struct InitialisationTests {
    /// A model whose extents all differ, with matrices of 1,500 elements and more.
    private static let configuration = ParameterTests.tiny {
        $0.vocabularySize = 96
        $0.modelWidth = 48
        $0.keyWidth = 8
        $0.headCount = 4
        $0.feedForwardWidth = 80
        $0.routerBias = true
        $0.tiedEmbeddings = false
        $0.expertCount = 4
    }

    private func moments(_ values: UnsafeMutableBufferPointer<Float>) -> (deviation: Double, largest: Double) {
        let squares = values.reduce(0.0) { $0 + Double($1) * Double($1) }
        return ((squares / Double(values.count)).squareRoot(), values.map { abs(Double($0)) }.max() ?? 0)
    }

    /// The deviations of `_init_weights` in transformers 5.23's modeling_switch_transformers.py, with the fixture's
    /// extents, by parts of names.
    private static let transformers: [(String, Double)] = [
        ("layer_norm", 1), ("router.classifier.bias", 0), ("router", 1), ("shared", 1), ("lm_head", 1),
        ("relative_attention_bias", 0.14434), ("Attention.q", 0.051031), ("Attention.k", 0.14434),
        ("Attention.v", 0.14434), ("Attention.o", 0.17678), ("experts.expert_", 0.14434), (".wi.", 0.14434),
        (".wo.", 0.1118),
    ]

    /// `sqrt(0.1 / fan-in)`, and 0.87963 of it where the distribution is truncated.
    private static let paper: [(String, Double)] = [
        ("layer_norm", 1), ("router.classifier.bias", 0), ("router", 0.040149), ("shared", 1), ("lm_head", 1),
        ("relative_attention_bias", 0.14434), ("Attention.o", 0.049172), ("Attention", 0.040149), (".wi.", 0.040149),
        (".wo.", 0.031099),
    ]

    @Test("have the deviations of transformers and of the paper", arguments: [true, false])
    func deviations(isPaper: Bool) throws {
        let layout = try ParameterLayout(Self.configuration)
        let weights = ParameterBuffer(layout: layout)
        let initialisation = isPaper ? Initialisation.paper() : .transformers()
        try initialisation.fill(weights, keyWidth: 8, seed: 5, pool: WorkPool(threads: 2))
        for (index, entry) in layout.entries.enumerated() {
            let table = isPaper ? Self.paper : Self.transformers
            let (_, expected) = try #require(table.first { entry.name.contains($0.0) }, "\(entry.name)")
            let (deviation, largest) = self.moments(weights[index])
            // Five standard deviations of a sample's deviation.
            let tolerance = expected == 0 || entry.kind == .norm ? 0 : 5 / (2 * Double(entry.range.count)).squareRoot()
            #expect(abs(deviation - expected) <= expected * tolerance, "\(entry.name): \(deviation), not \(expected)")
            if isPaper, [.attention, .dense].contains(entry.kind) {
                #expect(largest <= 2.001 * expected / 0.87962 && largest > 1.7 * expected, "\(entry.name)")
            }
        }
    }

    @Test("are a function of seed, name and place alone")
    func isPure() throws {
        let layout = try ParameterLayout(Self.configuration)
        func fill(seed: UInt64, threads: Int) throws -> [UInt32] {
            let weights = ParameterBuffer(layout: layout)
            try Initialisation.paper().fill(weights, keyWidth: 8, seed: seed, pool: WorkPool(threads: threads))
            return weights.all.map(\.bitPattern)
        }
        let first = try fill(seed: 1, threads: 1)
        #expect(try fill(seed: 1, threads: 3) == first)
        #expect(try fill(seed: 2, threads: 1) != first)
        let draws = WeightDraws(seed: 1)
        #expect(
            draws.normal(count: 9, name: "a", deviation: 1)
                == Array(draws.normal(count: 20, name: "a", deviation: 1)[..<9])
        )
        #expect(draws.normal(count: 9, name: "a", deviation: 1) != draws.normal(count: 9, name: "b", deviation: 1))
    }

    @Test("need a scale above 0", arguments: [Initialisation.paper(scale: 0), .transformers(factor: .nan)])
    func refused(initialisation: Initialisation) throws {
        let weights = ParameterBuffer(layout: try ParameterLayout(Self.configuration))
        let error = #expect(throws: TrainingError.self) {
            try initialisation.fill(weights, keyWidth: 8, seed: 1, pool: WorkPool(threads: 1))
        }
        #expect(error?.code == .invalidSettings)
    }
}
