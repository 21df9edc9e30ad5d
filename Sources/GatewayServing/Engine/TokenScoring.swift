// SPDX-License-Identifier: Apache-2.0

internal import SwitchModel
internal import TensorKernels

/// Log-probabilities of given tokens.
enum TokenScoring {
    /// Computes how likely each token of a target is, with the bits that a generation's log-probabilities have.
    ///
    /// - Parameters:
    ///   - target: The tokens' ids, each below the number of columns.
    ///   - logits: `[target.count, vocabulary]` float32; row `i` is the model's prediction for position `i`.
    ///   - count: How many of the most likely tokens to name at each position.
    /// - Returns: One entry for each token.
    static func scores(of target: [Int32], logits: FloatMatrix, topLogprobs count: Int) -> [TokenScore] {
        precondition(logits.rows == target.count, "\(logits.rows) rows of logits for \(target.count) tokens")
        return target.enumerated()
            .map { place, id in
                let (logprob, top) = logits.logprob(of: id, row: place, top: count)
                return TokenScore(id: id, logprob: logprob, topLogprobs: top)
            }
    }
}
