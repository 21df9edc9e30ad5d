// SPDX-License-Identifier: Apache-2.0

/// What changes the scores before a token is chosen: the repetition penalty, the least length and ``ScoreRules``.
///
/// The order is that of `_get_logits_processor` in transformers 5.23
/// (https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/generation/utils.py); greedy search and
/// sampling apply it to logits, beam search to log probabilities, as there.
struct ScoreProcessing {
    /// See ``GenerationParameters/repetitionPenalty``.
    let repetitionPenalty: Float

    /// See ``GenerationParameters/minNewTokens``.
    let minNewTokens: Int

    /// The tokens before the new ones, which count as held: the start token and the decoder prefix.
    let context: [Int32]

    /// The tokens that end a sequence.
    let endTokenIDs: [Int32]

    /// The further rules; nil where there are none.
    let rules: ScoreRules?

    /// Takes the relevant ones of a request's parameters.
    ///
    /// - Parameters:
    ///   - parameters: The request's parameters.
    ///   - vocabulary: The model's vocabulary.
    ///   - encoderTokens: The encoder's input.
    ///   - decoderPrefix: The tokens between the start token and the first new one.
    init(
        parameters: GenerationParameters,
        vocabulary: GenerationVocabulary,
        encoderTokens: [Int32],
        decoderPrefix: [Int32]
    ) {
        self.repetitionPenalty = parameters.repetitionPenalty
        self.minNewTokens = parameters.minNewTokens
        self.context = [vocabulary.startTokenID] + decoderPrefix
        self.endTokenIDs = vocabulary.endTokenIDs
        self.rules = ScoreRules(
            parameters: parameters,
            vocabulary: vocabulary,
            encoderTokens: encoderTokens,
            hasPrefix: !decoderPrefix.isEmpty
        )
    }

    /// Whether every token but the end tokens keeps its score, so that the best of them stays the best.
    var keepsTokenScores: Bool { self.repetitionPenalty == 1 && self.rules == nil }

    /// Whether a sequence of this length may end.
    ///
    /// - Parameter length: The number of new tokens so far.
    /// - Returns: Whether the end tokens may be chosen next.
    func mayEnd(length: Int) -> Bool { length >= self.minNewTokens }

    /// Whether anything changes for a sequence of this length.
    ///
    /// - Parameter length: The number of new tokens so far.
    /// - Returns: Whether ``apply(to:original:shift:tokens:)`` may change a score.
    func isActive(length: Int) -> Bool {
        !self.keepsTokenScores || !self.mayEnd(length: length)
    }

    /// Changes a row's scores.
    ///
    /// - Parameters:
    ///   - scores: Receives the changed scores; its old content does not matter.
    ///   - original: The row's scores.
    ///   - shift: Is subtracted from each score first.
    ///   - tokens: The sequence's new tokens.
    ///   - diversity: What a group beam search takes from the scores of tokens that earlier groups have chosen.
    func apply(
        to scores: inout [Float],
        original: ScoreRow,
        shift: Float = 0,
        tokens: [Int32],
        diversity: [Int32: Float] = [:]
    ) {
        scores.removeAll(keepingCapacity: true)
        scores.append(contentsOf: original.scores)
        if shift != 0 {
            for id in scores.indices { scores[id] -= shift }
        }
        let history = self.rules == nil ? [] : self.context + tokens
        if self.rules?.hasBiases == true || !diversity.isEmpty {
            self.rules?.applySequenceBias(to: &scores, history: history)
            for (token, amount) in diversity { scores[Int(token)] -= amount }
            self.rules?.applyEncoderPenalty(to: &scores)
            if self.repetitionPenalty != 1 {
                let biased = scores
                self.penalize(tokens, in: &scores) { biased[$0] }
            }
        } else if self.repetitionPenalty != 1 {
            self.penalize(tokens, in: &scores) { original.scores[$0] - shift }
        }
        self.rules?.applyBans(to: &scores, history: history)
        if !self.mayEnd(length: tokens.count) {
            for id in self.endTokenIDs { scores[Int(id)] = -.infinity }
        }
        self.rules?.applyLimits(to: &scores, length: tokens.count)
    }

    /// Penalizes what a sequence holds.
    ///
    /// Computed from the score before, so that a token that occurs twice is penalized once.
    private func penalize(_ tokens: [Int32], in scores: inout [Float], before: (Int) -> Float) {
        for index in 0..<(self.context.count + tokens.count) {
            let isGiven = index < self.context.count
            let token = Int(isGiven ? self.context[index] : tokens[index - self.context.count])
            let score = before(token)
            scores[token] = score < 0 ? score * self.repetitionPenalty : score / self.repetitionPenalty
        }
    }
}
