// SPDX-License-Identifier: Apache-2.0

/// The defaults that a checkpoint's `generation_config.json` sets for requests; `nil` where it sets none.
///
/// Where a checkpoint has no such file, the same keys of `config.json` are used, as in transformers.
public struct GenerationDefaults: Sendable, Equatable {
    /// When a beam search may stop before its longest sequence is complete.
    public enum EarlyStopping: Sendable, Hashable, CaseIterable {
        /// As soon as there are as many finished sequences as beams: `early_stopping=True` in transformers.
        case always
        /// When a better sequence is unlikely to follow: `early_stopping=False`, the default.
        case heuristic
        /// Only when no better sequence can follow: `early_stopping="never"`.
        case never
    }

    /// What a sequence of tokens adds to the score of its last one.
    public struct SequenceBias: Sendable, Equatable {
        /// The sequence.
        public var tokens: [Int]
        /// What is added.
        public var bias: Float

        /// Makes a bias.
        ///
        /// - Parameters:
        ///   - tokens: The sequence.
        ///   - bias: What is added.
        public init(tokens: [Int], bias: Float) {
            self.tokens = tokens
            self.bias = bias
        }
    }

    /// How the end's score grows with the length of an answer.
    public struct LengthDecay: Sendable, Equatable {
        /// The number of generated tokens from which it grows.
        public var startIndex: Int
        /// The factor of each further token.
        public var factor: Float

        /// Makes a decay.
        ///
        /// - Parameters:
        ///   - startIndex: The number of generated tokens from which the score grows.
        ///   - factor: The factor of each further token.
        public init(startIndex: Int, factor: Float) {
            self.startIndex = startIndex
            self.factor = factor
        }
    }

    /// The most new tokens (`max_new_tokens`).
    public var maxNewTokens: Int?
    /// The most tokens, the decoder start token included (`max_length`).
    public var maxLength: Int?
    /// The fewest new tokens (`min_new_tokens`).
    public var minNewTokens: Int?
    /// The fewest tokens, the decoder start token included (`min_length`).
    public var minLength: Int?
    /// Beams (`num_beams`).
    public var beamCount: Int?
    /// Groups of beams (`num_beam_groups`).
    public var beamGroups: Int?
    /// Taken from the score of a token that an earlier group of beams has chosen (`diversity_penalty`).
    public var diversityPenalty: Float?
    /// Exponent of the length that divides a beam's score (`length_penalty`).
    public var lengthPenalty: Float?
    /// When beam search ends (`early_stopping`).
    public var earlyStopping: EarlyStopping?
    /// Whether tokens are drawn at random (`do_sample`).
    public var sampling: Bool?
    /// Divides logits before sampling (`temperature`).
    public var temperature: Float?
    /// Tokens that sampling chooses from (`top_k`).
    public var topK: Int?
    /// Probability mass that sampling chooses from (`top_p`).
    public var topP: Float?
    /// The least probability, relative to the best token's, that sampling chooses from (`min_p`).
    public var minP: Float?
    /// Probability mass of typical tokens that sampling chooses from (`typical_p`).
    public var typicalP: Float?
    /// The least probability that sampling chooses from (`epsilon_cutoff`).
    public var epsilonCutoff: Float?
    /// What the least probability that sampling chooses from is computed from (`eta_cutoff`).
    public var etaCutoff: Float?
    /// Divides the logits of tokens that were already written (`repetition_penalty`).
    public var repetitionPenalty: Float?
    /// Divides the logits of tokens that are not in the input (`encoder_repetition_penalty`).
    public var encoderRepetitionPenalty: Float?
    /// The length of token sequences that occur once at most (`no_repeat_ngram_size`).
    public var noRepeatNgramSize: Int?
    /// The length of the input's token sequences that do not occur (`encoder_no_repeat_ngram_size`).
    public var encoderNoRepeatNgramSize: Int?
    /// Token sequences that do not occur (`bad_words_ids`).
    public var badWords: [[Int]]?
    /// Tokens that are never chosen (`suppress_tokens`).
    public var suppressedTokens: [Int]?
    /// Tokens that are not chosen first (`begin_suppress_tokens`).
    public var beginSuppressedTokens: [Int]?
    /// The first token (`forced_bos_token_id`).
    public var forcedBeginToken: Int?
    /// The tokens one of which is the last at the greatest length (`forced_eos_token_id`).
    public var forcedEndTokens: [Int]?
    /// What sequences of tokens add to scores (`sequence_bias`).
    public var sequenceBias: [SequenceBias]?
    /// How the end's score grows with the length (`exponential_decay_length_penalty`).
    public var lengthDecay: LengthDecay?
    /// Whether scores are made log-probabilities again (`renormalize_logits`).
    public var renormalizesLogits: Bool?
    /// Sequences returned for each request (`num_return_sequences`).
    public var returnedSequences: Int?
    /// Every token that ends a sequence; without any, only the greatest length does.
    public var endTokenIDs: [Int]
    /// The padding token; where the file names none, transformers takes the first end token (`pad_token_id`).
    public var padTokenID: Int?

    /// The name of the file that set them or could have, for messages.
    public var file = ModelConfiguration.generationFile

    /// Makes defaults that set only the end tokens.
    ///
    /// - Parameter endTokenIDs: Every token that ends a sequence.
    public init(endTokenIDs: [Int] = [1]) {
        self.endTokenIDs = endTokenIDs
    }

    /// The most new tokens of a request without a decoder prefix, from whichever of the two limits the file gives;
    /// `max_new_tokens` wins, as in transformers.
    public var newTokenLimit: Int? {
        self.maxNewTokens ?? self.maxLength.map { max(0, $0 - 1) }
    }
}
