// SPDX-License-Identifier: Apache-2.0

public import TensorKernels

extension FloatMatrix {
    /// How likely a given token is, computed as a generation computes it for the tokens that it chooses: from equal
    /// scores it has equal bits.
    ///
    /// - Parameters:
    ///   - id: The token, below the number of columns.
    ///   - row: The row of scores, below `rows`.
    ///   - count: How many of the most likely tokens to name.
    /// - Returns: The natural logarithm of the token's probability, and the most likely tokens, best first; of equal ones
    ///   the lower id comes first.
    public func logprob(of id: Int32, row: Int, top count: Int) -> (logprob: Float, top: [TokenLogprob]) {
        let scores = ScoreRow(scores: UnsafeBufferPointer(self.row(row)))
        let shift = scores.best().map { scores.logSumOfExponentials(greatest: $0.score) } ?? 0
        let logprob = ScoreRow.clamped(scores.scores[Int(id)]) - shift
        guard count > 0 else {
            return (logprob, [])
        }
        var selection = TopSelection(capacity: count)
        scores.offer(to: &selection)
        return (logprob, selection.descending.map { TokenLogprob(id: Int32($0.index), logprob: $0.score - shift) })
    }
}
