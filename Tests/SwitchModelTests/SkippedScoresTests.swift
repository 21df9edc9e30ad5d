// SPDX-License-Identifier: Apache-2.0

import SwitchModel
import SwitchyardTypes
import TensorKernels
import Testing
import Tokenization

@Suite("Greedy search without scores")
struct SkippedScoresTests {
    @Test("chooses the same tokens", arguments: [WeightStorage.checkpoint, .float32, .int8])
    func sameTokens(storage: WeightStorage) throws {
        let miniature = try Miniature(storage: storage)
        let generator = PlainGenerator(model: miniature.model, experts: miniature.experts)
        var record = RoutingRecord()
        for (index, prompt) in try Miniature.prompts().enumerated() {
            var parameters = GenerationParameters()
            parameters.maxNewTokens = 24
            // Every other one must not end early, so that the end token is left out too.
            parameters.minNewTokens = index % 2 == 0 ? 0 : 24
            let input = miniature.tokenizer.encode(prompt.prompt)
            let full = try generator.generate(input, parameters: parameters, record: &record)
            parameters.skipsScores = true
            let skipped = try generator.generate(input, parameters: parameters, record: &record)
            #expect(skipped.map(\.tokenIDs) == full.map(\.tokenIDs))
            #expect(skipped.map(\.score) == [0])
            #expect(full.allSatisfy { $0.score < 0 })
        }
    }

    @Test("asks for only the greatest logits where nothing else is needed")
    func onlyWhereItSuffices() throws {
        let miniature = try Miniature()
        func needsOnlyGreatest(_ change: (inout GenerationParameters) -> Void) throws -> Bool {
            var parameters = GenerationParameters()
            parameters.skipsScores = true
            change(&parameters)
            return try GenerationSession(parameters: parameters, configuration: miniature.model.configuration)
                .needsOnlyGreatest
        }
        #expect(try needsOnlyGreatest { _ in })
        #expect(try needsOnlyGreatest { $0.minNewTokens = 3 })
        #expect(try !needsOnlyGreatest { $0.skipsScores = false })
        #expect(try !needsOnlyGreatest { $0.sampling = true })
        #expect(try !needsOnlyGreatest { $0.repetitionPenalty = 1.2 })
        #expect(try !needsOnlyGreatest { $0.beamCount = 2 })
        #expect(try !needsOnlyGreatest { $0.noRepeatNgramSize = 2 })
        #expect(try !needsOnlyGreatest { $0.badWords = [[3]] })
        #expect(try !needsOnlyGreatest { $0.suppressedTokens = [3] })
        #expect(try !needsOnlyGreatest { $0.beginSuppressedTokens = [3] })
        #expect(try !needsOnlyGreatest { $0.forcedBeginToken = 3 })
        #expect(try !needsOnlyGreatest { $0.forcedEndTokens = [1] })
        #expect(try !needsOnlyGreatest { $0.sequenceBias = [SequenceBias(tokens: [3], bias: 1)] })
        #expect(try !needsOnlyGreatest { $0.lengthDecay = LengthDecay(startIndex: 2, factor: 1.1) })
    }
}
