// SPDX-License-Identifier: Apache-2.0

import SwitchModel
import SwitchyardTypes
import TensorKernels
import Testing

@Suite("Generation step by step")
struct GenerationStepsTests {
    /// Every beam's score must be what the model gives the sequence when it is forced through it afresh: a cache that
    /// was handed to the wrong row would show.
    @Test("beams keep their own caches")
    func beams() throws {
        let tiny = try TinyModel()
        let generator = PlainGenerator(model: tiny.model, experts: tiny.experts)
        var numbers = NumberSource(seed: 31)
        let input = numbers.tokens(9)
        var parameters = GenerationParameters()
        parameters.beamCount = 5
        parameters.returnedSequences = 5
        parameters.maxNewTokens = 24
        var record = RoutingRecord()
        let sequences = try generator.generate(input, parameters: parameters, record: &record)
        #expect(sequences.count == 5)
        let encoded = try tiny.model.encode([input], experts: tiny.experts, record: &record)[0]
        for sequence in sequences {
            let forced = try tiny.model.decode(
                [DecoderInput(cache: DecoderCache(encoded), tokens: [0] + sequence.tokenIDs.dropLast())],
                experts: tiny.experts,
                options: StepOptions(logits: .all),
                record: &record
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

    @Test("counts what happens to the tokens of all steps, which add up under one request")
    func record() throws {
        let tiny = try TinyModel(["expert_capacity": "2"])
        let generator = PlainGenerator(model: tiny.model, experts: tiny.experts)
        var numbers = NumberSource(seed: 32)
        var parameters = GenerationParameters()
        parameters.beamCount = 3
        parameters.maxNewTokens = 4
        parameters.minNewTokens = 4
        var record = RoutingRecord()
        var steps = 0
        _ = try generator.generate(numbers.tokens(30), parameters: parameters, record: &record) { _, _ in steps += 1 }
        #expect(steps == 4)
        // One sparse encoder layer; two sparse decoder layers for 1 row, then 3 rows per step.
        #expect(record.routedCount == 30 + 2 * (1 + 3 * (steps - 1)))
        #expect(record.droppedCount >= 20, "30 tokens over 5 experts of capacity 2")
        var request = RoutingRecord()
        request.add(record, sequences: 0..<3, as: 7)
        #expect(request.routedPerSequence[7] == record.routedCount)
        #expect(request.dropped(sequence: 7) == record.droppedCount)
        request.add(record, sequences: 1..<2, as: 0)
        #expect(request.routedPerSequence[0] == record.routedPerSequence[1])
        #expect(request.dropped(sequence: 0) == record.dropped(sequence: 1))
    }
}

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

private func exponential(_ x: Double) -> Double { exp(x) }
private func logarithm(_ x: Double) -> Double { log(x) }
