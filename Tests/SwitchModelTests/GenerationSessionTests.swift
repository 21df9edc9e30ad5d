// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import SwitchModel
import TensorKernels
import Testing

@Suite
struct GenerationSessionTests {
    private let vocabulary = GenerationVocabulary(size: 24, startTokenID: 0, endTokenID: 1)

    private func session(
        size: Int = 24,
        _ change: (inout GenerationParameters) -> Void
    ) throws -> GenerationSession {
        var parameters = GenerationParameters()
        change(&parameters)
        let vocabulary = GenerationVocabulary(size: size, startTokenID: 0, endTokenID: 1)
        return try GenerationSession(parameters: parameters, vocabulary: vocabulary)
    }

    @Test
    func greedySearchEmitsEachTokenAsItIsChosen() throws {
        var session = try self.session { $0.maxNewTokens = 5 }
        #expect(session.nextTokens == [0])
        #expect(session.parents.isEmpty)
        let advances = ScoreTable(seed: 3, vocabulary: 24, endBias: -9).run(&session)
        let tokens = advances.flatMap(\.emitted)
        let result = try #require(session.results.first)
        #expect(tokens.map(\.id) == result.tokenIDs)
        #expect(tokens.map(\.logprob) == result.logprobs)
        #expect(tokens.map(\.row) == [0, 0, 0, 0, nil])
        #expect(advances.map(\.parents) == [[0], [0], [0], [0], []])
        #expect(result.finishReason == .length)
        #expect(session.rowCount == 0)
        #expect(session.advance(logits: FloatMatrix(rows: 1, columns: 24), firstRow: 0) == .init())
    }

    @Test
    func tiesGoToTheLowestID() throws {
        var session = try self.session { $0.maxNewTokens = 1 }
        var row = [Float](repeating: 0.5, count: 24)
        row[0] = 0
        row[1] = 0
        let advance = session.advance(logits: FloatMatrix([row]), firstRow: 0)
        #expect(advance.emitted.map(\.id) == [2])
    }

    @Test
    func theMostProbableTokensAreReported() throws {
        var session = try self.session {
            $0.maxNewTokens = 1
            $0.topLogprobs = 3
            $0.repetitionPenalty = 3
        }
        var row = [Float](repeating: -100, count: 24)
        (row[0], row[7], row[4], row[9]) = (3, 2, 1, 1)
        let advance = session.advance(logits: FloatMatrix([row]), firstRow: 0)
        let token = try #require(advance.emitted.first)
        // The start token, 0, is penalized in the choice, but the report is the model's own view.
        #expect(token.id == 7)
        #expect(token.topLogprobs.map(\.id) == [0, 7, 4])
        #expect(token.topLogprobs[1].logprob == token.logprob)
        #expect(abs(token.topLogprobs[0].logprob - -0.493_812) < 1e-5)
        #expect(session.results.first?.topLogprobs == [token.topLogprobs])
    }

    @Test
    func drawsShareTheFirstRowAndPart() throws {
        var session = try self.session {
            $0.sampling = true
            $0.returnedSequences = 4
            $0.maxNewTokens = 6
            $0.seed = 11
        }
        #expect(session.rowCount == 1)
        let table = ScoreTable(seed: 9, vocabulary: 24, endBias: 2)
        let first = session.advance(logits: table.logits(step: 0, tokens: [0]), firstRow: 0)
        #expect(first.emitted.map(\.sequence) == [0, 1, 2, 3])
        #expect(first.parents.allSatisfy { $0 == 0 })
        #expect(session.nextTokens == first.emitted.filter { $0.row != nil }.map(\.id))
        var step = 1
        while !session.isFinished {
            let tokens = session.nextTokens
            let advance = session.advance(logits: table.logits(step: step, tokens: tokens), firstRow: 0)
            for token in advance.emitted {
                guard let row = token.row else { continue }
                #expect(session.nextTokens[row] == token.id)
            }
            #expect(advance.parents == advance.parents.sorted())
            step += 1
        }
        #expect(session.results.count == 4)
        #expect(Set(session.results.map(\.tokenIDs)).count > 1)
    }

    @Test
    func aSequenceCanBeEndedFromOutside() throws {
        var session = try self.session {
            $0.sampling = true
            $0.returnedSequences = 3
            $0.minNewTokens = 3
            $0.maxNewTokens = 3
        }
        let table = ScoreTable(seed: 4, vocabulary: 24)
        let first = session.advance(logits: table.logits(step: 0, tokens: [0]), firstRow: 0)
        #expect(session.rowCount == 3)
        session.finish(row: 1)
        #expect(session.nextTokens == [first.emitted[0].id, first.emitted[2].id])
        #expect(session.parents == [0, 0])
        #expect(session.results.map(\.finishReason) == [.stop])
        let second = session.advance(logits: table.logits(step: 1, tokens: session.nextTokens), firstRow: 0)
        #expect(second.emitted.map(\.sequence) == [0, 2])
        session.finish(row: 1)
        session.finish(row: 0)
        #expect(session.isFinished)
        #expect(session.results.map(\.tokenIDs.count) == [2, 1, 2])
        #expect(session.results.map(\.tokenIDs[0]) == first.emitted.map(\.id))
    }

    @Test
    func endedBeamsCompeteWithFinishedOnes() throws {
        var session = try self.session {
            $0.beamCount = 2
            $0.returnedSequences = 2
            $0.maxNewTokens = 4
        }
        var row = [Float](repeating: -50, count: 24)
        (row[5], row[6]) = (2, 1)
        _ = session.advance(logits: FloatMatrix([row]), firstRow: 0)
        #expect(session.nextTokens == [5, 6])
        session.finish(row: 0)
        #expect(session.nextTokens == [6])
        #expect(session.results.isEmpty)
        session.finish(row: 0)
        #expect(session.isFinished)
        #expect(session.results.map(\.tokenIDs) == [[5], [6]])
        #expect(session.results.map(\.finishReason) == [.stop, .stop])
        #expect(abs((session.results.first?.score ?? 0) - -0.313_262) < 1e-5)
    }

    @Test(arguments: [1, 3], [Float.nan, .infinity, -.infinity])
    func scoresThatAreNoNumbersDoNotCrash(beams: Int, value: Float) throws {
        for sampling in [false, true] where beams == 1 || !sampling {
            var session = try self.session {
                $0.beamCount = beams
                $0.sampling = sampling
                $0.maxNewTokens = 3
                $0.topLogprobs = beams == 1 ? 2 : 0
                $0.repetitionPenalty = 1.5
            }
            var unusable = 0
            while !session.isFinished {
                let logits = FloatMatrix(Array(repeating: Array(repeating: value, count: 24), count: session.rowCount))
                unusable += session.advance(logits: logits, firstRow: 0).unusableRows.count
            }
            #expect(!session.results.isEmpty)
            #expect((unusable > 0) == !(value == .infinity))
            #expect(session.results.allSatisfy { $0.tokenIDs.count <= 3 })
        }
    }

    @Test(arguments: [1, 4])
    func aScoreThatIsNoNumberIsNeverChosen(beams: Int) throws {
        var session = try self.session {
            $0.beamCount = beams
            $0.returnedSequences = beams
            $0.maxNewTokens = 4
        }
        let table = ScoreTable(seed: 12, vocabulary: 24, endBias: -3)
        var step = 0
        while !session.isFinished {
            let logits = table.logits(step: step, tokens: session.nextTokens)
            for row in 0..<logits.rows {
                for id in stride(from: 0, to: 24, by: 2) { logits.row(row)[id] = .nan }
            }
            _ = session.advance(logits: logits, firstRow: 0)
            step += 1
        }
        for result in session.results {
            #expect(result.tokenIDs.allSatisfy { $0 % 2 == 1 })
            #expect(result.score.isFinite)
        }
    }

    @Test
    func aBeamSearchOfOneInputMatchesExhaustiveSearch() throws {
        // With as many beams as sequences of two tokens can begin with, nothing is pruned.
        let size = 8
        let table = ScoreTable(seed: 77, vocabulary: size, endBias: -100)
        var session = try self.session(size: size) {
            $0.beamCount = 4
            $0.maxNewTokens = 2
            $0.lengthPenalty = 0
            $0.earlyStopping = .never
        }
        _ = table.run(&session)
        func logprobs(_ step: Int, _ last: Int32) -> [Float] {
            let row = table.row(step: step, last: last)
            let total = row.reduce(0.0) { $0 + exp(Double($1)) }
            return row.map { $0 - Float(log(total)) }
        }
        let first = logprobs(0, 0)
        let firsts = first.indices.sorted { first[$0] > first[$1] }.prefix(4)
        let best =
            firsts.flatMap { one in
                logprobs(1, Int32(one)).enumerated()
                    .map { (ids: [Int32(one), Int32($0.offset)], score: first[one] + $0.element) }
            }
            .max { $0.score < $1.score }
        #expect(session.results.first?.tokenIDs == best?.ids)
    }
}
