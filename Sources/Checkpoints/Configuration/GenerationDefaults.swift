// SPDX-License-Identifier: Apache-2.0

/// What a checkpoint's `generation_config.json` asks of generation where a request does not say; `nil` where it is
/// silent.
///
/// Where a checkpoint has no such file, the same keys of `config.json` stand in for it, as in transformers.
public struct GenerationDefaults: Sendable, Equatable {
    /// When beam search ends.
    public enum EarlyStopping: Sendable, Hashable {
        /// As soon as there are enough finished beams (`true`).
        case always
        /// When better beams are unlikely (`false`).
        case heuristic
        /// Only when better beams are impossible (`"never"`).
        case never
    }

    /// New tokens at most (`max_new_tokens`).
    public var maxNewTokens: Int?
    /// Tokens at most, the decoder start token among them (`max_length`).
    public var maxLength: Int?
    /// New tokens at least (`min_new_tokens`).
    public var minNewTokens: Int?
    /// Tokens at least, the decoder start token among them (`min_length`).
    public var minLength: Int?
    /// Beams (`num_beams`).
    public var beamCount: Int?
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
    /// Divides the logits of tokens that were already written (`repetition_penalty`).
    public var repetitionPenalty: Float?
    /// Sequences returned for each request (`num_return_sequences`).
    public var returnedSequences: Int?
    /// Every token that ends a sequence; the first is `ModelConfiguration.endTokenID`.
    public var endTokenIDs: [Int]

    /// Makes defaults that are silent about everything but the end token.
    ///
    /// - Parameter endTokenIDs: Every token that ends a sequence.
    public init(endTokenIDs: [Int] = [1]) {
        self.endTokenIDs = endTokenIDs
    }

    /// New tokens at most, from whichever of the two limits the file gives; `max_new_tokens` wins, as in transformers.
    public var newTokenLimit: Int? {
        self.maxNewTokens ?? self.maxLength.map { max(0, $0 - 1) }
    }
}
