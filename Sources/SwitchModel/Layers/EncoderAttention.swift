// SPDX-License-Identifier: Apache-2.0

internal import TensorKernels

/// The encoder's self-attention over concatenated sequences, each of which attends only to itself.
///
/// `softmax(Q K^T + bias) V`, scores unscaled but for ``AttentionWeights/queryScale``. Products inside a sequence
/// go through OpenBLAS in blocks whose shape depends only on that sequence's length.
struct EncoderAttention: Sendable {
    let weights: AttentionWeights
    let headCount: Int
    let keyWidth: Int

    /// Queries whose scores are computed together.
    private static let queryBlock = 64

    /// One block of one head of one sequence.
    private struct Item {
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
        let items = self.items(lengths: lengths)
        let longest = lengths.max() ?? 0
        pool.run(items.count) { range in
            let scores = FloatMatrix(uninitializedRows: EncoderAttention.queryBlock, columns: longest)
            for item in items[range] {
                self.attend(
                    item,
                    queries: queries,
                    keys: keys,
                    values: values,
                    bias: bias,
                    scores: scores,
                    context: context
                )
            }
        }
        let output = FloatMatrix(uninitializedRows: input.rows, columns: self.weights.output.outputs)
        self.weights.finish(context, into: output, pool: pool)
        return output
    }

    private func items(lengths: [Int]) -> [Item] {
        var items: [Item] = []
        var firstRow = 0
        for length in lengths {
            for head in 0..<self.headCount {
                for start in stride(from: 0, to: length, by: EncoderAttention.queryBlock) {
                    let block = start..<min(start + EncoderAttention.queryBlock, length)
                    items.append(Item(firstRow: firstRow, length: length, head: head, queries: block))
                }
            }
            firstRow += length
        }
        return items
    }

    private func attend(
        _ item: Item,
        queries: FloatMatrix,
        keys: FloatMatrix,
        values: FloatMatrix,
        bias: RelativeBias.Span?,
        scores: FloatMatrix,
        context: FloatMatrix
    ) {
        let inner = queries.columns
        let sequence = item.firstRow * inner + item.head * self.keyWidth
        let block = (item.firstRow + item.queries.lowerBound) * inner + item.head * self.keyWidth
        BLAS.multiplyTransposed(
            queries.pointer + block,
            leftStride: inner,
            keys.pointer + sequence,
            rightStride: inner,
            into: scores.pointer,
            outputStride: item.length,
            m: item.queries.count,
            n: item.length,
            k: self.keyWidth
        )
        for (index, position) in item.queries.enumerated() {
            let row = scores.pointer + index * item.length
            if let bias {
                Residual.add(bias.row(head: item.head, position: position), to: row, count: item.length)
            }
            Softmax.apply(row, count: item.length)
        }
        BLAS.multiply(
            scores.pointer,
            leftStride: item.length,
            values.pointer + sequence,
            rightStride: inner,
            into: context.pointer + block,
            outputStride: inner,
            m: item.queries.count,
            n: self.keyWidth,
            k: item.length
        )
    }
}
