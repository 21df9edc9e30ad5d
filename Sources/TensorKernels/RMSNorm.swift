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
    /// - Parameters:
    ///   - input: `[rows, columns]`.
    ///   - pool: Threads that share the rows, where they are many.
    /// - Returns: `[rows, columns]`.
    public func callAsFunction(_ input: FloatMatrix, pool: WorkPool? = nil) -> FloatMatrix {
        let output = FloatMatrix.temporary(rows: input.rows, columns: input.columns)
        WorkPool.share(input.rows, width: input.columns, among: pool) { rows in
            for row in rows {
                let offset = row * input.columns
                ck_rms_norm(
                    KernelLevel.best.rawValue,
                    input.pointer + offset,
                    self.weights.pointer,
                    self.epsilon,
                    input.columns,
                    output.pointer + offset
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
                ck_add_rms_norm(
                    KernelLevel.best.rawValue,
                    residual.pointer + offset,
                    update.pointer + offset,
                    self.weights.pointer,
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
