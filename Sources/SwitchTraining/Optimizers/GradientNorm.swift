// SPDX-License-Identifier: Apache-2.0

public import TensorKernels

/// The size of a step's gradients, and how far to shrink them.
///
/// The sum of squares is one float64 number for each tensor, made in an order that depends on its shape alone, and these are
/// added in the layout's order. So the result is the same for any number of threads, and for tensors that lie on several
/// machines, of which each gives its own sums.
public enum GradientNorm {
    /// The sum of squares of each tensor.
    ///
    /// - Parameters:
    ///   - gradients: The gradients.
    ///   - pool: The threads.
    /// - Returns: A number for each entry of the layout; 0 where it is untouched.
    public static func squares(of gradients: Gradients, pool: WorkPool) -> [Double] {
        BufferChunks(gradients.values.layout, wanted: gradients.touched).squares(of: gradients.values, pool: pool)
    }

    /// The Euclidean norm of all gradients together.
    ///
    /// - Parameters:
    ///   - gradients: The gradients.
    ///   - scale: What each gradient is multiplied with: one over the step's tokens, for example.
    ///   - pool: The threads.
    /// - Returns: The norm.
    /// - Throws: `notFinite`, with the first tensor that has an infinity or NaN in its gradient.
    public static func norm(of gradients: Gradients, scale: Double, pool: WorkPool) throws(TrainingError) -> Double {
        try self.norm(squares: self.squares(of: gradients, pool: pool), layout: gradients.values.layout, scale: scale)
    }

    /// The norm, from each tensor's sum of squares.
    ///
    /// - Parameters:
    ///   - squares: A number for each entry of the layout.
    ///   - layout: The layout.
    ///   - scale: What each gradient is multiplied with.
    /// - Returns: The norm.
    /// - Throws: `notFinite`, with the first tensor whose sum is not finite.
    public static func norm(
        squares: [Double],
        layout: ParameterLayout,
        scale: Double
    ) throws(TrainingError) -> Double {
        if let index = squares.firstIndex(where: { !$0.isFinite }) {
            throw TrainingError(
                code: .notFinite,
                message:
                    "the gradient of \(layout.entries[index].name) holds an infinity or NaN; lower the learning rate, "
                    + "or clip gradients, and resume from the last save"
            )
        }
        return squares.reduce(0, +).squareRoot() * abs(scale)
    }

    /// What gradients are multiplied with so that their norm stays within a limit.
    ///
    /// As `torch.nn.utils.clip_grad_norm_`: `limit / (norm + 1e-6)`, and at most 1.
    ///
    /// - Parameters:
    ///   - norm: The norm.
    ///   - limit: The limit; nil for none.
    /// - Returns: The factor.
    public static func clipFactor(norm: Double, limit: Double?) -> Double {
        guard let limit else { return 1 }
        return min(1, limit / (norm + 1e-6))
    }
}
