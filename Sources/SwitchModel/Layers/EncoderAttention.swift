// SPDX-License-Identifier: Apache-2.0

internal import TensorKernels

/// The encoder's self-attention over concatenated sequences, each of which attends only to itself.
///
/// `softmax(Q K^T + bias) V`, scores unscaled but for ``AttentionWeights/queryScale``.
struct EncoderAttention: Sendable {
    let weights: AttentionWeights
    let headCount: Int
    let keyWidth: Int

    /// Queries whose scores are computed together.
    private static let queryBlock = 64

    /// One block of queries of one head of one sequence.
    private struct Block {
        let firstRow: Int
        let length: Int
        let head: Int
        let queries: Range<Int>
    }

    /// Computes the sublayer without its residual.
    ///
    /// - Parameters:
    ///   - input: `[tokens, d_model]`, the sequences one after another.
    ///   - lengths: Tokens of each sequence.
    ///   - bias: Biases for at least the longest sequence; nil in a model without them.
    ///   - pool: Threads that share the work.
    /// - Returns: `[tokens, d_model]`.
    func callAsFunction(
        _ input: FloatMatrix,
        lengths: [Int],
        bias: RelativeBias.Span?,
        pool: WorkPool
    ) -> FloatMatrix {
        let inner = self.weights.innerWidth
        let queries = FloatMatrix(uninitializedRows: input.rows, columns: inner)
        let keys = FloatMatrix(uninitializedRows: input.rows, columns: inner)
        let values = FloatMatrix(uninitializedRows: input.rows, columns: inner)
        self.weights.project(input, queries: queries, keys: keys, values: values, pool: pool)
        let context = FloatMatrix(uninitializedRows: input.rows, columns: inner)
        let floats = SequenceAttention.scratchFloats(
            queries: EncoderAttention.queryBlock,
            keys: lengths.max() ?? 0,
            width: self.keyWidth
        )
        pool.run(lengths.reduce(0) { $0 + self.headCount * $1 * $1 }) { costs in
            let scratch = FloatMatrix(uninitializedRows: 1, columns: floats)
            var head: SequenceAttention?
            self.forEachBlock(in: costs, lengths: lengths) { block, isFirst in
                let offset = block.firstRow * inner + block.head * self.keyWidth
                let attention =
                    (isFirst ? nil : head)
                    ?? SequenceAttention(
                        keys: keys.pointer + offset,
                        values: values.pointer + offset,
                        count: block.length,
                        stride: inner,
                        width: self.keyWidth,
                        scratch: scratch.pointer
                    )
                head = attention
                let first = block.queries.lowerBound
                attention.attend(
                    queries.pointer + offset + first * inner,
                    count: block.queries.count,
                    bias: bias?.row(head: block.head, position: first),
                    into: context.pointer + offset + first * inner
                )
            }
            withExtendedLifetime(scratch) {}
        }
        let output = FloatMatrix(uninitializedRows: input.rows, columns: self.weights.output.outputs)
        self.weights.finish(context, into: output, pool: pool)
        return output
    }

    /// Names the blocks that begin in a range of costs, a block costing its queries times its keys.
    ///
    /// - Parameters:
    ///   - costs: The range.
    ///   - lengths: Tokens of each sequence.
    ///   - body: Takes a block, and whether the one before it was of another head or sequence.
    private func forEachBlock(in costs: Range<Int>, lengths: [Int], body: (Block, Bool) -> Void) {
        var start = 0
        var firstRow = 0
        for length in lengths where start < costs.upperBound {
            defer {
                start += self.headCount * length * length
                firstRow += length
            }
            guard start + self.headCount * length * length > costs.lowerBound else { continue }
            for head in 0..<self.headCount {
                var isFirst = true
                for query in stride(from: 0, to: length, by: EncoderAttention.queryBlock) {
                    guard costs.contains(start + (head * length + query) * length) else { continue }
                    let queries = query..<min(query + EncoderAttention.queryBlock, length)
                    body(Block(firstRow: firstRow, length: length, head: head, queries: queries), isFirst)
                    isFirst = false
                }
            }
        }
    }
}
