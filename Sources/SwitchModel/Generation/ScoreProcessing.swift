// SPDX-License-Identifier: Apache-2.0

/// What changes the scores before a token is chosen: the repetition penalty, then the minimum length.
///
/// The order is that of `_get_logits_processor` in transformers 5.23
/// (https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/generation/utils.py); greedy search and
/// sampling apply it to logits, beam search to log probabilities, as there.
struct ScoreProcessing {
    /// See ``GenerationParameters/repetitionPenalty``.
    let repetitionPenalty: Float

    /// See ``GenerationParameters/minNewTokens``.
    let minNewTokens: Int

    /// The token that a sequence starts from, which counts as held.
    let startTokenID: Int32

    /// The tokens that end a sequence.
    let endTokenIDs: [Int32]

    /// Takes the relevant ones of a request's parameters.
    ///
    /// - Parameters:
    ///   - parameters: The request's parameters.
    ///   - vocabulary: The model's vocabulary.
    init(parameters: GenerationParameters, vocabulary: GenerationVocabulary) {
        self.repetitionPenalty = parameters.repetitionPenalty
        self.minNewTokens = parameters.minNewTokens
        self.startTokenID = vocabulary.startTokenID
        self.endTokenIDs = vocabulary.endTokenIDs
    }

    /// Whether every token but the end tokens keeps its score, so that the best of them stays the best.
    var keepsTokenScores: Bool { self.repetitionPenalty == 1 }

    /// Whether a sequence of this length may end.
    ///
    /// - Parameter length: The number of tokens so far, without the start token.
    /// - Returns: Whether the end token may be chosen next.
    func mayEnd(length: Int) -> Bool { length >= self.minNewTokens }

    /// Whether anything changes for a sequence of this length.
    ///
    /// - Parameter length: The number of tokens so far, without the start token.
    /// - Returns: Whether ``apply(to:original:shift:tokens:)`` would change a score.
    func isActive(length: Int) -> Bool {
        !self.keepsTokenScores || !self.mayEnd(length: length)
    }

    /// Changes a row's scores.
    ///
    /// - Parameters:
    ///   - scores: Receives the changed scores; its old content does not matter.
    ///   - original: The row's scores.
    ///   - shift: Is subtracted from each score first.
    ///   - tokens: The sequence's tokens, without the start token.
    func apply(to scores: inout [Float], original: ScoreRow, shift: Float = 0, tokens: [Int32]) {
        scores.removeAll(keepingCapacity: true)
        scores.append(contentsOf: original.scores)
        if shift != 0 {
            for id in scores.indices { scores[id] -= shift }
        }
        if !self.keepsTokenScores {
            // Computed from the original score, so that a token that occurs twice is penalized once.
            self.penalize(self.startTokenID, in: &scores, original: original, shift: shift)
            for token in tokens {
                self.penalize(token, in: &scores, original: original, shift: shift)
            }
        }
        if !self.mayEnd(length: tokens.count) {
            for id in self.endTokenIDs { scores[Int(id)] = -.infinity }
        }
    }

    private func penalize(_ token: Int32, in scores: inout [Float], original: ScoreRow, shift: Float) {
        let score = original.scores[Int(token)] - shift
        scores[Int(token)] = score < 0 ? score * self.repetitionPenalty : score / self.repetitionPenalty
    }
}
