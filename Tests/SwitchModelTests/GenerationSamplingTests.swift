// SPDX-License-Identifier: Apache-2.0

import Foundation
import SwitchyardTypes
import TensorKernels
import Testing

@testable import SwitchModel

@Suite
struct GenerationSamplingTests {
    /// Known answers of Random123's `kat_vectors` for philox4x32 with 10 rounds.
    @Test(arguments: [
        (
            SIMD4<UInt32>(repeating: 0), SIMD2<UInt32>(repeating: 0),
            SIMD4<UInt32>(0x6627_E8D5, 0xE169_C58D, 0xBC57_AC4C, 0x9B00_DBD8)
        ),
        (
            SIMD4<UInt32>(repeating: .max), SIMD2<UInt32>(repeating: .max),
            SIMD4<UInt32>(0x408F_276D, 0x41C8_3B0E, 0xA20B_C7C6, 0x6D54_51FD)
        ),
        (
            SIMD4<UInt32>(0x243F_6A88, 0x85A3_08D3, 0x1319_8A2E, 0x0370_7344), SIMD2<UInt32>(0xA409_3822, 0x299F_31D0),
            SIMD4<UInt32>(0xD16C_FE09, 0x94FD_CCEB, 0x5001_E420, 0x2412_6EA1)
        ),
    ])
    func philoxGivesItsKnownAnswers(counter: SIMD4<UInt32>, key: SIMD2<UInt32>, expected: SIMD4<UInt32>) {
        #expect(Philox.block(counter: counter, key: key) == expected)
    }

    @Test
    func drawsFollowTheFilteredDistribution() throws {
        // Eight tokens of which top-k leaves five and top-p four.
        let logits: [Float] = [1, -3, 2, 0.5, 1.5, -1, 0, 3]
        let filter = SamplingFilter(temperature: 0.8, topK: 5, topP: 0.95)
        let candidates = logits.withUnsafeBufferPointer { filter.candidates(ScoreRow(scores: $0)) }
        #expect(candidates.map(\.id) == [0, 2, 4, 7])

        var parameters = GenerationParameters()
        parameters.sampling = true
        parameters.temperature = filter.temperature
        parameters.topK = filter.topK
        parameters.topP = filter.topP
        parameters.maxNewTokens = 1
        parameters.returnedSequences = 1_000
        let vocabulary = GenerationVocabulary(size: 8, startTokenID: 0, endTokenID: 1)
        var counts = [Int](repeating: 0, count: 8)
        for seed in 0..<10 {
            parameters.seed = UInt64(seed)
            var session = try GenerationSession(parameters: parameters, vocabulary: vocabulary)
            for token in session.advance(logits: FloatMatrix([logits]), firstRow: 0).emitted {
                counts[Int(token.id)] += 1
            }
        }
        let weights = candidates.map { exp(Double($0.score)) }
        let total = weights.reduce(0, +)
        var statistic = 0.0
        for (candidate, weight) in zip(candidates, weights) {
            let expected = 10_000 * weight / total
            statistic += pow(Double(counts[Int(candidate.id)]) - expected, 2) / expected
        }
        #expect(counts.reduce(0, +) == candidates.reduce(0) { $0 + counts[Int($1.id)] })
        // Chi-square with 3 degrees of freedom exceeds this once in a thousand; the seeds are fixed, so it never will.
        #expect(statistic < 16.27)
    }

    @Test
    func aSeedGivesTheSameTokensWhateverElseIsDrawn() throws {
        func generate(seed: UInt64, sequences: Int) throws -> [[Int32]] {
            var parameters = GenerationParameters()
            parameters.sampling = true
            parameters.seed = seed
            parameters.returnedSequences = sequences
            parameters.maxNewTokens = 8
            let vocabulary = GenerationVocabulary(size: 30, startTokenID: 0, endTokenID: 1)
            var session = try GenerationSession(parameters: parameters, vocabulary: vocabulary)
            _ = ScoreTable(seed: 21, vocabulary: 30).run(&session)
            return session.results.map(\.tokenIDs)
        }
        let one = try generate(seed: 5, sequences: 1)
        let four = try generate(seed: 5, sequences: 4)
        #expect(one[0] == four[0])
        #expect(try generate(seed: 6, sequences: 1) != one)
        // Written down, so that another machine or a later version is held to them.
        #expect(one[0] == [2, 3, 20, 18, 8, 9, 16, 20])
    }

    @Test
    func nothingOfWeightZeroIsDrawn() {
        let candidates = [
            SamplingFilter.Candidate(id: 3, score: -500), SamplingFilter.Candidate(id: 4, score: 0),
            SamplingFilter.Candidate(id: 5, score: -500),
        ]
        #expect(SamplingFilter.draw(candidates, uniform: 0) == 4)
        #expect(SamplingFilter.draw(candidates, uniform: 1 - 0x1p-53) == 4)
        #expect(SamplingFilter.draw([], uniform: 0.5) == nil)
    }

    @Test(arguments: [1, 7, 8, 9, 63, 515, 1_031])
    func rowsOfEveryLengthAreSummedAndSearched(count: Int) {
        let row = ScoreTable(seed: UInt64(count), vocabulary: count).row(step: 0, last: 0)
        row.withUnsafeBufferPointer { buffer in
            let scores = ScoreRow(scores: buffer)
            let greatest = row.max() ?? 0
            #expect(scores.best()?.score == greatest)
            #expect(scores.best()?.id == row.firstIndex(of: greatest))
            let expected = log(row.reduce(0.0) { $0 + exp(Double($1)) })
            #expect(abs(Double(scores.logSumOfExponentials(greatest: greatest)) - expected) < 1e-6 * max(1, expected))
            for capacity in [1, 4, count, count + 3] {
                var selection = TopSelection(capacity: capacity)
                scores.offer(to: &selection)
                let expected = row.indices.sorted { (row[$0], $1) > (row[$1], $0) }.prefix(capacity)
                #expect(selection.descending.map(\.index) == Array(expected))
            }
        }
    }

    @Test
    func exponentialsHaveSevenDigits() {
        for step in 0..<870 {
            let x = -Float(step) / 10
            let value = ScoreRow.exponential(SIMD8(repeating: x))[3]
            let expected = exp(Double(x))
            #expect(abs(Double(value) - expected) <= 2.5e-7 * expected, "\(x)")
        }
        #expect(ScoreRow.exponential(SIMD8(repeating: -88)) == SIMD8(repeating: 0))
        #expect(ScoreRow.exponential(SIMD8(repeating: .nan)) == SIMD8(repeating: 0))
        #expect(ScoreRow.exponential(SIMD8(repeating: -.infinity)) == SIMD8(repeating: 0))
        #expect(ScoreRow.exponential(SIMD8(repeating: .infinity)) == SIMD8(repeating: 1))
    }
}
