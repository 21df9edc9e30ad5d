// SPDX-License-Identifier: Apache-2.0

import SwitchModel
import SwitchyardTypes
import TensorKernels
import Testing

@testable import Checkpoints

/// Every stage of the model against transformers, on shapes that no shipped model has.
@Suite struct ParityForwardTests {
    /// ||a - b|| / ||b|| of hidden states and logits: float32 sums in another order.
    static let tolerance = 2e-5

    /// The largest |a - b| of a router probability.
    ///
    /// transformers in float32 is up to 4e-5 from itself in float64 on the
    /// worst token of these models, whose attention is sharper than a trained model's.
    static let probabilityTolerance: Float = 5e-5

    @Test(arguments: ParityFixture.models)
    func encoderMatches(name: String) throws {
        let fixture = try ParityFixture(name)
        var comparison = StageComparison(fixture: fixture, stack: .encoder)
        var final: [Float] = []
        for (index, prompt) in fixture.goldens.prompts.enumerated() {
            let (encoded, record) = try fixture.encode([prompt.ids])
            let sequence = try #require(encoded.first)
            #expect(encoded.count == 1)
            final += sequence.hidden.values
            try comparison.add(record, tokens: prompt.ids.count, detailed: fixture.goldens.detailed.contains(index))
        }
        #expect(relativeError(final, to: try fixture.tensors.floats("encoder.final")) <= Self.tolerance)
        try comparison.check()
    }

    @Test(arguments: ParityFixture.models)
    func teacherForcedDecoderMatches(name: String) throws {
        let fixture = try ParityFixture(name)
        var comparison = StageComparison(fixture: fixture, stack: .decoder)
        var logits: [Float] = []
        for (index, prompt) in fixture.goldens.prompts.enumerated() {
            let (encoded, _) = try fixture.encode([prompt.ids])
            let (rows, record) = try fixture.decode(encoded, [prompt.decoder])
            logits += rows.values
            try comparison.add(record, tokens: prompt.decoder.count, detailed: fixture.goldens.detailed.contains(index))
        }
        #expect(relativeError(logits, to: try fixture.tensors.floats("logits")) <= Self.tolerance)
        try comparison.check()
    }

    /// transformers computes a batch right-padded, we compute it ragged; what is real is the same.
    @Test(arguments: ParityFixture.models)
    func batchesMatch(name: String) throws {
        let fixture = try ParityFixture(name, threads: 2)
        for (number, batch) in fixture.goldens.batches.enumerated() {
            let prompts = batch.map { fixture.goldens.prompts[$0] }
            let (encoded, _) = try fixture.encode(prompts.map(\.ids))
            let hidden = encoded.flatMap { $0.hidden.values }
            let goldenHidden = try fixture.tensors.floats("batch.\(number).encoder")
            #expect(relativeError(hidden, to: goldenHidden) <= Self.tolerance)
            let (logits, _) = try fixture.decode(encoded, prompts.map(\.decoder))
            let goldenLogits = try fixture.tensors.floats("batch.\(number).logits")
            #expect(relativeError(logits.values, to: goldenLogits) <= Self.tolerance)
        }
    }

    /// One token per call from the cache, all detailed prompts side by side for as long as each has tokens left.
    @Test(arguments: ParityFixture.models)
    func cachedStepsMatch(name: String) throws {
        let fixture = try ParityFixture(name)
        let golden = try fixture.tensors.floats("greedy.logits")
        let greedy = try #require(fixture.goldens.generations.first { $0.name == "greedy" })
        let prompts = fixture.goldens.detailed.map { fixture.goldens.prompts[$0].ids }
        let fed = try fixture.goldens.detailed.map { index in
            let result = try #require(greedy.results[index].first)
            return [Int32(fixture.configuration.decoderStartTokenID)] + result.ids.dropLast()
        }
        let (encoded, _) = try fixture.encode(prompts)
        let caches = encoded.map { DecoderCache($0) }
        var logits = [[Float]](repeating: [], count: prompts.count)
        for step in 0..<(fed.map(\.count).max() ?? 0) {
            let rows = fed.indices.filter { step < fed[$0].count }
            var record = RoutingRecord()
            let output = try fixture.model.decode(
                rows.map { DecoderInput(cache: caches[$0], tokens: [fed[$0][step]]) },
                experts: fixture.experts,
                options: StepOptions(),
                record: &record
            )
            #expect(output.rows == rows.count)
            #expect(record.droppedCount == 0, "a step of one token cannot exceed a capacity")
            for (row, sequence) in rows.enumerated() {
                logits[sequence] += output.row(row)
            }
        }
        #expect(relativeError(logits.flatMap { $0 }, to: golden) <= Self.tolerance)
    }

    /// Other files with the same weights give the same bits.
    @Test(arguments: ParityFixture.variants)
    func variantsAreBitIdentical(name: String, source: String) throws {
        let variant = try ParityFixture(name, goldens: source)
        let original = try ParityFixture(source)
        var configuration = variant.configuration
        // One of them has a file of its own for generation's settings.
        configuration.generation.file = original.configuration.generation.file
        configuration.assumesStartToken = original.configuration.assumesStartToken
        #expect(configuration == original.configuration)
        for index in variant.goldens.detailed {
            let prompt = variant.goldens.prompts[index]
            let (one, _) = try variant.encode([prompt.ids])
            let (other, _) = try original.encode([prompt.ids])
            #expect(one.map { $0.hidden.values } == other.map { $0.hidden.values })
            let logits = try variant.decode(one, [prompt.decoder]).0.values
            #expect(try logits == original.decode(other, [prompt.decoder]).0.values)
        }
    }
}

/// Gathers what the records of single-sequence calls say of one stack, and compares it with the goldens at the end.
private struct StageComparison {
    let fixture: ParityFixture
    let stack: Stack
    private var blocks: [Int: [Float]] = [:]
    private var layers: [SparseLayer: (choices: [UInt8], weights: [Float], dropped: [UInt8])] = [:]

    init(fixture: ParityFixture, stack: Stack) {
        self.fixture = fixture
        self.stack = stack
    }

    private var blockCount: Int {
        self.stack == .encoder ? self.fixture.configuration.encoderBlocks : self.fixture.configuration.decoderBlocks
    }

    mutating func add(_ record: RoutingRecord, tokens: Int, detailed: Bool) throws {
        let states = try #require(record.hiddenStates[self.stack])
        // The embeddings, then each block's output, of which the last has passed the final norm.
        #expect(states.count == self.blockCount + 1)
        if detailed {
            for (block, state) in states.dropFirst().enumerated() {
                self.blocks[block, default: []] += state.values
            }
        }
        #expect(record.layers.map(\.layer) == self.fixture.configuration.sparseLayers.filter { $0.stack == self.stack })
        for routing in record.layers {
            #expect(routing.choices.count == tokens)
            var layer = self.layers[routing.layer] ?? ([], [], [])
            layer.choices += routing.choices.map { UInt8($0) }
            layer.weights += routing.probabilities
            layer.dropped += routing.dropped.map { $0 == nil ? 0 : 1 }
            #expect(routing.dropped.allSatisfy { $0 == nil || $0 == .capacity })
            self.layers[routing.layer] = layer
        }
        #expect(record.droppedCount == record.layers.reduce(0) { $0 + $1.dropped.count { $0 != nil } })
        #expect(record.routedCount == tokens * record.layers.count)
    }

    func check() throws {
        for block in 0..<self.blockCount {
            // The encoder's final states are compared for every prompt by the caller.
            guard block + 1 < self.blockCount || self.stack == .decoder else { continue }
            let name = block + 1 < self.blockCount ? "\(self.stack).block.\(block)" : "\(self.stack).final"
            let error = relativeError(self.blocks[block] ?? [], to: try self.fixture.tensors.floats(name))
            #expect(error <= ParityForwardTests.tolerance, "\(self.fixture.name) \(name)")
        }
        #expect(!self.layers.isEmpty)
        for (layer, found) in self.layers {
            let prefix = "\(self.stack).router.\(layer.block)"
            let choices = try self.fixture.tensors.bytes("\(prefix).choice")
            #expect(found.choices == choices, "\(self.fixture.name) \(layer)")
            let dropped = try self.fixture.tensors.bytes("\(prefix).dropped")
            #expect(found.dropped == dropped, "\(self.fixture.name) \(layer)")
            let weights = try self.fixture.tensors.floats("\(prefix).weight")
            let difference = largestDifference(found.weights, to: weights)
            #expect(difference <= ParityForwardTests.probabilityTolerance, "\(self.fixture.name) \(layer)")
            let error = relativeError(found.weights, to: weights)
            #expect(error <= ParityForwardTests.tolerance, "\(self.fixture.name) \(layer)")
        }
    }
}
