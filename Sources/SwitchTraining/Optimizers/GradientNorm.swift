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
        let layout = gradients.values.layout
        let chunks = BufferChunks(layout, wanted: gradients.touched).chunks
        guard let values = gradients.values.all.baseAddress else { return [] }
        let partial = [Double](unsafeUninitializedCapacity: chunks.count) { sums, count in
            let sums = Sums(pointer: sums.baseAddress)
            let values = Values(pointer: values)
            pool.run(chunks.count) { range in
                for index in range {
                    let chunk = chunks[index]
                    sums.pointer?[index] = SquareSum.of(values.pointer + chunk.start, count: chunk.count)
                }
            }
            count = chunks.count
        }
        var squares = [Double](repeating: 0, count: layout.entries.count)
        for (chunk, sum) in zip(chunks, partial) {
            squares[chunk.entry] += sum
        }
        return squares
    }

    private struct Sums: @unchecked Sendable {
        // Safety: each thread writes sums of its own chunks.
        let pointer: UnsafeMutablePointer<Double>?
    }

    private struct Values: @unchecked Sendable {
        // Safety: only read.
        let pointer: UnsafePointer<Float>

        init(pointer: UnsafeMutablePointer<Float>) { self.pointer = UnsafePointer(pointer) }
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
