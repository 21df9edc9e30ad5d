// SPDX-License-Identifier: Apache-2.0

/// How many tokens one expert of one sparse layer takes before further tokens are dropped.
public enum CapacityPolicy: Sendable, Hashable {
    /// The checkpoint's `expert_capacity`, counted per sequence in token order; labml's models drop nothing.
    ///
    /// The group is one sequence's tokens in one call, so a result never depends on neighbours. This is what
    /// transformers 4.52-4.57 and 5.18 onwards do for an unpadded sequence.
    case checkpoint

    /// `ceil(factor * tokens / experts)` of Fedus, Zoph and Shazeer, "Switch Transformers" (2021), section 2.2.
    ///
    /// The group is all tokens of the step, in order of their sequences, so a result may depend on the neighbours.
    /// Deviation: the paper does not say how to round; rounding up never leaves an expert without room.
    case factor(Double)

    /// `int(factor * tokens / experts)`, as labml_nn 0.5.1 counts it
    /// (https://nn.labml.ai/transformers/switch/index.html), and which tokens of an expert take its places.
    ///
    /// The group is all tokens of the call, so a result may depend on the neighbours, and a call of few tokens may leave
    /// experts without a single place.
    case floor(Double, DropOrder)

    /// No token is dropped for capacity.
    case unlimited

    /// Whether an expert's places are shared among all tokens of a call, so that neighbours count.
    public var isShared: Bool {
        switch self {
        case .factor, .floor: true
        case .checkpoint, .unlimited: false
        }
    }

    /// The order in which an expert's tokens take its places.
    package var order: DropOrder {
        if case .floor(_, let order) = self { order } else { .tokens }
    }

    /// The integer limit and whether it is counted separately for each sequence.
    ///
    /// - Parameters:
    ///   - tokens: Tokens in the step.
    ///   - experts: Experts in the layer.
    ///   - checkpoint: The checkpoint's integer capacity.
    /// - Returns: The limit, and whether each sequence has its own count.
    package func limit(tokens: Int, experts: Int, checkpoint: Int) -> (tokens: Int, perSequence: Bool) {
        let share: Double
        switch self {
        case .checkpoint: return (checkpoint, true)
        case .unlimited: return (Int.max, true)
        case .factor(let factor): share = (factor * Double(tokens) / Double(experts)).rounded(.up)
        case .floor(let factor, _): share = (factor * Double(tokens) / Double(experts)).rounded(.down)
        }
        // A factor that is NaN or too large limits nothing.
        guard share < Double(tokens) else { return (Int.max, false) }
        return (max(Int(share), 0), false)
    }
}

/// Which of an expert's tokens take its places where there are too few.
public enum DropOrder: Sendable, Hashable {
    /// The first ones.
    case tokens

    /// Those that a draw puts first, as labml's random permutation does; the same seed draws the same places of a group.
    case drawn(seed: UInt64)

    /// The rank of each token among those of its expert, from 0; tokens of the lowest ranks take the places.
    ///
    /// A draw is a function of the seed, the layer and the token's place in the group (``Philox``), so it depends on neither
    /// the other tokens nor the machine.
    ///
    /// - Parameters:
    ///   - choices: The expert of each token of the group, each below `expertCount`; nil for a token that takes no place.
    ///   - expertCount: Experts in the layer.
    ///   - layer: A number for the layer, so that layers draw differently.
    /// - Returns: One rank for each token; 0 for one that takes no place.
    package func ranks(of choices: [Int32?], expertCount: Int, layer: Int) -> [Int] {
        var places = [[Int]](repeating: [], count: expertCount)
        for (token, choice) in choices.enumerated() {
            if let choice { places[Int(choice)].append(token) }
        }
        var ranks = [Int](repeating: 0, count: choices.count)
        for var tokens in places where !tokens.isEmpty {
            if case .drawn(let seed) = self {
                let draws = Dictionary(
                    uniqueKeysWithValues: tokens.map {
                        ($0, Philox.uniform(seed: seed, sequence: UInt64(clamping: layer), step: UInt64(clamping: $0)))
                    }
                )
                tokens.sort { (draws[$0] ?? 0, $0) < (draws[$1] ?? 0, $1) }
            }
            for (rank, token) in tokens.enumerated() { ranks[token] = rank }
        }
        return ranks
    }
}
