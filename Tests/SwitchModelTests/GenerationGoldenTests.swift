// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import SwitchModel

/// The same tokens as transformers' `generate()` on the same scores.
@Suite
struct GenerationGoldenTests {
    let fixtures: GenerationFixtures

    init() throws {
        self.fixtures = try GenerationFixtures.shared.get()
    }

    private func vocabulary(_ search: GenerationFixtures.Search) -> GenerationVocabulary {
        GenerationVocabulary(
            size: search.vocabulary,
            startTokenID: search.start,
            endTokenID: ScoreTable.endTokenID
        )
    }

    @Test
    func searchesGiveTheSameSequences() throws {
        #expect(self.fixtures.searches.count > 200)
        for search in self.fixtures.searches {
            var session = try GenerationSession(parameters: search.parameters, vocabulary: self.vocabulary(search))
            _ = search.scores.run(&session)
            let results = session.results
            try #require(results.count == search.results.count, "\(search)")
            for (result, expected) in zip(results, search.results) {
                #expect(result.tokenIDs == expected.ids, "\(search)")
                #expect(result.logprobs.count == expected.ids.count)
                for (logprob, expected) in zip(result.logprobs, expected.logprobs) {
                    #expect(abs(logprob - expected) < 3e-5, "\(search)")
                }
                let score = expected.score ?? expected.logprobs.reduce(0, +) / Float(expected.ids.count)
                #expect(abs(result.score - score) <= 3e-5 * max(1, abs(score)), "\(search)")
                let isEnd = expected.ids.last == ScoreTable.endTokenID
                #expect(result.finishReason == (isEnd ? .endOfSequence : .length))
            }
        }
    }

    @Test
    func rowsMayLieAnywhereInTheLogits() throws {
        for search in self.fixtures.searches.suffix(20) {
            var session = try GenerationSession(parameters: search.parameters, vocabulary: self.vocabulary(search))
            _ = search.scores.run(&session, firstRow: 3)
            #expect(session.results.map(\.tokenIDs) == search.results.map(\.ids), "\(search)")
        }
    }

    @Test
    func samplingDrawsFromTheSameTokens() {
        #expect(self.fixtures.filters.count >= 50)
        for fixture in self.fixtures.filters {
            let filter = SamplingFilter(temperature: fixture.temperature, topK: fixture.topK, topP: fixture.topP)
            let row = ScoreTable(seed: fixture.table, vocabulary: fixture.vocabulary).row(step: 0, last: 0)
            let candidates = row.withUnsafeBufferPointer { filter.candidates(ScoreRow(scores: $0)) }
            #expect(candidates.map(\.id) == fixture.ids, "table \(fixture.table)")
            for (candidate, score) in zip(candidates, fixture.scores) {
                #expect(abs(candidate.score - score) < 2e-5, "table \(fixture.table)")
            }
        }
    }
}
