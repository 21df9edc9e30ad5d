// SPDX-License-Identifier: Apache-2.0

internal import TensorKernels

/// The norm that a sublayer begins with, or that ends a stack.
enum Norm: Sendable {
    /// T5's.
    case rootMeanSquare(RMSNorm)
    /// With mean and bias.
    case layer(LayerNorm)

    /// Normalises every row of `[rows, d_model]`.
    func callAsFunction(_ input: FloatMatrix, pool: WorkPool? = nil) -> FloatMatrix {
        switch self {
        case .rootMeanSquare(let norm): norm(input, pool: pool)
        case .layer(let norm): norm(input, pool: pool)
        }
    }

    /// Joins a sublayer's output to the residual and normalises the sum; all are `[rows, d_model]`.
    func adding(
        _ update: FloatMatrix,
        to residual: FloatMatrix,
        pool: WorkPool
    ) -> (sum: FloatMatrix, normed: FloatMatrix) {
        switch self {
        case .rootMeanSquare(let norm): norm.adding(update, to: residual, pool: pool)
        case .layer(let norm): norm.adding(update, to: residual, pool: pool)
        }
    }
}
