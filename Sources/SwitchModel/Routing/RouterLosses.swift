// SPDX-License-Identifier: Apache-2.0

public import SwitchyardTypes

/// What the losses of one router for one sequence are computed from.
///
/// All sums are taken in double precision and in the order of the tokens, so that no neighbour changes them.
public struct RouterStatistics: Sendable, Hashable {
    /// The layer.
    public var layer: SparseLayer

    /// Tokens seen.
    public private(set) var tokens = 0

    /// How many tokens were sent to each expert, dropped or not.
    public private(set) var sent: [Int]

    /// For how many tokens each expert had the greatest logit.
    public private(set) var greatest: [Int]

    /// The sum of each expert's probabilities.
    public private(set) var probabilities: [Double]

    /// The sum of the squares of `log(sum(exp(logits)))`.
    public private(set) var squaredNormalizers = 0.0

    init(layer: SparseLayer, expertCount: Int) {
        self.layer = layer
        self.sent = Array(repeating: 0, count: expertCount)
        self.greatest = Array(repeating: 0, count: expertCount)
        self.probabilities = Array(repeating: 0, count: expertCount)
    }

    /// Adds a token.
    ///
    /// - Parameters:
    ///   - scores: What the router made of the token.
    ///   - expert: Where it was sent.
    mutating func add(_ scores: Router.TokenScores, sentTo expert: Int) {
        self.tokens += 1
        self.sent[expert] += 1
        self.greatest[scores.greatest] += 1
        for (expert, probability) in scores.probabilities.enumerated() {
            self.probabilities[expert] += Double(probability)
        }
        self.squaredNormalizers += scores.normalizer * scores.normalizer
    }

    /// Adds the sums of another layer or call.
    mutating func add(_ other: RouterStatistics) {
        self.tokens += other.tokens
        for expert in self.sent.indices where expert < other.sent.count {
            self.sent[expert] += other.sent[expert]
            self.greatest[expert] += other.greatest[expert]
            self.probabilities[expert] += other.probabilities[expert]
        }
        self.squaredNormalizers += other.squaredNormalizers
    }

    /// `N * sum(f * P)` over the experts: the share of tokens of each, times its mean probability.
    fileprivate func balance(_ counts: [Int]) -> Double {
        guard self.tokens > 0 else { return 0 }
        let tokens = Double(self.tokens)
        let sum = zip(counts, self.probabilities).reduce(0.0) { $0 + Double($1.0) / tokens * ($1.1 / tokens) }
        return Double(counts.count) * sum
    }

    /// The mean of the squared normalizers.
    fileprivate var meanSquare: Double { self.tokens > 0 ? self.squaredNormalizers / Double(self.tokens) : 0 }
}

/// The auxiliary losses that routers are trained with, of one sequence pair.
///
/// Per layer as in the papers: load balancing after Fedus, Zoph and Shazeer, "Switch Transformers" (2021,
/// https://arxiv.org/abs/2101.03961), equations 4 to 6 without the factor alpha, where a token counts for the expert that
/// it is sent to; the router z-loss after Zoph et al., "ST-MoE" (2022, https://arxiv.org/abs/2202.08906), equation 5.
/// Over all layers both are added up, as both papers do.
///
/// Per stack as in transformers 5.23 (`load_balancing_loss_func` and `router_z_loss_func`,
/// https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/models/switch_transformers/modeling_switch_transformers.py):
/// the tokens of all sparse layers of a stack are one group, a token counts for the expert with the greatest logit, and a
/// stack whose sparse step is at most 1 has no loss.
public struct RouterLosses: Sendable, Hashable {
    /// Two losses.
    public struct Pair: Sendable, Hashable {
        /// The load balancing loss.
        public var balance = 0.0
        /// The router z-loss.
        public var z = 0.0

        /// No loss.
        public init() {}

        init(balance: Double, z: Double) {
            self.balance = balance
            self.z = z
        }
    }

    /// Each sparse layer's losses.
    public var layers: [(layer: SparseLayer, losses: Pair)] {
        zip(self.names, self.values).map { ($0, $1) }
    }

    /// The layers' losses added up.
    public private(set) var total = Pair()

    /// Each stack's losses as transformers computes them.
    public private(set) var transformers: [Stack: Pair] = [:]

    private var names: [SparseLayer] = []
    private var values: [Pair] = []

    /// Computes the losses.
    ///
    /// - Parameters:
    ///   - statistics: One entry for each sparse layer.
    ///   - sparseSteps: The distance of each stack's sparse blocks, as configured.
    public init(_ statistics: [RouterStatistics], sparseSteps: [Stack: Int]) {
        for layer in statistics {
            let losses = Pair(balance: layer.balance(layer.sent), z: layer.meanSquare)
            self.names.append(layer.layer)
            self.values.append(losses)
            self.total.balance += losses.balance
            self.total.z += losses.z
        }
        for stack in Stack.allCases {
            let layers = statistics.filter { $0.layer.stack == stack }
            guard var all = layers.first, sparseSteps[stack, default: 0] > 1 else {
                self.transformers[stack] = Pair()
                continue
            }
            for layer in layers.dropFirst() {
                all.add(layer)
            }
            self.transformers[stack] = Pair(balance: all.balance(all.greatest), z: all.meanSquare)
        }
    }
}
