// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import TensorKernels

/// A dense feed-forward sublayer: `wo(activation(wi x))`.
struct FeedForward: Sendable {
    /// `[d_ff, d_model]`.
    let wi: PackedMatrix

    /// `[d_model, d_ff]`.
    let wo: PackedMatrix

    /// The activation between the two.
    let activation: Activation

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
        let inner = FloatMatrix.temporary(rows: input.rows, columns: stride)
        let output = FloatMatrix.temporary(rows: input.rows, columns: self.wo.outputs)
        FeedForward.compute(
            [
                Product(
                    self.wi,
                    input: input.pointer,
                    rows: input.rows,
                    output: inner.pointer,
                    outputStride: stride,
                    relu: self.activation == .relu
                )
            ],
            then: [
                Product(self.wo, input: inner.pointer, inputStride: stride, rows: input.rows, output: output.pointer)
            ],
            activation: self.activation,
            pool: pool
        )
        return output
    }

    /// Computes the first products, the activation of their outputs, then the second products.
    ///
    /// - Parameters:
    ///   - first: Products with `wi`, already rectified where the activation is `relu`.
    ///   - second: Products with `wo`.
    ///   - activation: The activation between the two.
    ///   - pool: Threads that share the work.
    static func compute(_ first: [Product], then second: [Product], activation: Activation, pool: WorkPool) {
        pool.run(first)
        if activation != .relu {
            for product in first {
                pool.run(product.rows) { rows in
                    for row in rows {
                        activation.apply(product.output + row * product.outputStride, count: product.matrix.outputs)
                    }
                }
            }
        }
        pool.run(second)
    }
}

extension Activation {
    /// The activation that a configuration names.
    init(_ activation: ModelConfiguration.Activation) {
        switch activation {
        case .relu: self = .relu
        case .gelu: self = .gelu
        case .geluTanh: self = .geluTanh
        case .silu: self = .silu
        case .quickGELU: self = .quickGELU
        case .tanh: self = .tanh
        case .relu6: self = .relu6
        case .squaredReLU: self = .squaredReLU
        }
    }
}
