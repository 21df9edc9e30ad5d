// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import Checkpoints

/// What the keys of a `generation_config.json`, or of the `config.json` that stands in for it, mean.
@Suite struct GenerationKeyTests {
    private func load(_ generation: String?, config: String = "{}") throws -> ModelConfiguration {
        let folder = try TemporaryFolder()
        try folder.write(config, to: "config.json")
        if let generation { try folder.write(generation, to: "generation_config.json") }
        return try ModelConfiguration.load(directory: folder.path)
    }

    private func defaults(_ change: (inout GenerationDefaults) -> Void) -> GenerationDefaults {
        // A file that does not name an end has none.
        var defaults = GenerationDefaults(endTokenIDs: [])
        change(&defaults)
        return defaults
    }

    /// A key with a value, and what it sets.
    struct Sample: Sendable {
        let key: String
        let json: String
        let set: @Sendable (inout GenerationDefaults) -> Void
    }

    static let samples: [Sample] = [
        Sample(key: "max_new_tokens", json: "7") { $0.maxNewTokens = 7 },
        Sample(key: "max_length", json: "20") { $0.maxLength = 20 },
        Sample(key: "min_new_tokens", json: "3") { $0.minNewTokens = 3 },
        Sample(key: "min_length", json: "0") { $0.minLength = 0 },
        Sample(key: "eos_token_id", json: "[4, 5]") { $0.endTokenIDs = [4, 5] },
        Sample(key: "decoder_start_token_id", json: "6") { _ in },
        Sample(key: "num_beams", json: "4") { $0.beamCount = 4 },
        Sample(key: "length_penalty", json: "0.0") { $0.lengthPenalty = 0 },
        Sample(key: "early_stopping", json: "true") { $0.earlyStopping = .always },
        Sample(key: "early_stopping", json: "false") { $0.earlyStopping = .heuristic },
        Sample(key: "early_stopping", json: #""never""#) { $0.earlyStopping = .never },
        Sample(key: "num_beam_groups", json: "2") { $0.beamGroups = 2 },
        Sample(key: "diversity_penalty", json: "0.5") { $0.diversityPenalty = 0.5 },
        Sample(key: "num_return_sequences", json: "2") { $0.returnedSequences = 2 },
        Sample(key: "do_sample", json: "false") { $0.sampling = false },
        Sample(key: "sequence_bias", json: "[[[45, 7], -1.5], [[9], 2]]") {
            $0.sequenceBias = [.init(tokens: [45, 7], bias: -1.5), .init(tokens: [9], bias: 2)]
        },
        Sample(key: "encoder_repetition_penalty", json: "1.5") { $0.encoderRepetitionPenalty = 1.5 },
        Sample(key: "repetition_penalty", json: "1.25") { $0.repetitionPenalty = 1.25 },
        Sample(key: "no_repeat_ngram_size", json: "3") { $0.noRepeatNgramSize = 3 },
        Sample(key: "encoder_no_repeat_ngram_size", json: "2") { $0.encoderNoRepeatNgramSize = 2 },
        Sample(key: "bad_words_ids", json: "[[3], [4, 5]]") { $0.badWords = [[3], [4, 5]] },
        Sample(key: "forced_bos_token_id", json: "777") { $0.forcedBeginToken = 777 },
        Sample(key: "forced_eos_token_id", json: "1") { $0.forcedEndTokens = [1] },
        Sample(key: "forced_eos_token_id", json: "[1, 2]") { $0.forcedEndTokens = [1, 2] },
        Sample(key: "exponential_decay_length_penalty", json: "[15, 1.5]") {
            $0.lengthDecay = .init(startIndex: 15, factor: 1.5)
        },
        Sample(key: "suppress_tokens", json: "[8, 9]") { $0.suppressedTokens = [8, 9] },
        Sample(key: "begin_suppress_tokens", json: "[]") { $0.beginSuppressedTokens = [] },
        Sample(key: "renormalize_logits", json: "true") { $0.renormalizesLogits = true },
        Sample(key: "temperature", json: "0.0") { $0.temperature = 0 },
        Sample(key: "top_k", json: "0") { $0.topK = 0 },
        Sample(key: "top_p", json: "0.5") { $0.topP = 0.5 },
        Sample(key: "min_p", json: "0.25") { $0.minP = 0.25 },
        Sample(key: "typical_p", json: "0.5") { $0.typicalP = 0.5 },
        Sample(key: "epsilon_cutoff", json: "0.125") { $0.epsilonCutoff = 0.125 },
        Sample(key: "eta_cutoff", json: "0.0625") { $0.etaCutoff = 0.0625 },
    ]

    @Test func everyKeyIsReadFromEitherFile() throws {
        #expect(Set(Self.samples.map(\.key)) == Set(GenerationKey.all.map(\.name)))
        for sample in Self.samples {
            let text = "{\"\(sample.key)\": \(sample.json)}"
            var expected = self.defaults(sample.set)
            #expect(try self.load(text).generation == expected, "\(sample.key)")
            expected.file = "config.json"
            #expect(try self.load(nil, config: text).generation == expected, "\(sample.key)")
            // null is as good as nothing.
            #expect(try self.load("{\"\(sample.key)\": null}").generation == self.defaults { _ in }, "\(sample.key)")
        }
    }

    @Test func keysWithoutEffectPass() throws {
        for key in GenerationKey.withoutEffect where !key.hasSuffix("token_id") {
            #expect(try self.load("{\"\(key)\": true}").generation == self.defaults { _ in }, "\(key)")
        }
        let names = Set(GenerationKey.all.map(\.name))
        #expect(GenerationKey.withoutEffect.isDisjoint(with: names))
        #expect(Set(GenerationKey.refusedUnless.keys).isDisjoint(with: GenerationKey.withoutEffect.union(names)))
    }

    @Test func otherKeysAreRefusedUnlessNeutral() throws {
        for (key, neutral) in GenerationKey.refusedUnless {
            for value in neutral.map(\.brief) + ["null"] {
                #expect(try self.load("{\"\(key)\": \(value)}").generation == self.defaults { _ in }, "\(key)")
            }
            for generation in [true, false] {
                let text = "{\"\(key)\": 0.75}"
                let error = #expect(throws: CheckpointError.self) {
                    try generation ? self.load(text) : self.load(nil, config: text)
                }
                #expect(error?.message.contains("\(key) is 0.75, and is not supported") == true, "\(key)")
                #expect(error?.file?.hasSuffix(generation ? "generation_config.json" : "config.json") == true)
            }
        }
        let unknown = #expect(throws: CheckpointError.self) { try self.load(#"{"no_repeat_ngram": [3, "x"]}"#) }
        #expect(unknown?.message.contains(#"no_repeat_ngram is [3, "x"], and is not a key"#) == true)
        #expect(try self.load(#"{"no_repeat_ngram": null}"#).generation == self.defaults { _ in })
        // config.json is full of other keys, and its generation keys do not count beside generation_config.json.
        _ = try self.load(nil, config: #"{"no_repeat_ngram": 3, "task_specific_params": {"a": {"num_beams": 4}}}"#)
        #expect(try self.load("{}", config: #"{"guidance_scale": 3, "num_beams": 4}"#).generation.beamCount == nil)
    }

    @Test(arguments: [
        (#"{"max_new_tokens": 0}"#, "max_new_tokens must be 1"), (#"{"max_length": 1}"#, "max_length must be 2"),
        (#"{"no_repeat_ngram_size": -1}"#, "no_repeat_ngram_size must be 0"),
        (#"{"no_repeat_ngram_size": "2"}"#, "no_repeat_ngram_size must be an integer"),
        (#"{"bad_words_ids": []}"#, "bad_words_ids must list 1"),
        (#"{"bad_words_ids": [[3], []]}"#, "bad_words_ids must list lists of token ids, but holds []"),
        (#"{"bad_words_ids": [3]}"#, "but holds 3"), (#"{"suppress_tokens": [-1]}"#, "but is [-1]"),
        (#"{"suppress_tokens": 4}"#, "suppress_tokens must be a list"),
        (#"{"forced_bos_token_id": [4]}"#, "forced_bos_token_id must be an integer"),
        (#"{"sequence_bias": [[[4], "x"]]}"#, "sequence_bias must list pairs"),
        (#"{"sequence_bias": {"4": 1}}"#, "sequence_bias must list 1"),
        (#"{"exponential_decay_length_penalty": [3]}"#, "must be a length and a factor"),
        (#"{"repetition_penalty": 0}"#, "repetition_penalty must be finite and above 0, but is 0"),
        (#"{"encoder_repetition_penalty": -2}"#, "encoder_repetition_penalty must be"),
        (#"{"renormalize_logits": 1}"#, "renormalize_logits must be true or false"),
        (#"{"do_sample": true, "temperature": 0.0}"#, "temperature must be finite and above 0, but is 0"),
        (#"{"do_sample": true, "top_p": 1.5}"#, "top_p must be 0 through 1, but is 1.5"),
        (#"{"do_sample": true, "top_k": -1}"#, "top_k must be 0"),
        (#"{"do_sample": true, "min_p": 2}"#, "min_p must be 0 through 1"),
        (#"{"do_sample": true, "typical_p": 0}"#, "typical_p must be"),
        (#"{"do_sample": true, "eta_cutoff": -1}"#, "eta_cutoff must be"),
    ])
    func wrongValuesAreNamed(text: String, complaint: String) {
        let error = #expect(throws: CheckpointError.self) { try self.load(text) }
        #expect(error?.message.contains(complaint) == true, "\(String(describing: error))")
        #expect(error?.file?.hasSuffix("generation_config.json") == true)
    }

    @Test func whatOnlySamplingReadsIsNotJudgedWithoutIt() throws {
        let text = #"{"temperature": -1, "top_p": 7, "top_k": -3, "min_p": 2, "typical_p": -1, "eta_cutoff": -1}"#
        #expect(try self.load(text).generation.temperature == -1)
    }

    @Test func decodingStartsFromBosWhereThereIsNoStartToken() throws {
        #expect(try self.load(#"{"bos_token_id": 5}"#, config: #"{"bos_token_id": 6}"#).decoderStartTokenID == 5)
        #expect(
            try self.load(#"{"bos_token_id": 5}"#, config: #"{"decoder_start_token_id": 6}"#).decoderStartTokenID == 5
        )
        #expect(
            try self.load(#"{"bos_token_id": 5, "decoder_start_token_id": 4}"#).decoderStartTokenID == 4
        )
        #expect(try self.load(nil, config: #"{"bos_token_id": 6}"#).decoderStartTokenID == 6)
        #expect(try self.load("{}").decoderStartTokenID == 0)
    }

    @Test func onlyTheFileWithGenerationsKeysNamesAnEnd() throws {
        let config = #"{"eos_token_id": 6, "decoder_start_token_id": 0}"#
        #expect(try self.load(nil, config: config).generation.endTokenIDs == [6])
        // As in transformers, the ends of config.json do not count beside the other file, and null names none.
        for text in [#"{"decoder_start_token_id": 0}"#, #"{"decoder_start_token_id": 0, "eos_token_id": null}"#] {
            let model = try self.load(text, config: config)
            #expect(model.generation.endTokenIDs.isEmpty)
            #expect(
                model.generationNotes == [
                    "generation_config.json has no eos_token_id: only the greatest length ends an answer, as in transformers"
                ]
            )
        }
        let plain = try self.load(nil, config: #"{"decoder_start_token_id": 0}"#)
        #expect(plain.generation.endTokenIDs.isEmpty && plain.generationNotes.count == 1)
        #expect(plain.generationNotes.first?.hasPrefix("config.json has no eos_token_id") == true)
        // transformers fails with an empty list as soon as there are beams.
        let empty = #expect(throws: CheckpointError.self) { try self.load(#"{"eos_token_id": []}"#) }
        #expect(empty?.message.contains("eos_token_id must list 1 through 64 integers, but lists 0") == true)
        // Where transformers refuses to generate, the start token is an assumption, and said to be one.
        let start = try self.load(#"{"eos_token_id": 1}"#, config: #"{"decoder_start_token_id": 6}"#)
        #expect(start.decoderStartTokenID == 6)
        #expect(start.generationNotes.count == 1)
        #expect(start.generationNotes.first?.hasSuffix("answers start from token 6") == true)
        #expect(try self.load(#"{"eos_token_id": 1, "bos_token_id": 3}"#).generationNotes.isEmpty)
    }
}
