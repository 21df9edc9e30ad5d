// SPDX-License-Identifier: Apache-2.0

/// How many tokens one expert of one sparse layer takes before further tokens are dropped.
public enum CapacityPolicy: Sendable, Hashable {
    /// The checkpoint's `expert_capacity`, counted per sequence in token order.
    ///
    /// The group is one sequence's tokens in one call, so a result never depends on neighbours. This is what
    /// transformers 4.52-4.57 and 5.18 onwards do for an unpadded sequence.
    case checkpoint

    /// `ceil(factor * tokens / experts)` of Fedus, Zoph and Shazeer, "Switch Transformers" (2021), section 2.2.
    ///
    /// The group is all tokens of the step, in order of their sequences, so a result may depend on the neighbours.
    /// Deviation: the paper does not say how to round; rounding up never leaves an expert without room.
    case factor(Double)

    /// No token is dropped for capacity.
    case unlimited

    /// The integer limit and whether it is counted separately for each sequence.
    ///
    /// - Parameters:
    ///   - tokens: Tokens in the step.
    ///   - experts: Experts in the layer.
    ///   - checkpoint: The checkpoint's integer capacity.
    /// - Returns: The limit, and whether each sequence has its own count.
    package func limit(tokens: Int, experts: Int, checkpoint: Int) -> (tokens: Int, perSequence: Bool) {
        switch self {
        case .checkpoint:
            return (checkpoint, true)
        case .unlimited:
            return (Int.max, true)
        case .factor(let factor):
            let share = (factor * Double(tokens) / Double(experts)).rounded(.up)
            // A factor that is NaN or too large limits nothing.
            guard share < Double(tokens) else {
                return (Int.max, false)
            }
            return (max(Int(share), 0), false)
        }
    }
}
