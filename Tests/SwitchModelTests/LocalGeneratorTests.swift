// SPDX-License-Identifier: Apache-2.0

import SwitchModel
import TensorKernels
import Testing
import Tokenization

@Suite("The local generator")
struct LocalGeneratorTests {
    @Test("gives the miniature's answers, one prompt at a time")
    func miniature() throws {
        let miniature = try Miniature()
        let generator = LocalGenerator(model: miniature.model, experts: miniature.experts)
        for prompt in try Miniature.prompts() {
            var streamed: [Int32] = []
            let outcome = try generator.generate(miniature.tokenizer.encode(prompt.prompt)) { token in
                streamed.append(token.id)
                return false
            }
            #expect(outcome.sequences.map(\.tokenIDs) == [prompt.tokenIDs])
            #expect(outcome.steps == prompt.tokenIDs.count)
            #expect(streamed == prompt.tokenIDs)
        }
    }

    @Test("stops where it is told to")
    func stop() throws {
        let miniature = try Miniature()
        let generator = LocalGenerator(model: miniature.model, experts: miniature.experts)
        let prompt = try #require(try Miniature.prompts().first)
        let outcome = try generator.generate(miniature.tokenizer.encode(prompt.prompt)) { $0.id == prompt.tokenIDs[2] }
        #expect(outcome.sequences.map(\.tokenIDs) == [Array(prompt.tokenIDs.prefix(3))])
        #expect(outcome.sequences.first?.finishReason == .stop)
    }

    /// Every beam's score must be what the model gives the sequence when it is forced through it afresh: a cache that
    /// was handed to the wrong row would show.
    @Test("beams keep their own caches")
    func beams() throws {
        let tiny = try TinyModel()
        let generator = LocalGenerator(model: tiny.model, experts: tiny.experts)
        var numbers = NumberSource(seed: 31)
        let input = numbers.tokens(9)
        var parameters = GenerationParameters()
        parameters.beamCount = 5
        parameters.returnedSequences = 5
        parameters.maxNewTokens = 24
        let outcome = try generator.generate(input, parameters: parameters)
        #expect(outcome.sequences.count == 5)
        var record = RoutingRecord()
        let encoded = try tiny.model.encode([input], experts: tiny.experts, record: &record)[0]
        for sequence in outcome.sequences {
            let forced = try tiny.model.decode(
                [DecoderInput(cache: DecoderCache(encoded), tokens: [0] + sequence.tokenIDs.dropLast())],
                experts: tiny.experts, options: StepOptions(logits: .all), record: &record
            )
            for (place, token) in sequence.tokenIDs.enumerated() {
                let row = forced.row(place).map(Double.init)
                let highest = row.max() ?? 0
                let total = row.reduce(0.0) { $0 + exponential($1 - highest) }
                let logprob = row[Int(token)] - highest - logarithm(total)
                #expect(abs(Double(sequence.logprobs[place]) - logprob) < 1e-4)
            }
        }
    }

    @Test("sums up what happened to the request's tokens")
    func record() throws {
        let tiny = try TinyModel(["expert_capacity": "2"])
        let generator = LocalGenerator(model: tiny.model, experts: tiny.experts)
        var numbers = NumberSource(seed: 32)
        let input = numbers.tokens(30)
        var parameters = GenerationParameters()
        parameters.beamCount = 3
        parameters.maxNewTokens = 4
        parameters.minNewTokens = 4
        let outcome = try generator.generate(input, parameters: parameters)
        // One sparse encoder layer; two sparse decoder layers for 1 row, then 3 rows a step.
        #expect(outcome.record.routedPerSequence == [30 + 2 * (1 + 3 * (outcome.steps - 1))])
        #expect(outcome.record.droppedCount == outcome.record.dropped(sequence: 0))
        #expect(outcome.record.droppedCount >= 20, "30 tokens over 5 experts of capacity 2")
    }
}

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

private func exponential(_ x: Double) -> Double { exp(x) }
private func logarithm(_ x: Double) -> Double { log(x) }
