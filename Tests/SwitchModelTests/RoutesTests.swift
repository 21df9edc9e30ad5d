// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import LossyExperts
import SwitchModel
import SwitchyardTypes
import TensorKernels
import Testing
import Tokenization

/// Recorded routes, replayed: the same bits, whatever was dropped when they were recorded.
@Suite("Routes")
struct RoutesTests {
    /// A greedy generation, one token per call from the cache, and the way of its tokens.
    private struct Recording {
        var fed: [Int32]
        var logits: [Float]
        var encoder: StackRoutes
        var decoder: StackRoutes
        var dropped = 0
    }

    private static func layers(_ configuration: ModelConfiguration, _ stack: Stack) -> [SparseLayer] {
        configuration.sparseLayers.filter { $0.stack == stack }
    }

    private func record(
        _ model: SwitchTransformer,
        _ experts: any ExpertExecutor,
        input: [Int32],
        steps: Int
    ) throws -> Recording {
        let options = StepOptions(collectRouting: true)
        let configuration = model.configuration
        var record = RoutingRecord()
        let encoded = try model.encode([input], experts: experts, options: options, record: &record)
        var recording = Recording(
            fed: [],
            logits: [],
            encoder: StackRoutes(layers: Self.layers(configuration, .encoder)),
            decoder: StackRoutes(layers: Self.layers(configuration, .decoder)),
            dropped: record.drops.values.reduce(0, +)
        )
        recording.encoder.append(record, input: 0)
        let cache = DecoderCache(try #require(encoded.first))
        var next = Int32(configuration.decoderStartTokenID)
        for _ in 0..<steps {
            var record = RoutingRecord()
            let input = DecoderInput(cache: cache, tokens: [next])
            let logits = try model.decode([input], experts: experts, options: options, record: &record)
            recording.decoder.append(record, input: 0)
            recording.dropped += record.drops.values.reduce(0, +)
            recording.fed.append(next)
            recording.logits += logits.values
            next = try #require(logits.greatest(inRow: 0).map(Int32.init))
        }
        return recording
    }

    @Test("with rows lost at random give the same bits in one pass over experts that lose none")
    func lossy() throws {
        let miniature = try Miniature()
        for (index, prompt) in try Miniature.prompts().prefix(6).enumerated() {
            let lossy = DroppingExperts(
                miniature.experts,
                loss: .rows(fraction: 0.2),
                expertCount: miniature.model.configuration.expertCount,
                seed: UInt64(index)
            )
            let input = miniature.tokenizer.encode(prompt.prompt)
            let recorded = try self.record(miniature.model, lossy, input: input, steps: 12)
            #expect(recorded.dropped > 0)
            #expect(recorded.decoder.tokenCount == 12)

            let options = StepOptions(collectRouting: true, logits: .all)
            var record = RoutingRecord()
            // A neighbour without routes is computed in the same call, as if it were alone.
            let encoded = try miniature.model.encode(
                [input, input],
                routes: [recorded.encoder, nil],
                experts: miniature.experts,
                options: options,
                record: &record
            )
            #expect(record.droppedCount == 0)
            #expect(record.givenDrops.values.reduce(0, +) == recorded.encoder.reasons.count { $0 != nil })
            var other = RoutingRecord()
            let alone = try miniature.model.encode([input], experts: miniature.experts, record: &other)
            #expect(encoded[1].hidden.values == alone[0].hidden.values)
            var again = StackRoutes(layers: recorded.encoder.layers)
            again.append(record, input: 0)
            #expect(again == recorded.encoder)

            var decoded = RoutingRecord()
            let rows = [
                DecoderInput(cache: DecoderCache(alone[0]), tokens: [0, 5]),
                DecoderInput(cache: DecoderCache(encoded[0]), tokens: recorded.fed, routes: recorded.decoder),
            ]
            let logits = try miniature.model.decode(
                rows,
                experts: miniature.experts,
                options: options,
                record: &decoded
            )
            let own = logits.values.suffix(recorded.logits.count)
            #expect(own.elementsEqual(recorded.logits) { $0.bitPattern == $1.bitPattern })
            again = StackRoutes(layers: recorded.decoder.layers)
            again.append(decoded, input: 1)
            #expect(again == recorded.decoder)
        }
    }

    @Test("of cached steps, none of which exceeds a capacity, apply none in one pass either")
    func capacity() throws {
        let fixture = try ParityFixture("capacity")
        let prompt = try #require(fixture.goldens.prompts.max { $0.ids.count < $1.ids.count })
        let recorded = try self.record(fixture.model, fixture.experts, input: prompt.ids, steps: 40)
        #expect(recorded.encoder.reasons.contains(.capacity))
        #expect(recorded.decoder.reasons.allSatisfy { $0 == nil })
        let options = StepOptions(logits: .all)
        func pass(_ routes: StackRoutes?) throws -> ([Float], RoutingRecord) {
            var record = RoutingRecord()
            let encoded = try fixture.model.encode(
                [prompt.ids],
                routes: [routes == nil ? nil : recorded.encoder],
                experts: fixture.experts,
                record: &record
            )
            record = RoutingRecord()
            let row = DecoderInput(cache: DecoderCache(encoded[0]), tokens: recorded.fed, routes: routes)
            let logits = try fixture.model.decode([row], experts: fixture.experts, options: options, record: &record)
            return (logits.values, record)
        }
        let (own, dropped) = try pass(nil)
        #expect(dropped.dropped(reason: .capacity) > 0, "without routes the pass must be another one")
        #expect(own != recorded.logits)
        let (replayed, record) = try pass(recorded.decoder)
        #expect(record.droppedCount == 0 && record.givenDrops.isEmpty)
        #expect(replayed.elementsEqual(recorded.logits) { $0.bitPattern == $1.bitPattern })
    }

    @Test("to another expert compute that expert with its own probability")
    func otherExpert() throws {
        let fixture = try ParityFixture("step4")
        let input = fixture.goldens.prompts[12].ids
        let recorded = try self.record(fixture.model, fixture.experts, input: input, steps: 1)
        let count = fixture.configuration.expertCount
        let moved = try #require(
            StackRoutes(
                layers: recorded.encoder.layers,
                tokenCount: input.count,
                experts: recorded.encoder.experts.map { ($0 + 1) % UInt16(count) }
            )
        )
        var record = RoutingRecord()
        let options = StepOptions(collectRouting: true)
        let encoded = try fixture.model.encode(
            [input],
            routes: [moved],
            experts: fixture.experts,
            options: options,
            record: &record
        )
        let first = try #require(record.layers.first)
        #expect(first.choices.map { UInt16($0) } == (0..<input.count).map { moved.experts[$0 * moved.layers.count] })
        for token in 0..<input.count {
            let best = recorded.encoder.probabilities[token * moved.layers.count]
            #expect(first.probabilities[token] < best && first.probabilities[token] > 0)
        }
        var other = RoutingRecord()
        let plain = try fixture.model.encode([input], experts: fixture.experts, record: &other)
        #expect(encoded[0].hidden.values != plain[0].hidden.values)
    }

    @Test("of other layers, of other lengths and to unknown experts are refused in words")
    func refused() throws {
        let fixture = try ParityFixture("step4")
        let layers = Self.layers(fixture.configuration, .encoder)
        func routes(_ layers: [SparseLayer], _ tokens: Int, _ expert: UInt16 = 0) -> StackRoutes? {
            let experts = [UInt16](repeating: expert, count: tokens * layers.count)
            return StackRoutes(layers: layers, tokenCount: tokens, experts: experts)
        }
        #expect(StackRoutes(layers: layers, tokenCount: 2, experts: [0]) == nil)
        #expect(StackRoutes(layers: layers, tokenCount: -1, experts: []) == nil)
        let cases: [(StackRoutes?, String)] = [
            (routes(Self.layers(fixture.configuration, .decoder), 3), "names the sparse layers"),
            (routes(layers, 4), "has 4 tokens; there are 3"),
            (routes(layers, 3, 3), "to expert 3 at encoder \(layers[0].block); the experts end at 2"),
        ]
        for (routes, words) in cases {
            let error = #expect(throws: ModelError.self) {
                var record = RoutingRecord()
                let experts = fixture.experts
                _ = try fixture.model.encode([[5, 6, 1]], routes: [routes], experts: experts, record: &record)
            }
            #expect(error?.message.contains(words) == true, "\(error?.message ?? "none")")
        }
    }
}
