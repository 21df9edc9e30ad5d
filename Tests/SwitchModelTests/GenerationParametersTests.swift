// SPDX-License-Identifier: Apache-2.0

import SwitchModel
import TensorKernels
import Testing

@Suite
struct GenerationParametersTests {
    /// A change to valid parameters, and the field that the error must name; nil where there must be none.
    struct Case: Sendable, CustomTestStringConvertible {
        var name: String
        var field: String?
        var change: @Sendable (inout GenerationParameters) -> Void

        init(_ name: String, _ field: String?, _ change: @escaping @Sendable (inout GenerationParameters) -> Void) {
            self.name = name
            self.field = field
            self.change = change
        }

        var testDescription: String { self.name }
    }

    static let cases: [Case] = [
        Case("defaults", nil) { _ in },
        Case("no tokens", "max_new_tokens") { $0.maxNewTokens = 0 },
        Case("endless", "max_new_tokens") { $0.maxNewTokens = .max },
        Case("negative least length", "min_new_tokens") { $0.minNewTokens = -1 },
        Case("least above greatest length", "min_new_tokens") { $0.minNewTokens = 21 },
        Case("least equals greatest length", nil) { $0.minNewTokens = 20 },
        Case("no beams", "num_beams") { $0.beamCount = 0 },
        Case("too many beams", "num_beams") { $0.beamCount = 1_025 },
        Case("penalty not a number", "length_penalty") { $0.lengthPenalty = .nan },
        Case("negative penalty", nil) { $0.lengthPenalty = -3 },
        Case("zero temperature", "temperature") { ($0.sampling, $0.temperature) = (true, 0) },
        Case("infinite temperature", "temperature") { ($0.sampling, $0.temperature) = (true, .infinity) },
        Case("temperature not a number", "temperature") { ($0.sampling, $0.temperature) = (true, .nan) },
        Case("negative top_k", "top_k") { ($0.sampling, $0.topK) = (true, -1) },
        Case("no top_k", nil) { ($0.sampling, $0.topK) = (true, 0) },
        Case("top_p above 1", "top_p") { ($0.sampling, $0.topP) = (true, 1.01) },
        Case("top_p not a number", "top_p") { ($0.sampling, $0.topP) = (true, .nan) },
        Case("zero top_p", nil) { ($0.sampling, $0.topP) = (true, 0) },
        Case("zero repetition penalty", "repetition_penalty") { $0.repetitionPenalty = 0 },
        Case("no sequences", "num_return_sequences") { $0.returnedSequences = 0 },
        Case("two greedy sequences", "num_return_sequences") { $0.returnedSequences = 2 },
        Case("two draws", nil) { ($0.returnedSequences, $0.sampling) = (2, true) },
        Case("more sequences than beams", "num_return_sequences") { ($0.returnedSequences, $0.beamCount) = (3, 2) },
        Case("as many sequences as beams", nil) { ($0.returnedSequences, $0.beamCount) = (2, 2) },
        Case("sampling with beams", nil) { ($0.sampling, $0.beamCount) = (true, 2) },
        Case("what only sampling reads, without sampling", nil) {
            ($0.temperature, $0.topK, $0.topP, $0.minP) = (0, -1, 2, -1)
            ($0.typicalP, $0.epsilonCutoff, $0.etaCutoff) = (0, 1, .nan)
        },
        Case("negative min_p", "min_p") { ($0.sampling, $0.minP) = (true, -0.1) },
        Case("zero min_p", nil) { ($0.sampling, $0.minP) = (true, 0) },
        Case("zero typical_p", "typical_p") { ($0.sampling, $0.typicalP) = (true, 0) },
        Case("epsilon_cutoff of 1", "epsilon_cutoff") { ($0.sampling, $0.epsilonCutoff) = (true, 1) },
        Case("eta_cutoff not a number", "eta_cutoff") { ($0.sampling, $0.etaCutoff) = (true, .nan) },
        Case("negative n-gram", "no_repeat_ngram_size") { $0.noRepeatNgramSize = -1 },
        Case("negative encoder n-gram", "encoder_no_repeat_ngram_size") { $0.encoderNoRepeatNgramSize = -1 },
        Case("encoder n-gram without input", "encoder_no_repeat_ngram_size") { $0.encoderNoRepeatNgramSize = 2 },
        Case("zero encoder penalty", "encoder_repetition_penalty") { $0.encoderRepetitionPenalty = 0 },
        Case("encoder penalty without input", "encoder_repetition_penalty") { $0.encoderRepetitionPenalty = 2 },
        Case("an empty bad word", "bad_words_ids") { $0.badWords = [[3], []] },
        Case("a bad word outside", "bad_words_ids") { $0.badWords = [[3, 4_096]] },
        Case("only end tokens as bad words", "bad_words_ids") { $0.badWords = [[1], [1]] },
        Case("an end token among bad words", nil) { $0.badWords = [[1], [2]] },
        Case("too many bad words", "bad_words_ids") { $0.badWords = .init(repeating: [2], count: 65_537) },
        Case("a suppressed token outside", "suppress_tokens") { $0.suppressedTokens = [-1] },
        Case("suppressed at the beginning outside", "begin_suppress_tokens") { $0.beginSuppressedTokens = [4_096] },
        Case("forced outside", "forced_bos_token_id") { $0.forcedBeginToken = 4_096 },
        Case("forced end outside", "forced_eos_token_id") { $0.forcedEndTokens = [1, -2] },
        Case("forced and suppressed", "forced_bos_token_id") {
            ($0.forcedBeginToken, $0.suppressedTokens) = (3, [2, 3])
        },
        Case("ends forced and suppressed", "forced_eos_token_id") {
            ($0.forcedEndTokens, $0.suppressedTokens) = ([1, 2], [2, 1])
        },
        Case("one end forced, one suppressed", nil) { ($0.forcedEndTokens, $0.suppressedTokens) = ([1, 2], [2]) },
        Case("two ends forced in beams", "forced_eos_token_id") { ($0.forcedEndTokens, $0.beamCount) = ([1, 2], 2) },
        Case("one end forced in beams, one suppressed", nil) {
            ($0.forcedEndTokens, $0.suppressedTokens, $0.beamCount) = ([1, 2], [2], 2)
        },
        Case("a bias of nothing", "sequence_bias") { $0.sequenceBias = [SequenceBias(tokens: [], bias: 1)] },
        Case("an infinite bias", "sequence_bias") { $0.sequenceBias = [SequenceBias(tokens: [2], bias: -.infinity)] },
        Case("a bias outside", "sequence_bias") { $0.sequenceBias = [SequenceBias(tokens: [2, 9_999], bias: 1)] },
        Case("an endless decay", "exponential_decay_length_penalty") {
            $0.lengthDecay = LengthDecay(startIndex: 2, factor: 1e6)
        },
        Case("a decay from afar", "exponential_decay_length_penalty") {
            $0.lengthDecay = LengthDecay(startIndex: .min, factor: 1)
        },
        Case("no beam groups", "num_beam_groups") { ($0.beamCount, $0.beamGroups) = (4, 0) },
        Case("beam groups", nil) { ($0.beamCount, $0.beamGroups, $0.diversityPenalty) = (4, 2, 0.5) },
        Case("as many groups as beams", nil) { ($0.beamCount, $0.beamGroups, $0.diversityPenalty) = (4, 4, 0.5) },
        Case("groups that do not divide the beams", "num_beam_groups") {
            ($0.beamCount, $0.beamGroups, $0.diversityPenalty) = (4, 3, 0.5)
        },
        Case("groups of one beam", "num_beam_groups") { ($0.beamGroups, $0.diversityPenalty) = (2, 0.5) },
        Case("groups and sampling", "num_beam_groups") {
            ($0.beamCount, $0.beamGroups, $0.diversityPenalty, $0.sampling) = (4, 2, 0.5, true)
        },
        Case("equal groups", "diversity_penalty") { ($0.beamCount, $0.beamGroups) = (4, 2) },
        Case("groups that attract", "diversity_penalty") {
            ($0.beamCount, $0.beamGroups, $0.diversityPenalty) = (4, 2, -0.5)
        },
        Case("an endless diversity", "diversity_penalty") {
            ($0.beamCount, $0.beamGroups, $0.diversityPenalty) = (4, 2, .infinity)
        },
        Case("more answers than beams of all groups", "num_return_sequences") {
            ($0.beamCount, $0.beamGroups, $0.diversityPenalty, $0.returnedSequences) = (4, 2, 0.5, 5)
        },
        Case("diversity", "diversity_penalty") { $0.diversityPenalty = 0.5 },
        Case("too many top_logprobs", "top_logprobs") { $0.topLogprobs = 1_025 },
        Case("top_logprobs without scores", "skip_scores") { ($0.topLogprobs, $0.skipsScores) = (1, true) },
        Case("top_logprobs with beams", "top_logprobs") { ($0.topLogprobs, $0.beamCount) = (1, 2) },
    ]

    @Test(arguments: Self.cases)
    func parametersAreChecked(_ testCase: Case) {
        var parameters = GenerationParameters()
        testCase.change(&parameters)
        let vocabulary = GenerationVocabulary(size: 4_096, startTokenID: 0, endTokenID: 1)
        do {
            try parameters.validate()
            _ = try GenerationSession(parameters: parameters, vocabulary: vocabulary)
            #expect(testCase.field == nil)
        } catch {
            #expect(error.field == testCase.field)
            #expect(error.description.hasPrefix("\(error.field): "))
            #expect(error.message.contains("but is") || error.message.contains("combined"))
        }
    }

    @Test(arguments: [
        (GenerationVocabulary(size: 10, startTokenID: 10, endTokenID: 1), "decoder_start_token_id"),
        (GenerationVocabulary(size: 10, startTokenID: -1, endTokenID: 1), "decoder_start_token_id"),
        (GenerationVocabulary(size: 10, startTokenID: 0, endTokenID: 10), "eos_token_id"),
        (GenerationVocabulary(size: 7, startTokenID: 0, endTokenID: 1), "num_beams"),
        (GenerationVocabulary(size: 11, startTokenID: 0, endTokenIDs: [1, 2]), "num_beams"),
        (GenerationVocabulary(size: 10, startTokenID: 0, endTokenIDs: [1, 10]), "eos_token_id"),
        // As many continuations as with one end.
        (GenerationVocabulary(size: 7, startTokenID: 0, endTokenIDs: []), "num_beams"),
    ])
    func theVocabularyMustFit(_ vocabulary: GenerationVocabulary, field: String) {
        var parameters = GenerationParameters()
        parameters.beamCount = 4
        let error = #expect(throws: GenerationError.self) {
            try GenerationSession(parameters: parameters, vocabulary: vocabulary)
        }
        #expect(error?.field == field)
    }

    @Test func aPressureToEndNeedsAnEnd() throws {
        var parameters = GenerationParameters()
        parameters.lengthDecay = LengthDecay(startIndex: 2, factor: 1.5)
        let none = GenerationVocabulary(size: 10, startTokenID: 0, endTokenIDs: [])
        let error = #expect(throws: GenerationError.self) {
            try GenerationSession(parameters: parameters, vocabulary: none)
        }
        #expect(error?.field == "exponential_decay_length_penalty")
        parameters.lengthDecay = nil
        parameters.minNewTokens = 3
        _ = try GenerationSession(parameters: parameters, vocabulary: none)
    }

    @Test(arguments: [false, true])
    func withoutAnEndOnlyTheLengthEnds(_ skipsScores: Bool) throws {
        var parameters = GenerationParameters()
        parameters.maxNewTokens = 5
        parameters.minNewTokens = 3
        parameters.skipsScores = skipsScores
        var session = try GenerationSession(
            parameters: parameters,
            vocabulary: GenerationVocabulary(size: 6, startTokenID: 0, endTokenIDs: [])
        )
        #expect(session.needsOnlyGreatest == skipsScores)
        let logits = FloatMatrix(rows: 1, columns: 6)
        // The token that would end an answer elsewhere is the best.
        logits.row(0)[1] = 3
        for step in 0..<5 {
            #expect(!session.isFinished, "step \(step)")
            #expect(session.decoderInputs([]).isEmpty)
            _ = session.advance(logits: logits, firstRow: 0)
        }
        #expect(session.isFinished)
        #expect(session.results.map(\.tokenIDs) == [[1, 1, 1, 1, 1]])
        #expect(session.results.map(\.finishReason) == [.length])
        // A row without any score ends its sequence all the same.
        var broken = try GenerationSession(
            parameters: parameters,
            vocabulary: GenerationVocabulary(size: 6, startTokenID: 0, endTokenIDs: [])
        )
        for id in 0..<6 { logits.row(0)[id] = Float.nan }
        #expect(broken.advance(logits: logits, firstRow: 0).unusableRows == [0])
        #expect(broken.isFinished)
    }
}
