// SPDX-License-Identifier: Apache-2.0

internal import TensorKernels

/// Where a decoder token stands: in which row's cache, and at which position.
struct DecoderPosition: Sendable {
    let row: Int
    let position: Int
}

/// The decoder's causal self-attention over cached keys and values.
///
/// Each token of each head is computed alone, in the order of its keys. So a token's output does not depend on its
/// neighbours, nor on whether the tokens of a row came one by one or together.
struct DecoderSelfAttention {
    let weights: AttentionWeights
    let headCount: Int
    let keyWidth: Int
    let block: Int

    /// Computes the sublayer without its residual, and puts the tokens' keys and values into their caches.
    ///
    /// - Parameters:
    ///   - input: `[tokens, d_model]`.
    ///   - positions: The place of each token.
    ///   - caches: One a row, with room for the tokens.
    ///   - bias: Biases up to the highest position.
    ///   - pool: Threads that share the work.
    /// - Returns: `[tokens, d_model]`.
    func callAsFunction(
        _ input: FloatMatrix,
        positions: [DecoderPosition],
        caches: [DecoderCache],
        bias: RelativeBias.Span,
        pool: WorkPool
    ) -> FloatMatrix {
        let inner = self.weights.innerWidth
        let queries = FloatMatrix(uninitializedRows: input.rows, columns: inner)
        let keys = FloatMatrix(uninitializedRows: input.rows, columns: inner)
        let values = FloatMatrix(uninitializedRows: input.rows, columns: inner)
        pool.run([
            Product(self.weights.query, input, into: queries),
            Product(self.weights.key, input, into: keys),
            Product(self.weights.value, input, into: values),
        ])
        for (token, place) in positions.enumerated() {
            caches[place.row]
                .store(
                    keys: keys.row(token),
                    values: values.row(token),
                    block: self.block,
                    position: place.position
                )
        }
        let context = FloatMatrix(rows: input.rows, columns: inner)
        let longest = (positions.map(\.position).max() ?? 0) + 1
        let items = positions.count * self.headCount
        pool.run(items) { range in
            let scores = FloatMatrix(uninitializedRows: 1, columns: longest)
            for item in range {
                let token = item / self.headCount
                let head = item % self.headCount
                let place = positions[token]
                let offset = token * inner + head * self.keyWidth
                let biases = bias.row(head: head, position: place.position)
                let runs = caches[place.row].runs(block: self.block, count: place.position + 1)
                for run in runs {
                    SingleQueryAttention.scores(
                        query: queries.pointer + offset,
                        keys: run.keys + head * self.keyWidth,
                        stride: inner,
                        width: self.keyWidth,
                        count: run.count,
                        bias: biases + run.start,
                        into: scores.pointer + run.start
                    )
                }
                Softmax.apply(scores.pointer, count: place.position + 1)
                for run in runs {
                    SingleQueryAttention.accumulateContext(
                        weights: scores.pointer + run.start,
                        values: run.values + head * self.keyWidth,
                        stride: inner,
                        width: self.keyWidth,
                        count: run.count,
                        into: context.pointer + offset
                    )
                }
            }
        }
        let output = FloatMatrix(uninitializedRows: input.rows, columns: self.weights.output.outputs)
        pool.run([Product(self.weights.output, context, into: output)])
        return output
    }
}

/// The decoder's attention over an encoded sequence, whose keys and values were computed when it was encoded.
///
/// It has no position bias.
struct CrossAttention {
    let weights: AttentionWeights
    let headCount: Int
    let keyWidth: Int
    let block: Int

    /// Computes the sublayer without its residual.
    ///
    /// - Parameters:
    ///   - input: `[tokens, d_model]`.
    ///   - positions: The place of each token.
    ///   - sequences: The encoded sequence of each row.
    ///   - pool: Threads that share the work.
    /// - Returns: `[tokens, d_model]`.
    func callAsFunction(
        _ input: FloatMatrix,
        positions: [DecoderPosition],
        sequences: [EncodedSequence],
        pool: WorkPool
    ) -> FloatMatrix {
        let inner = self.weights.innerWidth
        let queries = FloatMatrix(uninitializedRows: input.rows, columns: inner)
        pool.run([Product(self.weights.query, input, into: queries)])
        let context = FloatMatrix(rows: input.rows, columns: inner)
        let longest = sequences.map(\.tokenCount).max() ?? 0
        pool.run(positions.count * self.headCount) { range in
            let scores = FloatMatrix(uninitializedRows: 1, columns: longest)
            for item in range {
                let token = item / self.headCount
                let head = item % self.headCount
                let sequence = sequences[positions[token].row]
                let offset = token * inner + head * self.keyWidth
                let keys = sequence.crossKeys[self.block]
                let values = sequence.crossValues[self.block]
                SingleQueryAttention.scores(
                    query: queries.pointer + offset,
                    keys: keys.pointer + head * self.keyWidth,
                    stride: inner,
                    width: self.keyWidth,
                    count: keys.rows,
                    bias: nil,
                    into: scores.pointer
                )
                Softmax.apply(scores.pointer, count: keys.rows)
                SingleQueryAttention.accumulateContext(
                    weights: scores.pointer,
                    values: values.pointer + head * self.keyWidth,
                    stride: inner,
                    width: self.keyWidth,
                    count: values.rows,
                    into: context.pointer + offset
                )
            }
        }
        let output = FloatMatrix(uninitializedRows: input.rows, columns: self.weights.output.outputs)
        pool.run([Product(self.weights.output, context, into: output)])
        return output
    }
}
