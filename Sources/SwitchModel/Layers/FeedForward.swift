// SPDX-License-Identifier: Apache-2.0

internal import TensorKernels

/// A dense feed-forward sublayer: `wo(relu(wi x))`.
struct FeedForward: Sendable {
    /// `[d_ff, d_model]`.
    let wi: PackedMatrix

    /// `[d_model, d_ff]`.
    let wo: PackedMatrix

    /// Elements between the inner activation's rows.
    ///
    /// Rows a multiple of 4 KiB apart would all fall into the same set of the first-level cache, which holds eight of
    /// them; the product reads twelve at once.
    ///
    /// - Parameter width: `d_ff`.
    /// - Returns: The width or a little more.
    static func innerStride(width: Int) -> Int {
        width % 512 == 0 ? width + 16 : width
    }

    /// Computes the sublayer without its residual.
    ///
    /// - Parameters:
    ///   - input: `[tokens, d_model]`.
    ///   - pool: Threads that share the products.
    /// - Returns: `[tokens, d_model]`.
    func callAsFunction(_ input: FloatMatrix, pool: WorkPool) -> FloatMatrix {
        let stride = FeedForward.innerStride(width: self.wi.outputs)
        let inner = FloatMatrix(uninitializedRows: input.rows, columns: stride)
        let output = FloatMatrix(uninitializedRows: input.rows, columns: self.wo.outputs)
        pool.run([
            Product(
                self.wi, input: input.pointer, rows: input.rows, output: inner.pointer, outputStride: stride, relu: true
            )
        ])
        pool.run([
            Product(self.wo, input: inner.pointer, inputStride: stride, rows: input.rows, output: output.pointer)
        ])
        return output
    }
}
