// SPDX-License-Identifier: Apache-2.0

public import Checkpoints

/// When a beam search may stop before its longest sequence is complete.
public typealias EarlyStopping = GenerationDefaults.EarlyStopping

/// How tokens are chosen; every default is that of transformers' `generate()`.
///
/// Without ``sampling``, one beam is greedy search and more are beam search; with it, one beam is sampling and more are
/// a beam search that draws continuations.
public struct GenerationParameters: Sendable, Equatable {
    /// At most this many tokens are generated, counting the end token but not the start token.
    public var maxNewTokens = 20

    /// The end token is not chosen before this many tokens.
    public var minNewTokens = 0

    /// The number of beams; 1 means no beam search.
    public var beamCount = 1

    /// A sequence's score is its log probability divided by this power of its length, so a positive one favours longer
    /// sequences.
    public var lengthPenalty: Float = 1

    /// When a beam search may stop.
    public var earlyStopping = EarlyStopping.heuristic

    /// Whether tokens are drawn at random.
    public var sampling = false

    /// What the scores are divided by before tokens are drawn.
    public var temperature: Float = 1

    /// Tokens are drawn from this many of the most probable (and those tied with the last of them); 0 is unlimited.
    public var topK = 50

    /// Tokens are drawn from the fewest most probable ones that together have at least this probability.
    public var topP: Float = 1

    /// Positive scores of the tokens that a sequence holds, the start token included, are divided by this, and negative
    /// ones multiplied.
    public var repetitionPenalty: Float = 1

    /// The seed of the draws: the same seed, parameters and scores give the same tokens on any machine.
    public var seed: UInt64 = 0

    /// How many sequences are returned: draws, or the best beams.
    public var returnedSequences = 1

    /// How many of the most probable tokens are reported for each token; not available in a beam search.
    public var topLogprobs = 0

    /// Whether neither scores nor log probabilities are needed: both are then 0, except in a beam search, which needs
    /// them.
    ///
    /// Greedy search then leaves out the logits of tokens that cannot be the best. The tokens are the same.
    public var skipsScores = false

    /// No sequence of this many tokens occurs twice, the start token and a decoder prefix included; 0 is no limit.
    public var noRepeatNgramSize = 0

    /// No sequence of this many tokens that the encoder's input holds is generated; 0 is no limit.
    public var encoderNoRepeatNgramSize = 0

    /// Sequences of tokens that are not generated.
    ///
    /// One that is only an end token is left out, as in transformers; only such ones are refused, as there.
    public var badWords: [[Int32]] = []

    /// Tokens that are never generated.
    public var suppressedTokens: [Int32] = []

    /// Tokens that are not generated in the first place; in the second where ``forcedBeginToken`` fills the first.
    public var beginSuppressedTokens: [Int32] = []

    /// The first token after the start token; of no effect with a decoder prefix, as in transformers.
    public var forcedBeginToken: Int32?

    /// The only tokens that the last place, ``maxNewTokens``, may hold; empty for any.
    public var forcedEndTokens: [Int32] = []

    /// What is added to the scores of tokens that would complete a sequence.
    public var sequenceBias: [SequenceBias] = []

    /// How the end tokens' scores rise with a sequence's length; nil if they do not.
    public var lengthDecay: LengthDecay?

    /// Tokens are drawn from those at least this probable, relative to the most probable one; nil is off.
    public var minP: Float?

    /// Tokens are drawn from the most typical ones that together have at least this probability; 1 is off.
    public var typicalP: Float = 1

    /// Tokens are drawn from those at least this probable; 0 is off.
    public var epsilonCutoff: Float = 0

    /// Tokens are drawn from those at least as probable as this or a bound that falls with the entropy; 0 is off.
    public var etaCutoff: Float = 0

    /// The scores of the encoder's input tokens rise with this: negative ones are divided by it, positive ones
    /// multiplied.
    public var encoderRepetitionPenalty: Float = 1

    /// The number of groups that the beams of a diverse beam search fall into; divides the beams, and 1 is a plain beam search.
    public var beamGroups = 1

    /// What a diverse beam search subtracts from a token's score for each beam of an earlier group that chose it.
    public var diversityPenalty: Float = 0

    /// Whether the scores become log probabilities again after all processing.
    public var renormalizesLogits = false

    /// Creates parameters with the defaults.
    public init() {}

    /// The largest value of ``maxNewTokens``.
    public static let maximumNewTokens = 65_536

    /// The largest value of ``beamCount``, ``returnedSequences`` and ``topLogprobs``.
    public static let maximumWidth = 1_024

    /// Checks every parameter and their combination; what only sampling reads, only where tokens are drawn.
    ///
    /// - Throws: `GenerationError` that names the first invalid parameter, its limit and its value.
    public func validate() throws(GenerationError) {
        try Self.check("max_new_tokens", self.maxNewTokens, in: 1...Self.maximumNewTokens)
        try Self.check("min_new_tokens", self.minNewTokens, in: 0...self.maxNewTokens)
        try Self.check("num_beams", self.beamCount, in: 1...Self.maximumWidth)
        try Self.check("num_return_sequences", self.returnedSequences, in: 1...Self.maximumWidth)
        try Self.check("top_logprobs", self.topLogprobs, in: 0...Self.maximumWidth)
        guard self.lengthPenalty.isFinite else {
            throw GenerationError(field: "length_penalty", message: "must be finite, but is \(self.lengthPenalty)")
        }
        try Self.checkPositive("repetition_penalty", self.repetitionPenalty)
        try self.checkRules()
        if self.sampling { try self.checkSampling() }
        try self.checkCombination()
    }

    private func checkCombination() throws(GenerationError) {
        guard !self.skipsScores || self.topLogprobs == 0 else {
            throw GenerationError(
                field: "skip_scores",
                message: "cannot be combined with top_logprobs of \(self.topLogprobs); ask for one of them"
            )
        }
        if self.beamCount > 1 {
            guard self.returnedSequences <= self.beamCount else {
                throw GenerationError(
                    field: "num_return_sequences",
                    message: "must be at most num_beams, \(self.beamCount), but is \(self.returnedSequences)"
                )
            }
            guard self.topLogprobs == 0 else {
                throw GenerationError(
                    field: "top_logprobs",
                    message: "must be 0 with num_beams of \(self.beamCount), but is \(self.topLogprobs)"
                )
            }
        } else if !self.sampling, self.returnedSequences > 1 {
            throw GenerationError(
                field: "num_return_sequences",
                message: "must be 1 in greedy search, but is \(self.returnedSequences); set do_sample or num_beams"
            )
        }
    }

    static func check(_ field: String, _ value: Int, in range: ClosedRange<Int>) throws(GenerationError) {
        guard range.contains(value) else {
            throw GenerationError(
                field: field,
                message: "must be within \(range.lowerBound)...\(range.upperBound), but is \(value)"
            )
        }
    }

    static func checkPositive(_ field: String, _ value: Float) throws(GenerationError) {
        guard value > 0, value.isFinite else {
            throw GenerationError(field: field, message: "must be positive and finite, but is \(value)")
        }
    }
}
