// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import SwitchyardTypes
import TensorKernels
import Testing

@testable import SwitchModel

/// The forward pass of labml's Switch Transformer against labml_nn's own.
@Suite("labml's forward pass")
struct LabmlForwardTests {
    /// Relative distance of logits and probabilities: float32 sums in another order.
    static let tolerance = 2e-5

    private static var everything: StepOptions {
        var options = StepOptions(collectRouting: true, logits: .all)
        options.collectRouterStatistics = true
        return options
    }

    /// All tokens of some sequences in one call, from empty caches.
    private func decode(
        _ sequences: [[Int32]],
        _ loaded: LoadedModel,
        routes: [StackRoutes?]? = nil,
        options: StepOptions = everything
    ) throws -> (logits: FloatMatrix, record: RoutingRecord) {
        var record = RoutingRecord()
        let rows = sequences.enumerated()
            .map { DecoderInput(cache: DecoderCache(loaded.model), tokens: $1, routes: routes?[$0]) }
        let logits = try loaded.model.decode(rows, experts: loaded.experts, options: options, record: &record)
        return (logits, record)
    }

    /// Compares logits, the probabilities of choices, their sums by expert, and how many tokens chose each expert.
    private func check(_ logits: FloatMatrix, _ record: RoutingRecord, _ fixture: LabmlFixture, _ prefix: String) throws
    {
        #expect(relativeDistance(logits.elements, try fixture.golden("\(prefix).logits")) <= Self.tolerance)
        let best = record.layers.flatMap(\.probabilities)
        #expect(relativeDistance(best, try fixture.golden("\(prefix).best")) <= Self.tolerance)
        let counts = record.layers.flatMap { layer in layer.expertCounts.map { Float($0) } }
        #expect(counts == (try fixture.golden("\(prefix).counts")))
        let layers = record.layers.map(\.layer)
        let sums = layers.flatMap { layer in
            let parts = record.statistics.values.flatMap { $0 }.filter { $0.layer == layer }
            return (parts.first?.probabilities.indices ?? 0..<0)
                .map { expert in Float(parts.reduce(0) { $0 + $1.probabilities[expert] }) }
        }
        #expect(relativeDistance(sums, try fixture.golden("\(prefix).sums")) <= Self.tolerance)
    }

    @Test("logits, probabilities and counts are labml's", arguments: LabmlFixture.Size.allCases, [true, false])
    func matches(size: LabmlFixture.Size, scales: Bool) throws {
        let fixture = try LabmlFixture(size)
        let loaded = try fixture.load(["is_scale_prob": "\(scales)"])
        let (logits, record) = try self.decode(fixture.goldens.sequences, loaded)
        try self.check(logits, record, fixture, scales ? "batch" : "unscaled")
    }

    @Test("the same tokens dropped give labml's outputs", arguments: LabmlFixture.Size.allCases)
    func drops(size: LabmlFixture.Size) throws {
        let fixture = try LabmlFixture(size)
        #expect(fixture.goldens.drops.count == 8)
        for drops in fixture.goldens.drops {
            let loaded = try fixture.load(["is_scale_prob": "\(drops.scales)"])
            var options = Self.everything
            options.capacityPolicy = drops.drawn ? .unlimited : .floor(drops.capacityFactor, .tokens)
            // What labml drew is given; what it took in the order of the tokens must come out.
            let routes = drops.drawn ? try self.routes(drops, loaded) : nil
            let (logits, record) = try self.decode(drops.sequences, loaded, routes: routes, options: options)
            let dropped = record.layers.map { layer in layer.dropped.indices.filter { layer.dropped[$0] == .capacity } }
            #expect(dropped == drops.dropped, "\(drops.prefix)")
            try self.check(logits, record, fixture, drops.prefix)
        }
    }

    /// Routes that give the drops of a golden and leave the rest to the routers.
    private func routes(_ drops: LabmlFixture.Goldens.Drops, _ loaded: LoadedModel) throws -> [StackRoutes?] {
        let layers = loaded.checkpoint.configuration.sparseLayers
        var first = 0
        return try drops.sequences.map { sequence in
            defer { first += sequence.count }
            let reasons: [DropReason?] = sequence.indices.flatMap { token in
                layers.indices.map { drops.dropped[$0].contains(first + token) ? .capacity : nil }
            }
            var routes = try #require(
                StackRoutes(
                    layers: layers,
                    tokenCount: sequence.count,
                    experts: [UInt16](repeating: 0, count: reasons.count),
                    reasons: reasons
                )
            )
            routes.givesDropsOnly = true
            return routes
        }
    }

    @Test("a draw keeps as many tokens as there are places, the same for the same seed")
    func drawn() throws {
        let fixture = try LabmlFixture(.tiny)
        let loaded = try fixture.load()
        func run(_ order: DropOrder) throws -> (bits: [UInt32], dropped: [[Bool]], counts: [[Int]]) {
            var options = Self.everything
            options.capacityPolicy = .floor(0.8, order)
            let (logits, record) = try self.decode(fixture.goldens.sequences, loaded, options: options)
            let dropped = record.layers.map { $0.dropped.map { $0 == .capacity } }
            let counts = record.layers.map { layer in
                (0..<layer.expertCount)
                    .map { expert in
                        layer.choices.indices.count { Int(layer.choices[$0]) == expert && layer.dropped[$0] == nil }
                    }
            }
            return (logits.elementBits, dropped, counts)
        }
        let tokens = fixture.goldens.sequences.reduce(0) { $0 + $1.count }
        let capacity = Int(0.8 * Double(tokens) / 5)
        let (one, again, other, ordered) =
            (try run(.drawn(seed: 1)), try run(.drawn(seed: 1)), try run(.drawn(seed: 2)), try run(.tokens))
        #expect(one.bits == again.bits && one.dropped == again.dropped)
        #expect(one.dropped != other.dropped && one.dropped != ordered.dropped)
        for counts in one.counts + ordered.counts { #expect(counts.allSatisfy { $0 <= capacity }) }
        // The first layer's routers see the same tokens, so that as many are dropped in either order.
        #expect(one.dropped[0].count { $0 } == ordered.dropped[0].count { $0 })
        #expect(one.dropped[0].contains(true))
    }

    @Test("a prompt's bits are the same prefilled, step by step, alone and among others", arguments: [1, 3])
    func sameBits(threads: Int) throws {
        let fixture = try LabmlFixture(.tiny)
        let loaded = try fixture.load(threads: threads)
        let sequences = [Array(fixture.goldens.sequences[0].prefix(17)), [3], [], Array(fixture.goldens.sequences[1])]
        var record = RoutingRecord()
        let run = try PrefillRun(loaded.model, inputs: sequences, experts: loaded.experts)
        while !run.isFinished { try run.advance(record: &record) }
        for (sequence, prompt) in zip(sequences, run.result()) {
            #expect(prompt.cache.length == sequence.count && prompt.hidden.rows == sequence.count)
            guard !sequence.isEmpty else { continue }
            let whole = try self.decode([sequence], loaded).logits.elementBits
            let prefilled = loaded.model.logits(ofFinal: prompt.hidden, rows: 0..<sequence.count)
            #expect(prefilled.elementBits == whole)
            let cache = DecoderCache(loaded.model)
            var steps: [UInt32] = []
            for token in sequence {
                let input = DecoderInput(cache: cache, tokens: [token])
                steps += try loaded.model.decode([input], experts: loaded.experts, record: &record).elementBits
            }
            #expect(steps == whole)
        }
    }

    @Test(
        "micro-batches and kept weight types change no choice of kernels' order",
        arguments: [WeightStorage.bfloat16, .int8]
    )
    func storages(storage: WeightStorage) throws {
        let fixture = try LabmlFixture(.original)
        let checkpoint = try Checkpoint.open(fixture.model.directory)
        let pool = WorkPool(threads: 2)
        let loaded = LoadedModel(
            checkpoint: checkpoint,
            model: try SwitchTransformer(checkpoint: checkpoint, pool: pool, storage: storage),
            experts: try LocalExperts(checkpoint: checkpoint, pool: pool, storage: storage)
        )
        var options = StepOptions(logits: .all)
        let whole = try self.decode(fixture.goldens.sequences, loaded, options: options).logits
        options.microBatches = 2
        let halves = try self.decode(fixture.goldens.sequences, loaded, options: options).logits
        #expect(whole.elementBits == halves.elementBits)
        // Rounded weights are near the golden, and not it.
        let distance = relativeDistance(whole.elements, try fixture.golden("batch.logits"))
        #expect(distance > 1e-4 && distance < 0.3)
    }

    @Test("an encoder is asked for in vain")
    func noEncoder() throws {
        let loaded = try LabmlFixture(.tiny).load()
        var record = RoutingRecord()
        let error = #expect(throws: ModelError.self) {
            _ = try loaded.model.encode([[1, 2]], experts: loaded.experts, record: &record)
        }
        #expect(error?.message.contains("a decoder alone") == true)
        #expect(throws: ModelError.self) {
            _ = try PrefillRun(loaded.model, inputs: [[99]], experts: loaded.experts)
        }
    }
}
