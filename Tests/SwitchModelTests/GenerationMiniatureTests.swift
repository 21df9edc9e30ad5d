// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import SwitchModel
import Testing
import Tokenization

/// Whole generations with the trained miniature; `make_miniature_fixtures.py` writes what transformers answers.
@Suite
struct GenerationMiniatureTests {
    private struct Fixtures: Decodable {
        struct Case: Decodable {
            struct Result: Decodable {
                var ids: [Int32]
                var score: Float?
            }

            var prompt: String
            var numBeams: Int
            var earlyStopping: String
            var lengthPenalty: Float?
            var repetitionPenalty: Float?
            var minNewTokens: Int?
            var maxNewTokens: Int?
            var numReturnSequences: Int?
            var results: [Result]

            var parameters: GenerationParameters {
                var parameters = GenerationParameters()
                parameters.beamCount = self.numBeams
                parameters.earlyStopping =
                    ["always": .always, "never": .never][self.earlyStopping] ?? .heuristic
                parameters.lengthPenalty = self.lengthPenalty ?? 1
                parameters.repetitionPenalty = self.repetitionPenalty ?? 1
                parameters.minNewTokens = self.minNewTokens ?? 0
                parameters.maxNewTokens = self.maxNewTokens ?? 20
                parameters.returnedSequences = self.numReturnSequences ?? 1
                return parameters
            }
        }

        var cases: [Case]

        static func load() throws -> [Case] {
            let file = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "Fixtures/miniature.json")
            let decoder = JSONDecoder()
            decoder.keyDecodingStrategy = .convertFromSnakeCase
            return try decoder.decode(Self.self, from: Data(contentsOf: file)).cases
        }
    }

    @Test
    func answersAreThoseOfTransformers() throws {
        let miniature = try Miniature()
        let generator = PlainGenerator(model: miniature.model, experts: miniature.experts)
        let cases = try Fixtures.load()
        #expect(cases.count == 15)
        for fixture in cases {
            var record = RoutingRecord()
            let results = try generator.generate(
                miniature.tokenizer.encode(fixture.prompt),
                parameters: fixture.parameters,
                record: &record
            )
            #expect(results.map(\.tokenIDs) == fixture.results.map(\.ids), "\(fixture.prompt)")
            for (result, expected) in zip(results, fixture.results) {
                guard let score = expected.score else { continue }
                #expect(abs(result.score - score) < 1e-3 * max(1, abs(score)), "\(fixture.prompt)")
            }
        }
    }

    @Test
    func theCallerSeesEachTokenAndCanStop() throws {
        let miniature = try Miniature()
        let generator = PlainGenerator(model: miniature.model, experts: miniature.experts)
        let prompt = try #require(try Miniature.prompts().first)
        let input = miniature.tokenizer.encode(prompt.prompt)
        var record = RoutingRecord()
        var seen: [Int32] = []
        let results = try generator.generate(input, parameters: .init(), record: &record) { session, advance in
            seen += advance.emitted.map(\.id)
            if seen.count == 3 { session.finish(row: 0) }
        }
        #expect(seen == Array(prompt.tokenIDs.prefix(3)))
        #expect(results.map(\.tokenIDs) == [seen])
        #expect(results.map(\.finishReason) == [.stop])
    }
}
