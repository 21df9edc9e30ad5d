// SPDX-License-Identifier: Apache-2.0

import TensorKernels
import Testing

@testable import SwitchModel

/// Group beam search as in transformers 4.55.
@Suite("Groups of beams")
struct GroupBeamTests {
    private func check(_ search: GenerationRuleFixtures.Case) throws {
        var session = try search.session
        let results = search.run(&session)
        let expected = try #require(search.results)
        try #require(results.count == expected.count, "\(search)")
        for (result, expected) in zip(results, expected) {
            #expect(result.tokenIDs == expected.ids, "\(search)")
            #expect(abs(result.score - expected.score) <= 1e-5 * max(1, abs(expected.score)), "\(search)")
            let isEnd = try search.ends.contains(#require(expected.ids.last))
            #expect(result.finishReason == (isEnd ? .endOfSequence : .length), "\(search)")
            #expect(result.logprobs.count == expected.ids.count && result.rows.count == expected.ids.count)
        }
    }

    @Test("The same sequences and scores: plain, beside each other parameter, and in combinations")
    func searches() throws {
        let searches = try GenerationRuleFixtures.groupBeams.get()
        #expect(searches.count == 219)
        for search in searches { try self.check(search) }
        // The cases have what makes a difference: groups that end before others, ends of every number, other padding.
        #expect(Set(searches.map(\.ends.count)) == [0, 1, 2, 3])
        #expect(Set(searches.map(\.pad)) == [0, 3, nil])
        #expect(Set(searches.compactMap(\.settings.numBeamGroups)) == [2, 3, 4])
    }

    @Test("Without the diversity the answers are others, so the penalty is taken")
    func diversity() throws {
        let searches = try GenerationRuleFixtures.groupBeams.get()
        var changed = 0
        for search in searches.prefix(60) {
            var parameters = search.settings.parameters
            parameters.diversityPenalty = 1e-6
            var session = try search.session(parameters)
            if search.run(&session).map(\.tokenIDs) != search.results?.map(\.ids) { changed += 1 }
        }
        #expect(changed > 30)
    }

    @Test("Rows continue the rows that they name, and belong to groups that go on")
    func rows() throws {
        for search in try GenerationRuleFixtures.groupBeams.get().suffix(100) where search.prefix.isEmpty {
            var session = try search.session
            let advances = search.scores.run(&session)
            #expect(advances.allSatisfy { $0.unusableRows.isEmpty && $0.emitted.isEmpty })
            let most = search.settings.parameters.beamCount
            #expect(advances.allSatisfy { $0.parents.count <= most })
            #expect(advances.last?.parents.isEmpty == true)
            for result in session.results {
                // The path of a sequence leads through rows that exist.
                for (step, row) in result.rows.enumerated() {
                    #expect(row < (step == 0 ? 1 : advances[step - 1].parents.count))
                }
                #expect(result.rows.first == 0)
            }
        }
    }

    @Test("A sequence that is ended from outside leaves its group, and the others go on")
    func finish() throws {
        var parameters = GenerationParameters()
        parameters.maxNewTokens = 6
        parameters.beamCount = 4
        parameters.beamGroups = 2
        parameters.diversityPenalty = 0.5
        parameters.returnedSequences = 4
        let vocabulary = GenerationVocabulary(size: 24, startTokenID: 0, endTokenIDs: [])
        var session = try GenerationSession(parameters: parameters, vocabulary: vocabulary)
        let table = ScoreTable(seed: 77, vocabulary: 24)
        _ = session.advance(logits: table.logits(step: 0, tokens: session.nextTokens), firstRow: 0)
        #expect(session.rowCount == 4)
        let before = session.nextTokens
        session.finish(row: 1)
        #expect(session.nextTokens == [before[0], before[2], before[3]])
        #expect(session.parents == [0, 0, 0])
        session.finish(row: 0)
        #expect(session.nextTokens == [before[2], before[3]])
        var step = 1
        while !session.isFinished {
            _ = session.advance(logits: table.logits(step: step, tokens: session.nextTokens), firstRow: 0)
            step += 1
            try #require(step <= 6)
        }
        #expect(session.results.count == 4)
        #expect(session.results.count { $0.finishReason == .stop && $0.tokenIDs.count == 1 } == 2)
        #expect(session.results.count { $0.finishReason == .length && $0.tokenIDs.count == 6 } == 2)
    }

    @Test("Scores that are not numbers end the search with what there is")
    func notNumbers() throws {
        var parameters = GenerationParameters()
        parameters.beamCount = 4
        parameters.beamGroups = 2
        parameters.diversityPenalty = 0.5
        let vocabulary = GenerationVocabulary(size: 24, startTokenID: 0, endTokenID: 1)
        var session = try GenerationSession(parameters: parameters, vocabulary: vocabulary)
        let table = ScoreTable(seed: 78, vocabulary: 24)
        _ = session.advance(logits: table.logits(step: 0, tokens: session.nextTokens), firstRow: 0)
        let logits = FloatMatrix(rows: session.rowCount, columns: 24)
        for row in 0..<logits.rows { logits.row(row).update(repeating: .nan) }
        let advance = session.advance(logits: logits, firstRow: 0)
        #expect(advance.unusableRows == [0, 1, 2, 3])
        #expect(session.isFinished && session.results.count == 1)
    }
}
