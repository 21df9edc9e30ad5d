// SPDX-License-Identifier: Apache-2.0

internal import TensorKernels

/// The gating layer of one sparse layer: which expert each token goes to, and with what weight.
///
/// In float32: logits `x W^T (+ b)`, softmax over the experts, the largest probability, the lowest index where several
/// are largest. The choice is made among the probabilities, not the logits, as transformers does (its
/// `SwitchTransformersTop1Router`): rounding can make two probabilities equal whose logits differ.
struct Router: Sendable {
    /// What the router decided for a step's tokens.
    struct Decision: Sendable {
        /// The expert of each token.
        var choices: [Int32]

        /// The probability of that expert.
        var probabilities: [Float]
    }

    /// `[experts, d_model]`.
    let weights: PackedMatrix

    /// One element per expert, where the checkpoint has a bias.
    let bias: FloatMatrix?

    /// Decides for every token.
    ///
    /// - Parameters:
    ///   - input: `[tokens, d_model]`, the sublayer's normalised input.
    ///   - pool: Threads that share the product.
    /// - Returns: One choice and probability per token.
    func callAsFunction(_ input: FloatMatrix, pool: WorkPool) -> Decision {
        let experts = self.weights.outputs
        let scores = FloatMatrix.temporary(rows: input.rows, columns: experts)
        pool.run(Product(self.weights, input, into: scores))
        var decision = Decision(choices: [], probabilities: [])
        decision.choices.reserveCapacity(input.rows)
        decision.probabilities.reserveCapacity(input.rows)
        for token in 0..<input.rows {
            let row = scores.row(token)
            if let bias {
                for expert in 0..<experts {
                    row[expert] += bias.pointer[expert]
                }
            }
            if let base = row.baseAddress {
                Softmax.apply(base, count: experts)
            }
            var best = 0
            for expert in 1..<max(experts, 1) where row[expert] > row[best] {
                best = expert
            }
            decision.choices.append(Int32(best))
            decision.probabilities.append(row[best])
        }
        return decision
    }
}
