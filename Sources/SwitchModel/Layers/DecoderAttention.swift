// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes
internal import TensorKernels

/// A decoder token's place: its row's cache, and its position.
struct DecoderPosition: Sendable {
    let row: Int
    let position: Int
}

/// The decoder's causal self-attention over cached keys and values.
///
/// Each token of each head is computed alone, in the order of its keys. So a token's output does not depend on its
/// neighbours, nor on whether a row's tokens came one by one or together.
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
    ///   - caches: One per row, with room for the tokens.
    ///   - bias: Biases up to the highest position; nil in a model without them.
    ///   - pool: Threads that share the work.
    /// - Returns: `[tokens, d_model]`.
    func callAsFunction(
        _ input: FloatMatrix,
        positions: [DecoderPosition],
        caches: [DecoderCache],
        bias: RelativeBias.Span?,
        pool: WorkPool
    ) -> FloatMatrix {
        let inner = self.weights.innerWidth
        let queries = FloatMatrix.temporary(rows: input.rows, columns: inner)
        let keys = FloatMatrix.temporary(rows: input.rows, columns: inner)
        let values = FloatMatrix.temporary(rows: input.rows, columns: inner)
        self.weights.project(input, queries: queries, keys: keys, values: values, pool: pool)
        for (token, place) in positions.enumerated() {
            caches[place.row]
                .store(
                    keys: keys.row(token),
                    values: values.row(token),
                    block: self.block,
                    position: place.position
                )
        }
        let context = FloatMatrix.temporary(rows: input.rows, columns: inner)
        context.pointer.update(repeating: 0, count: input.rows * inner)
        let longest = positions.reduce(0) { max($0, $1.position) } + 1
        pool.runWithScratch(positions.count * self.headCount, floats: longest) { range, scores in
            for item in range {
                let place = positions[item / self.headCount]
                let head = item % self.headCount
                let offset = item / self.headCount * inner + head * self.keyWidth
                let cache = caches[place.row]
                let count = place.position + 1
                let biases = bias?.row(head: head, position: place.position)
                let runs = cache.runCount(tokens: count)
                for index in 0..<runs {
                    let run = cache.run(index, block: self.block, head: head, tokens: count)
                    SingleQueryAttention.scores(
                        query: queries.pointer + offset,
                        keys: run.keys,
                        type: cache.type,
                        stride: self.keyWidth,
                        width: self.keyWidth,
                        count: run.count,
                        bias: biases.map { $0 + run.start },
                        into: scores + run.start
                    )
                }
                Softmax.apply(scores, count: count)
                for index in 0..<runs {
                    let run = cache.run(index, block: self.block, head: head, tokens: count)
                    SingleQueryAttention.accumulateContext(
                        weights: scores + run.start,
                        values: run.values,
                        type: cache.type,
                        stride: self.keyWidth,
                        width: self.keyWidth,
                        count: run.count,
                        into: context.pointer + offset
                    )
                }
            }
        }
        let output = FloatMatrix.temporary(rows: input.rows, columns: self.weights.output.outputs)
        self.weights.finish(context, into: output, pool: pool)
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
        let queries = FloatMatrix.temporary(rows: input.rows, columns: inner)
        pool.run(Product(self.weights.query, input, into: queries))
        let context = FloatMatrix.temporary(rows: input.rows, columns: inner)
        context.pointer.update(repeating: 0, count: input.rows * inner)
        let longest = sequences.reduce(0) { max($0, $1.tokenCount) }
        pool.runWithScratch(positions.count * self.headCount, floats: longest) { range, scores in
            for item in range {
                let sequence = sequences[positions[item / self.headCount].row]
                let head = item % self.headCount
                let offset = item / self.headCount * inner + head * self.keyWidth
                let count = sequence.tokenCount
                let keys = sequence.crossKeys[self.block]
                let values = sequence.crossValues[self.block]
                SingleQueryAttention.scores(
                    query: queries.pointer + offset,
                    keys: keys.address(row: head * count),
                    type: keys.type,
                    stride: self.keyWidth,
                    width: self.keyWidth,
                    count: count,
                    bias: nil,
                    into: scores
                )
                Softmax.apply(scores, count: count)
                SingleQueryAttention.accumulateContext(
                    weights: scores,
                    values: values.address(row: head * count),
                    type: values.type,
                    stride: self.keyWidth,
                    width: self.keyWidth,
                    count: count,
                    into: context.pointer + offset
                )
            }
        }
        let output = FloatMatrix.temporary(rows: input.rows, columns: self.weights.output.outputs)
        self.weights.finish(context, into: output, pool: pool)
        return output
    }
}
