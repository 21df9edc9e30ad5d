// SPDX-License-Identifier: Apache-2.0

internal import CKernels

/// Root-mean-square normalisation (Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019, section 4) without
/// a bias: `y = w * x / sqrt(mean(x^2) + epsilon)`.
///
/// The mean is a float32 sum over 16 lanes, so it does not depend on the instruction set.
public struct RMSNorm: Sendable {
    /// One weight a column.
    public let weights: FloatMatrix

    /// Added to the mean of the squares.
    public let epsilon: Float

    /// Creates the operation.
    ///
    /// - Parameters:
    ///   - weights: `[1, columns]`.
    ///   - epsilon: Added to the mean of the squares.
    public init(weights: FloatMatrix, epsilon: Float) {
        self.weights = weights
        self.epsilon = epsilon
    }

    /// Normalises every row.
    ///
    /// - Parameters:
    ///   - input: `[rows, columns]`.
    ///   - output: `[rows, columns]`; may be the input itself.
    ///   - level: The instruction set.
    public func callAsFunction(_ input: FloatMatrix, into output: FloatMatrix, level: KernelLevel = .best) {
        precondition(
            input.columns == self.weights.columns && output.columns == input.columns && output.rows == input.rows,
            "a norm over \(self.weights.columns) columns takes and gives that many"
        )
        for row in 0..<input.rows {
            ck_rms_norm(
                level.rawValue,
                input.pointer + row * input.columns,
                self.weights.pointer,
                self.epsilon,
                input.columns,
                output.pointer + row * input.columns
            )
        }
    }

    /// Normalises every row into a new matrix.
    ///
    /// - Parameter input: `[rows, columns]`.
    /// - Returns: `[rows, columns]`.
    public func callAsFunction(_ input: FloatMatrix) -> FloatMatrix {
        let output = FloatMatrix(uninitializedRows: input.rows, columns: input.columns)
        self(input, into: output)
        return output
    }
}
