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

    /// The most likely tokens of a row at a temperature, for a student to learn from.
    ///
    /// - Parameters:
    ///   - row: The row of scores, below `rows`.
    ///   - count: How many tokens to name, from 1 to the number of columns; of equal ones the lower id comes first.
    ///   - temperature: What scores are divided by first, above 0.
    ///   - tokens: Receives the ids, ascending.
    ///   - logprobs: Receives the natural logarithms of their probabilities at the temperature.
    public func appendLogprobs(
        row: Int,
        top count: Int,
        temperature: Float,
        to tokens: inout [Int32],
        _ logprobs: inout [Float]
    ) {
        var scaled = [Float](UnsafeBufferPointer(self.row(row)))
        if temperature != 1 { for index in scaled.indices { scaled[index] /= temperature } }
        scaled.withUnsafeBufferPointer { values in
            let scores = ScoreRow(scores: values)
            let shift = scores.best().map { scores.logSumOfExponentials(greatest: $0.score) } ?? 0
            guard count < values.count else {
                tokens += (0..<Int32(values.count))
                logprobs += values.lazy.map { ScoreRow.clamped($0) - shift }
                return
            }
            var selection = TopSelection(capacity: count)
            scores.offer(to: &selection)
            let chosen = selection.descending.sorted { $0.index < $1.index }
            tokens += chosen.lazy.map { Int32($0.index) }
            logprobs += chosen.lazy.map { $0.score - shift }
        }
    }
}
