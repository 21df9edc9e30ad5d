// SPDX-License-Identifier: Apache-2.0

internal import JSONValues

/// One key of a `generation_config.json` that changes what is generated, with its names in a request and on the command line.
///
/// The documentation's table and the tests of the three interfaces come from ``all``.
public struct GenerationKey: Sendable, Hashable {
    /// A way to choose tokens.
    public enum Search: String, Sendable, Hashable, CaseIterable {
        /// The best token of each step.
        case greedy
        /// Tokens drawn at random.
        case sampling
        /// Beam search; drawn at random if `do_sample` is true too.
        case beams
    }

    /// The key, as in transformers.
    public var name: String

    /// The field of the request's `GenerationParameters`.
    public var field: String { self.name }

    /// The flags of `switchyard generate`: one, or two for yes and no.
    public var flags: [String]

    /// The searches that read the key.
    public var searches: [Search]

    /// The value that changes nothing, as text.
    public var neutral: String

    /// What the key does, for people to read.
    public var meaning: String

    /// The class or function of transformers that does the same: of 5.23, or of 4.55 for groups of beams.
    public var reference: String

    init(
        _ name: String,
        flag: String,
        no: String? = nil,
        _ searches: [Search] = Search.allCases,
        neutral: String,
        _ meaning: String,
        _ reference: String
    ) {
        self.name = name
        self.flags = [flag, no].compactMap { $0 }
        self.searches = searches
        self.neutral = neutral
        self.meaning = meaning
        self.reference = reference
    }

    /// The cells of the key's row in the documentation's table.
    public var markdownRow: [String] {
        [
            "`\(self.name)`",
            self.flags.map { "`\($0)`" }.joined(separator: ", "),
            self.searches.count == Search.allCases.count
                ? "all" : self.searches.map(\.rawValue).joined(separator: ", "),
            self.neutral, self.meaning, "`\(self.reference)`",
        ]
    }
}

extension GenerationKey {
    /// Every key that is served.
    public static let all: [GenerationKey] = Self.lengths + Self.searchKeys + Self.scoreKeys + Self.samplingKeys

    private static let lengths = [
        GenerationKey(
            "max_new_tokens",
            flag: "--max-new-tokens",
            neutral: "20",
            "the most tokens of an answer, its end token included",
            "MaxLengthCriteria"
        ),
        GenerationKey(
            "max_length",
            flag: "--max-length",
            neutral: "none",
            "the same with the start token and a decoder prefix; `max_new_tokens` wins",
            "MaxLengthCriteria"
        ),
        GenerationKey(
            "min_new_tokens",
            flag: "--min-new-tokens",
            neutral: "0",
            "no end before this many tokens",
            "MinNewTokensLengthLogitsProcessor"
        ),
        GenerationKey(
            "min_length",
            flag: "--min-length",
            neutral: "0",
            "the same with the start token and a decoder prefix; `min_new_tokens` wins",
            "MinLengthLogitsProcessor"
        ),
        GenerationKey(
            "eos_token_id",
            flag: "--end-tokens",
            neutral: "none",
            "the tokens each of which ends a sequence; without any, only the greatest length does",
            "EosTokenCriteria"
        ),
        GenerationKey(
            "decoder_start_token_id",
            flag: "--start-token",
            neutral: "`bos_token_id`, else 0",
            "the token that every sequence starts from",
            "_prepare_decoder_input_ids_for_generation"
        ),
    ]

    private static let searchKeys = [
        GenerationKey(
            "num_beams",
            flag: "--beams",
            [.beams],
            neutral: "1",
            "beam search with this many beams",
            "_beam_search"
        ),
        GenerationKey(
            "length_penalty",
            flag: "--length-penalty",
            neutral: "1",
            "a score is divided by the answer's length to this power; without beams it changes only the score",
            "_beam_search"
        ),
        GenerationKey(
            "early_stopping",
            flag: "--early-stopping",
            [.beams],
            neutral: "false",
            "`true`, `false` or `never`: when a beam search may stop",
            "_beam_search"
        ),
        GenerationKey(
            "num_beam_groups",
            flag: "--beam-groups",
            [.beams],
            neutral: "1",
            "groups of beams that search side by side",
            "BeamSearchScorer"
        ),
        GenerationKey(
            "diversity_penalty",
            flag: "--diversity-penalty",
            [.beams],
            neutral: "0",
            "taken from a token's score for each beam of an earlier group that has chosen it",
            "HammingDiversityLogitsProcessor"
        ),
        GenerationKey(
            "num_return_sequences",
            flag: "--return-sequences",
            [.sampling, .beams],
            neutral: "1",
            "the number of answers: the best beams, or separate draws",
            "generate"
        ),
        GenerationKey(
            "do_sample",
            flag: "--sample",
            no: "--no-sample",
            [.sampling, .beams],
            neutral: "false",
            "draws tokens at random",
            "_sample"
        ),
    ]

    private static let scoreKeys = [
        GenerationKey(
            "sequence_bias",
            flag: "--sequence-bias",
            neutral: "none",
            "added to the score of a token that would complete a sequence",
            "SequenceBiasLogitsProcessor"
        ),
        GenerationKey(
            "encoder_repetition_penalty",
            flag: "--encoder-repetition-penalty",
            neutral: "1",
            "above 1, divides the logits of tokens that are not in the input",
            "EncoderRepetitionPenaltyLogitsProcessor"
        ),
        GenerationKey(
            "repetition_penalty",
            flag: "--repetition-penalty",
            neutral: "1",
            "divides positive logits of tokens that have occurred, and multiplies negative ones",
            "RepetitionPenaltyLogitsProcessor"
        ),
        GenerationKey(
            "no_repeat_ngram_size",
            flag: "--no-repeat-ngram-size",
            neutral: "0",
            "no sequence of this many tokens occurs twice",
            "NoRepeatNGramLogitsProcessor"
        ),
        GenerationKey(
            "encoder_no_repeat_ngram_size",
            flag: "--encoder-no-repeat-ngram-size",
            neutral: "0",
            "no sequence of this many tokens of the input occurs",
            "EncoderNoRepeatNGramLogitsProcessor"
        ),
        GenerationKey(
            "bad_words_ids",
            flag: "--bad-words",
            neutral: "none",
            "sequences of tokens that do not occur",
            "NoBadWordsLogitsProcessor"
        ),
        GenerationKey(
            "forced_bos_token_id",
            flag: "--forced-first-token",
            neutral: "none",
            "the first token",
            "ForcedBOSTokenLogitsProcessor"
        ),
        GenerationKey(
            "forced_eos_token_id",
            flag: "--forced-last-tokens",
            neutral: "none",
            "the last token, when the most tokens are reached: one of these",
            "ForcedEOSTokenLogitsProcessor"
        ),
        GenerationKey(
            "exponential_decay_length_penalty",
            flag: "--length-decay",
            neutral: "none",
            "from a length on, raises the end's score by a factor to the power of the tokens since",
            "ExponentialDecayLengthPenalty"
        ),
        GenerationKey(
            "suppress_tokens",
            flag: "--suppress-tokens",
            neutral: "none",
            "tokens that are never chosen",
            "SuppressTokensLogitsProcessor"
        ),
        GenerationKey(
            "begin_suppress_tokens",
            flag: "--begin-suppress-tokens",
            neutral: "none",
            "tokens that are not chosen first",
            "SuppressTokensAtBeginLogitsProcessor"
        ),
        GenerationKey(
            "renormalize_logits",
            flag: "--renormalize",
            no: "--no-renormalize",
            neutral: "false",
            "makes scores log-probabilities again after all that changes them",
            "LogitNormalization"
        ),
    ]

    private static let samplingKeys = [
        GenerationKey(
            "temperature",
            flag: "--temperature",
            [.sampling],
            neutral: "1",
            "divides logits before tokens are drawn",
            "TemperatureLogitsWarper"
        ),
        GenerationKey(
            "top_k",
            flag: "--top-k",
            [.sampling],
            neutral: "50 (0 is off)",
            "draws from this many of the best tokens",
            "TopKLogitsWarper"
        ),
        GenerationKey(
            "top_p",
            flag: "--top-p",
            [.sampling],
            neutral: "1",
            "draws from the best tokens that together have this probability",
            "TopPLogitsWarper"
        ),
        GenerationKey(
            "min_p",
            flag: "--min-p",
            [.sampling],
            neutral: "0",
            "draws from tokens at least this fraction as likely as the best",
            "MinPLogitsWarper"
        ),
        GenerationKey(
            "typical_p",
            flag: "--typical-p",
            [.sampling],
            neutral: "1",
            "draws from the most typical tokens that together have this probability",
            "TypicalLogitsWarper"
        ),
        GenerationKey(
            "epsilon_cutoff",
            flag: "--epsilon-cutoff",
            [.sampling],
            neutral: "0",
            "draws from tokens of at least this probability",
            "EpsilonLogitsWarper"
        ),
        GenerationKey(
            "eta_cutoff",
            flag: "--eta-cutoff",
            [.sampling],
            neutral: "0",
            "draws from tokens above a probability that depends on this and on the entropy",
            "EtaLogitsWarper"
        ),
    ]
}

extension GenerationKey {
    /// Keys of the file that have no effect on tokens and scores here: they describe output, caches, speed or the file itself,
    /// belong to searches that other keys choose, or are read elsewhere (`pad_token_id`, `bos_token_id`).
    public static let withoutEffect: Set<String> = [
        "output_scores", "output_logits", "output_attentions", "output_hidden_states", "return_dict_in_generate",
        "use_cache", "cache_config", "max_cache_len", "compile_config", "disable_compile", "prefill_chunk_size",
        "continuous_batching_config", "low_memory", "is_assistant", "num_assistant_tokens",
        "num_assistant_tokens_schedule", "assistant_confidence_threshold", "assistant_lookbehind", "target_lookbehind",
        "max_matching_ngram_size", "transformers_version", "_from_model_config", "_commit_hash", "_name_or_path",
        "pad_token_id", "bos_token_id",
    ]

    /// Keys that are not served, with the values besides null at which transformers ignores them.
    static let refusedUnless: [String: [JSONValue]] = [
        "max_time": [], "stop_strings": [], "top_h": [], "use_mtp": [.bool(false)], "token_healing": [.bool(false)],
        "remove_invalid_values": [.bool(false)], "guidance_scale": [.integer(1), .number(1)],
        "watermarking_config": [], "prompt_lookup_num_tokens": [], "assistant_early_exit": [],
        "assistant_ensemble_weight": [], "speculation_type": [], "constraints": [], "force_words_ids": [],
        "penalty_alpha": [.integer(0), .number(0)], "dola_layers": [],
        "force_bos_token_to_be_generated": [.bool(false)],
        "cache_implementation": ["dynamic", "dynamic_full", "static", "offloaded", "offloaded_static", "hybrid"]
            .map(JSONValue.string),
    ]

    private static let names = Set(Self.all.map(\.name))

    /// Refuses keys that would change the answer and are not served, and unknown keys.
    ///
    /// - Parameters:
    ///   - values: The file's keys and values.
    ///   - file: The file.
    ///   - isModelFile: Whether this is a `config.json`, most of whose keys are not about generation.
    /// - Throws: `CheckpointError` that names the file, the key and its value.
    static func check(
        _ values: [String: JSONValue],
        file: String,
        isModelFile: Bool
    ) throws(CheckpointError) {
        for (key, value) in values.sorted(by: { $0.key < $1.key }) where value != .null {
            let complaint: String
            if let neutral = self.refusedUnless[key] {
                guard !neutral.contains(value) else { continue }
                complaint = "is not supported"
            } else {
                guard !isModelFile, !self.names.contains(key), !self.withoutEffect.contains(key) else { continue }
                complaint = "is not a key of generation that is known here"
            }
            throw CheckpointError(
                code: .unsupported,
                message:
                    "\(key) is \(value.brief), and \(complaint); remove the key from the file, or set it to null, if "
                    + "answers do not need it",
                file: file
            )
        }
    }
}

extension JSONValue {
    /// The value as short text, for messages.
    var brief: String {
        func joined(_ texts: [String], _ open: String, _ close: String) -> String {
            open + texts.prefix(8).joined(separator: ", ") + (texts.count > 8 ? ", ..." : "") + close
        }
        switch self {
        case .null: return "null"
        case .bool(let value): return "\(value)"
        case .integer(let value): return "\(value)"
        case .number(let value): return "\(value)"
        case .string(let value): return "\"\(value.prefix(80))\""
        case .array(let values): return joined(values.prefix(9).map(\.brief), "[", "]")
        case .object(let values):
            return joined(values.keys.sorted().prefix(9).map { "\"\($0.prefix(40))\": ..." }, "{", "}")
        }
    }
}
