// SPDX-License-Identifier: Apache-2.0

internal import SwitchModel
internal import TensorKernels

/// Log-probabilities of given tokens.
enum TokenScoring {
    /// Computes how likely each token of a target is, with the bits that a generation's log-probabilities have.
    ///
    /// - Parameters:
    ///   - target: The tokens' ids, each below the number of columns.
    ///   - logits: `[rows, vocabulary]` float32; row `firstRow + i` is the model's prediction for position `i`.
    ///   - firstRow: The target's first row.
    ///   - count: How many of the most likely tokens to name at each position.
    /// - Returns: One entry for each token.
    static func scores(
        of target: [Int32],
        logits: FloatMatrix,
        firstRow: Int = 0,
        topLogprobs count: Int
    ) -> [TokenScore] {
        precondition(
            firstRow >= 0 && firstRow + target.count <= logits.rows,
            "\(logits.rows) rows of logits for \(target.count) tokens from row \(firstRow)"
        )
        return target.enumerated()
            .map { place, id in
                let (logprob, top) = logits.logprob(of: id, row: firstRow + place, top: count)
                return TokenScore(id: id, logprob: logprob, topLogprobs: top)
            }
    }

    /// The most likely tokens of some rows of logits.
    static func distributions(
        _ options: DistributionOptions,
        rows: Range<Int>,
        of logits: FloatMatrix
    ) -> TokenDistributions {
        var result = TokenDistributions(tokens: options.tokens)
        for row in rows {
            logits.appendLogprobs(
                row: row,
                top: options.tokens,
                temperature: options.temperature,
                to: &result.ids,
                &result.logprobs
            )
        }
        return result
    }

    /// Copies some rows of logits; all rows are the matrix itself.
    static func rows(_ rows: Range<Int>, of logits: FloatMatrix) -> FloatMatrix {
        guard rows != 0..<logits.rows else { return logits }
        let copy = FloatMatrix(uninitializedRows: rows.count, columns: logits.columns)
        for (index, row) in rows.enumerated() {
            copy.row(index).baseAddress?.update(from: logits.pointer + row * logits.columns, count: logits.columns)
        }
        return copy
    }
}
