// SPDX-License-Identifier: Apache-2.0

internal import CKernels

/// Layer normalisation (Ba, Kiros and Hinton, "Layer Normalization", 2016, section 3):
/// `y = w * (x - mean) / sqrt(variance + epsilon) + b`, the variance being the mean of the squared differences.
///
/// Mean and variance are float32 sums over 16 lanes, so they do not depend on the instruction set.
public struct LayerNorm: Sendable {
    /// One weight a column.
    public let weights: FloatMatrix

    /// What is added to each column.
    public let bias: FloatMatrix

    /// Added to the variance.
    public let epsilon: Float

    /// Creates the operation.
    ///
    /// - Parameters:
    ///   - weights: `[1, columns]`.
    ///   - bias: `[1, columns]`.
    ///   - epsilon: Added to the variance.
    public init(weights: FloatMatrix, bias: FloatMatrix, epsilon: Float) {
        precondition(weights.columns == bias.columns, "a norm's weights and bias are as wide as each other")
        self.weights = weights
        self.bias = bias
        self.epsilon = epsilon
    }

    /// Normalises every row into a new matrix.
    ///
    /// - Parameters:
    ///   - input: `[rows, columns]`.
    ///   - pool: Threads that share the rows, where they are many.
    ///   - level: The instruction set.
    /// - Returns: `[rows, columns]`.
    public func callAsFunction(
        _ input: FloatMatrix,
        pool: WorkPool? = nil,
        level: KernelLevel = .best
    ) -> FloatMatrix {
        precondition(
            input.columns == self.weights.columns,
            "a norm over \(self.weights.columns) columns takes that many"
        )
        let columns = input.columns
        let output = FloatMatrix.temporary(rows: input.rows, columns: columns)
        WorkPool.share(input.rows, width: columns, among: pool) { rows in
            for row in rows {
                ck_layer_norm(
                    level.rawValue,
                    input.pointer + row * columns,
                    self.weights.pointer,
                    self.bias.pointer,
                    self.epsilon,
                    columns,
                    output.pointer + row * columns
                )
            }
        }
        return output
    }

    /// Joins a sublayer's output to the residual and normalises the sum, each row while it is at hand.
    ///
    /// - Parameters:
    ///   - update: The sublayer's output, `[rows, columns]`.
    ///   - residual: The sublayer's input, `[rows, columns]`.
    ///   - pool: Threads that share the rows, where they are many.
    /// - Returns: The sums, and the normalised sums, both `[rows, columns]`.
    public func adding(
        _ update: FloatMatrix,
        to residual: FloatMatrix,
        pool: WorkPool
    ) -> (sum: FloatMatrix, normed: FloatMatrix) {
        precondition(
            residual.rows == update.rows && residual.columns == update.columns
                && residual.columns == self.weights.columns,
            "a norm over \(self.weights.columns) columns joins matrices of one shape"
        )
        let columns = residual.columns
        let sum = FloatMatrix.temporary(rows: residual.rows, columns: columns)
        let normed = FloatMatrix.temporary(rows: residual.rows, columns: columns)
        WorkPool.share(residual.rows, width: columns, among: pool) { rows in
            for row in rows {
                let offset = row * columns
                ck_add_layer_norm(
                    KernelLevel.best.rawValue,
                    residual.pointer + offset,
                    update.pointer + offset,
                    self.weights.pointer,
                    self.bias.pointer,
                    self.epsilon,
                    columns,
                    sum.pointer + offset,
                    normed.pointer + offset
                )
            }
        }
        return (sum, normed)
    }
}
