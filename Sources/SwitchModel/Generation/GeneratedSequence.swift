// SPDX-License-Identifier: Apache-2.0

/// Why a sequence ended.
public enum FinishReason: Sendable, Hashable, CaseIterable {
    /// Its last token is the end token.
    case endOfSequence

    /// It has as many tokens as were asked for.
    case length

    /// Its caller ended it, for a stop string.
    case stop
}

/// A token and how probable the model thinks it.
public struct TokenLogprob: Sendable, Hashable {
    /// The token's id.
    public var id: Int32

    /// The natural logarithm of its probability under the model's own distribution, before penalties, temperature and
    /// limits.
    public var logprob: Float

    /// Creates a pair.
    ///
    /// - Parameters:
    ///   - id: The token's id.
    ///   - logprob: The natural logarithm of its probability.
    public init(id: Int32, logprob: Float) {
        self.id = id
        self.logprob = logprob
    }
}

/// A token that a step of greedy search or sampling chose.
public struct EmittedToken: Sendable, Hashable {
    /// Which sequence the token belongs to; its place in ``GenerationSession/results`` once all are finished.
    public var sequence: Int

    /// The next step's row that continues the sequence, or nil when the sequence ends with this token.
    public var row: Int?

    /// The token's id.
    public var id: Int32

    /// The natural logarithm of its probability under the model's own distribution.
    public var logprob: Float

    /// The most probable tokens in this place, best first, as many as were asked for.
    public var topLogprobs: [TokenLogprob]
}

/// A finished sequence.
public struct GeneratedSequence: Sendable, Hashable {
    /// The tokens without the start token, the end token included where there is one.
    public var tokenIDs: [Int32]

    /// Why it ended.
    public var finishReason: FinishReason

    /// The sum of the log probabilities divided by the length to the power of the length penalty.
    ///
    /// In a beam search the probabilities are those after the repetition penalty and the least length, as in
    /// transformers' `sequences_scores`; otherwise they are the model's own. Without scores
    /// (``GenerationParameters/skipsScores``) it is 0, except in a beam search.
    public var score: Float

    /// Each token's log probability under the model's own distribution.
    public var logprobs: [Float]

    /// For each token the most probable ones in its place; empty unless they were asked for.
    public var topLogprobs: [[TokenLogprob]]

    /// For each token the row of its step whose scores it was chosen from.
    public var rows: [Int] = []
}
