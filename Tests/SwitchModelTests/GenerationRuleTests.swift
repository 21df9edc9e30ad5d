// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import TensorKernels
import Testing

@testable import SwitchModel

/// Every generation parameter as in transformers, alone and in combinations.
@Suite
struct GenerationRuleTests {
    let fixtures: GenerationRuleFixtures

    init() throws {
        self.fixtures = try GenerationRuleFixtures.shared.get()
    }

    @Test
    func searchesGiveTheSameSequencesAndScores() throws {
        // 13 parameters four times, greedy and with beams, and 300 combinations.
        #expect(self.fixtures.searches.count == 352)
        for search in self.fixtures.searches {
            var session = try search.session
            let results = search.run(&session)
            let expected = try #require(search.results)
            try #require(results.count == expected.count, "\(search)")
            for (result, expected) in zip(results, expected) {
                #expect(result.tokenIDs == expected.ids, "\(search)")
                #expect(abs(result.score - expected.score) <= 1e-5 * max(1, abs(expected.score)), "\(search)")
                let isEnd = try search.ends.contains(#require(expected.ids.last))
                #expect(result.finishReason == (isEnd ? .endOfSequence : .length), "\(search)")
            }
        }
    }

    @Test
    func rulesTurnTheFastPathOff() throws {
        for search in self.fixtures.searches where (search.settings.numBeams ?? 1) == 1 {
            var parameters = search.settings.parameters
            parameters.skipsScores = true
            var session = try search.session(parameters)
            // The rows then hold all scores, so only tokens may be compared.
            #expect(!session.needsOnlyGreatest || !parameters.changesScores, "\(search)")
            #expect(search.run(&session).map(\.tokenIDs) == search.results?.map(\.ids), "\(search)")
        }
    }

    @Test
    func probabilitiesAreTheSame() throws {
        #expect(self.fixtures.distributions.count == 80)
        for fixture in self.fixtures.distributions {
            let vocabulary = try fixture.session.vocabulary
            let parameters = fixture.settings.parameters
            let processing = ScoreProcessing(
                parameters: parameters,
                vocabulary: vocabulary,
                encoderTokens: fixture.encoderTokens,
                decoderPrefix: fixture.prefix
            )
            var processed: [Float] = []
            fixture.firstRow.withUnsafeBufferPointer {
                processing.apply(to: &processed, original: ScoreRow(scores: $0), tokens: [])
            }
            let filter = SamplingFilter(parameters: parameters, vocabulary: vocabulary)
            let candidates = processed.withUnsafeBufferPointer { filter.candidates(ScoreRow(scores: $0)) }
            let expected = try #require(fixture.probabilities)
            #expect(candidates.map(\.id) == expected.indices.filter { expected[$0] > 0 }.map(Int32.init), "\(fixture)")
            let total = candidates.reduce(0) { $0 + exp(Double($1.score)) }
            for candidate in candidates {
                let difference = exp(Double(candidate.score)) / total - expected[Int(candidate.id)]
                #expect(abs(difference) < 1e-5 * max(expected[Int(candidate.id)], 0.1), "\(fixture)")
            }
        }
    }

    @Test
    func drawsFollowTheProbabilities() throws {
        for fixture in self.fixtures.distributions {
            var parameters = fixture.settings.parameters
            parameters.returnedSequences = 1_000
            parameters.seed = fixture.table
            var counts = [Int](repeating: 0, count: fixture.vocabulary)
            var session = try fixture.session(parameters)
            for token in session.advance(logits: FloatMatrix([fixture.firstRow]), firstRow: 0).emitted {
                counts[Int(token.id)] += 1
            }
            let expected = try #require(fixture.probabilities)
            #expect(counts.indices.allSatisfy { counts[$0] == 0 || expected[$0] > 0 }, "\(fixture)")
            let cells = zip(counts, expected).map { (Double($0), 1_000 * $1) }
            Self.expectLikely(cells, "\(fixture)")
        }
    }

    @Test
    func beamSearchesDrawLikeTransformers() throws {
        #expect(self.fixtures.draws.count == 8)
        for fixture in self.fixtures.draws {
            let outcomes = try #require(fixture.outcomes)
            let known = Dictionary(uniqueKeysWithValues: outcomes.map { ($0.ids, $0) })
            let drawn = outcomes.reduce(0) { $0 + ($1.count ?? 0) }
            var parameters = fixture.settings.parameters
            var counts: [[Int32]: Int] = [:]
            for seed in 0..<2_000 {
                parameters.seed = UInt64(seed)
                var session = try fixture.session(parameters)
                let result = try #require(fixture.run(&session).first)
                counts[result.tokenIDs, default: 0] += 1
                guard let expected = known[result.tokenIDs] else { continue }
                #expect(abs(result.score - expected.score) <= 1e-5 * max(1, abs(expected.score)), "\(fixture)")
            }
            // What transformers never drew in 20,000 runs may come up by chance, but hardly ever.
            let unknown = counts.filter { known[$0.key] == nil }.reduce(0) { $0 + $1.value }
            #expect(unknown <= 10, "\(fixture)")
            // The reference is itself drawn, which makes the statistic larger by the ratio of the two numbers.
            let noise = (1 + 2_000 / Double(drawn)).squareRoot()
            let cells = outcomes.map { outcome -> (Double, Double) in
                let expected = 2_000 * Double(outcome.count ?? 0) / Double(drawn)
                return (expected + (Double(counts[outcome.ids] ?? 0) - expected) / noise, expected)
            }
            Self.expectLikely(cells, "\(fixture)")
        }
    }

    /// Chi-square: the counts fit what is expected, unless by a chance of about one in 30,000.
    ///
    /// The seeds are fixed, so it never varies.
    private static func expectLikely(_ cells: [(count: Double, expected: Double)], _ comment: Comment) {
        let large = cells.filter { $0.expected >= 5 }
        let small = cells.filter { $0.expected < 5 }.reduce((0.0, 0.0)) { ($0.0 + $1.count, $0.1 + $1.expected) }
        let all = small.1 >= 1 ? large + [small] : large
        guard all.count > 1 else {
            #expect(abs((all.first?.count ?? 0) - (all.first?.expected ?? 0)) < 20, comment)
            return
        }
        let statistic = all.reduce(0) { $0 + pow($1.count - $1.expected, 2) / $1.expected }
        // Wilson and Hilferty's approximation of the distribution's quantile, four deviations out.
        let freedom = Double(all.count - 1)
        let limit = freedom * pow(1 - 2 / (9 * freedom) + 4 * (2 / (9 * freedom)).squareRoot(), 3)
        #expect(statistic < limit, comment)
    }

    @Test
    func theFirstStepHoldsThePrefix() throws {
        let fixture = try #require(self.fixtures.searches.first { $0.prefix.count == 2 })
        let miniature = try Miniature()
        var parameters = GenerationParameters()
        parameters.maxNewTokens = 3
        var session = try GenerationSession(
            parameters: parameters,
            configuration: miniature.model.configuration,
            decoderPrefix: fixture.prefix
        )
        var record = RoutingRecord()
        let encoded = try miniature.model.encode([[2, 3, 1]], experts: miniature.experts, record: &record)
        let caches = encoded.map { DecoderCache($0) }
        let first = session.decoderInputs(caches)
        #expect(first.map(\.tokens) == [[miniatureStart(miniature)] + fixture.prefix])
        let logits = try miniature.model.decode(first, experts: miniature.experts, record: &record)
        _ = session.advance(logits: logits, firstRow: 0)
        #expect(session.decoderInputs(caches).allSatisfy { $0.tokens.count == 1 })
    }

    private func miniatureStart(_ miniature: Miniature) -> Int32 {
        Int32(miniature.model.configuration.decoderStartTokenID)
    }
}
