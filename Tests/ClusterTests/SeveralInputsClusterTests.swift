// SPDX-License-Identifier: Apache-2.0

import SwitchyardClient
import SwitchyardProtos
import Testing

/// Encode and Score with several inputs, asked of a cluster of real processes.
@Suite("Several inputs in one call of a cluster", .serialized)
struct SeveralInputsClusterTests {
    @Test("give each the bits that it has alone, and generations their log-probabilities by their routes")
    func answers() async throws {
        let prompts = try Array(TestCluster.prompts().prefix(10))
        try await TestCluster.run(pools: 2) { client, _ in
            let model = try await client.describeModel()
            #expect(model.maxInputs == 64)
            let inputs = prompts.map { EncodeInput(input: .text($0.prompt)) }
            let encoded = try await client.encode(EncodeRequest(inputs: inputs))
            #expect(encoded.results.count == inputs.count)
            for (input, result) in zip(inputs, encoded.results) {
                let alone = try await client.encode(EncodeRequest(input: input.input))
                #expect(result.hiddenStates == alone.hiddenStates && result.tokenIDs == alone.tokenIDs)
                #expect(result.status == nil)
            }

            var generations: [Generation] = []
            var targets: [ScoreInput] = []
            for prompt in prompts {
                let answer = try await client.generate(
                    GenerateRequest(
                        input: .text(prompt.prompt),
                        parameters: GenerationParameters(topLogprobs: 1),
                        returnRoutes: true
                    )
                )
                let generation = try #require(answer.generations.first)
                generations.append(generation)
                targets.append(
                    ScoreInput(
                        input: .text(prompt.prompt),
                        target: .tokenIDs(generation.tokenIDs),
                        encoderRoutes: answer.encoderRoutes,
                        decoderRoutes: generation.decoderRoutes
                    )
                )
            }
            let scored = try await client.score(ScoreRequest(inputs: targets))
            #expect(scored.results.count == targets.count)
            for (generation, result) in zip(generations, scored.results) {
                let expected = generation.logprobs.map(\.logprob.bitPattern)
                #expect(!expected.isEmpty && result.logprobs.map(\.logprob.bitPattern) == expected)
            }

            do {
                let wrong = EncodeInput(input: .tokenIDs([model.vocabularySize]))
                _ = try await client.encode(EncodeRequest(inputs: inputs + [wrong]))
                Issue.record("an id beyond the vocabulary was encoded")
            } catch let error as GatewayError {
                #expect(error.code == .invalidArgument)
                #expect(error.message.hasPrefix("inputs[10]: input_ids.ids[0] is "))
            }
        }
    }
}
