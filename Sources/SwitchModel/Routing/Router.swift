// SPDX-License-Identifier: Apache-2.0

internal import TensorKernels

#if canImport(Glibc)
internal import Glibc
#elseif canImport(Musl)
internal import Musl
#endif

/// The gating layer of one sparse layer: which expert each token goes to, and with what weight.
///
/// In float32: logits `x W^T (+ b)`, softmax over the experts, the largest probability, the lowest index where several
/// are largest. The choice is made among the probabilities, not the logits, as transformers does (its
/// `SwitchTransformersTop1Router`): rounding can make two probabilities equal whose logits differ.
struct Router: Sendable {
    /// What the router decided for a step's tokens.
    struct Decision: Sendable {
        /// The expert of each token.
        var choices: [Int32] = []

        /// The probability of that expert.
        var probabilities: [Float] = []
    }

    /// What the router made of one token.
    struct TokenScores {
        /// The probability of each expert.
        let probabilities: UnsafeMutableBufferPointer<Float>

        /// The expert with the greatest logit, the lowest of several.
        let greatest: Int

        /// `log(sum(exp(logits)))`.
        let normalizer: Double
    }

    /// `[experts, d_model]`.
    let weights: PackedMatrix

    /// One element per expert, where the checkpoint has a bias.
    let bias: FloatMatrix?

    /// Decides for every token.
    ///
    /// - Parameters:
    ///   - input: `[tokens, d_model]`, the sublayer's normalised input.
    ///   - given: For each token where it goes, nil where the router chooses; nil where it always does.
    ///   - pool: Threads that share the product.
    ///   - decision: Becomes one choice and probability per token, in the memory that it has.
    ///   - inspect: Sees each token's scores and choice, in order; nil where they are not needed.
    func callAsFunction(
        _ input: FloatMatrix,
        given: [GivenRoute?]? = nil,
        pool: WorkPool,
        into decision: inout Decision,
        inspect: ((Int, TokenScores, Int) -> Void)? = nil
    ) {
        let experts = self.weights.outputs
        let scores = FloatMatrix.temporary(rows: input.rows, columns: experts)
        pool.run(Product(self.weights, input, into: scores))
        decision.choices.removeAll(keepingCapacity: true)
        decision.probabilities.removeAll(keepingCapacity: true)
        for token in 0..<input.rows {
            let row = scores.row(token)
            if let bias {
                for expert in 0..<experts {
                    row[expert] += bias.pointer[expert]
                }
            }
            let logits = inspect == nil ? nil : Self.summary(row)
            if let base = row.baseAddress {
                Softmax.apply(base, count: experts)
            }
            let best = (given?[token]?.expert).map(Int.init) ?? Self.greatest(row)
            if let inspect, let logits {
                inspect(
                    token,
                    TokenScores(probabilities: row, greatest: logits.greatest, normalizer: logits.normalizer),
                    best
                )
            }
            decision.choices.append(Int32(best))
            decision.probabilities.append(row[best])
        }
    }

    /// The index of the greatest value, the lowest of several.
    private static func greatest(_ row: UnsafeMutableBufferPointer<Float>) -> Int {
        var best = 0
        for expert in 1..<max(row.count, 1) where row[expert] > row[best] {
            best = expert
        }
        return best
    }

    /// What only the logits tell: the greatest one's expert, and the logarithm of the sum of their exponentials.
    private static func summary(_ row: UnsafeMutableBufferPointer<Float>) -> (greatest: Int, normalizer: Double) {
        let best = Self.greatest(row)
        let most = Double(row[best])
        return (best, most + log(row.reduce(0.0) { $0 + exp(Double($1) - most) }))
    }
}
