// SPDX-License-Identifier: Apache-2.0

public import SwitchyardTypes
public import TensorKernels

/// Experts that a trainer trains around, wherever they are: their weights stay as they are, and gradients flow through them.
///
/// Both functions are pure: they give the same bits whenever, however often and wherever they are computed.
public protocol TrainingExperts: Sendable {
    /// Computes experts' outputs; returns once every row has one.
    ///
    /// - Parameters:
    ///   - layer: The sparse layer.
    ///   - groups: The experts, ascending, and their numbers of rows, at least 1 each, in the order of the rows.
    ///   - tokens: The rows, `[rows, d_model]`, at least one.
    /// - Returns: The outputs, `[rows, d_model]`.
    /// - Throws: What prevents an answer, in words.
    func forward(_ layer: SparseLayer, groups: [ExpertRows], tokens: FloatMatrix) throws -> FloatMatrix

    /// Computes the gradients of experts' input rows; returns once every row has one.
    ///
    /// - Parameters:
    ///   - layer: The sparse layer.
    ///   - groups: As for ``forward(_:groups:tokens:)``.
    ///   - tokens: The rows that `forward` got.
    ///   - outputGradients: The gradient of the loss by each row's output, `[rows, d_model]`.
    /// - Returns: The gradient of the loss by each row, `[rows, d_model]`.
    /// - Throws: What prevents an answer, in words.
    func backward(
        _ layer: SparseLayer,
        groups: [ExpertRows],
        tokens: FloatMatrix,
        outputGradients: FloatMatrix
    ) throws -> FloatMatrix
}
