// SPDX-License-Identifier: Apache-2.0

import SwitchModel
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
        Case("zero temperature", "temperature") { $0.temperature = 0 },
        Case("infinite temperature", "temperature") { $0.temperature = .infinity },
        Case("temperature not a number", "temperature") { $0.temperature = .nan },
        Case("negative top_k", "top_k") { $0.topK = -1 },
        Case("no top_k", nil) { $0.topK = 0 },
        Case("top_p above 1", "top_p") { $0.topP = 1.01 },
        Case("top_p not a number", "top_p") { $0.topP = .nan },
        Case("zero top_p", nil) { $0.topP = 0 },
        Case("zero repetition penalty", "repetition_penalty") { $0.repetitionPenalty = 0 },
        Case("no sequences", "num_return_sequences") { $0.returnedSequences = 0 },
        Case("two greedy sequences", "num_return_sequences") { $0.returnedSequences = 2 },
        Case("two draws", nil) { ($0.returnedSequences, $0.sampling) = (2, true) },
        Case("more sequences than beams", "num_return_sequences") { ($0.returnedSequences, $0.beamCount) = (3, 2) },
        Case("as many sequences as beams", nil) { ($0.returnedSequences, $0.beamCount) = (2, 2) },
        Case("sampling with beams", "do_sample") { ($0.sampling, $0.beamCount) = (true, 2) },
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
    ])
    func theVocabularyMustFit(_ vocabulary: GenerationVocabulary, field: String) {
        var parameters = GenerationParameters()
        parameters.beamCount = 4
        let error = #expect(throws: GenerationError.self) {
            try GenerationSession(parameters: parameters, vocabulary: vocabulary)
        }
        #expect(error?.field == field)
    }
}
