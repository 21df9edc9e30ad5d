// SPDX-License-Identifier: Apache-2.0

internal import TensorKernels

/// The four projections of an attention sublayer.
///
/// `inner` is `heads * d_kv`.
struct AttentionWeights: Sendable {
    /// `[inner, d_model]`.
    let query: PackedMatrix

    /// `[inner, d_model]`.
    let key: PackedMatrix

    /// `[inner, d_model]`.
    let value: PackedMatrix

    /// `[d_model, inner]`.
    let output: PackedMatrix

    /// The projections' biases; nil in T5, which has none.
    var biases: Biases?

    /// What queries are multiplied with, their bias included; 1 in T5, which folds it into the initialisation.
    var queryScale: Float = 1

    /// What the four projections add.
    struct Biases: Sendable {
        /// `[1, inner]`.
        let query: RowBias
        /// `[1, inner]`.
        let key: RowBias
        /// `[1, inner]`.
        let value: RowBias
        /// `[1, d_model]`.
        let output: RowBias
    }

    /// Computes all tokens' queries, keys and values.
    ///
    /// - Parameters:
    ///   - input: `[tokens, d_model]`.
    ///   - queries: Room for `[tokens, inner]`.
    ///   - keys: Room for `[tokens, inner]`.
    ///   - values: Room for `[tokens, inner]`.
    ///   - pool: Threads that share the work.
    func project(
        _ input: FloatMatrix,
        queries: FloatMatrix,
        keys: FloatMatrix,
        values: FloatMatrix,
        pool: WorkPool
    ) {
        pool.run(
            Product(self.query, input, into: queries),
            Product(self.key, input, into: keys),
            Product(self.value, input, into: values)
        )
        if let biases {
            biases.query.add(to: queries, scale: self.queryScale, pool: pool)
            biases.key.add(to: keys, pool: pool)
            biases.value.add(to: values, pool: pool)
        } else if self.queryScale != 1 {
            let count = queries.rows * queries.columns
            Residual.scale(queries.pointer, by: self.queryScale, count: count, into: queries.pointer)
        }
    }

    /// Projects the contexts of all heads back to the width of a hidden state.
    ///
    /// - Parameters:
    ///   - context: `[tokens, inner]`.
    ///   - output: Room for `[tokens, d_model]`.
    ///   - pool: Threads that share the work.
    func finish(_ context: FloatMatrix, into output: FloatMatrix, pool: WorkPool) {
        pool.run(Product(self.output, context, into: output))
        self.biases?.output.add(to: output, pool: pool)
    }

    /// Elements of all heads' queries of one token.
    var innerWidth: Int {
        self.query.outputs
    }
}
