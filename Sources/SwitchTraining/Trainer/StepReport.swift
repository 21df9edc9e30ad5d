// SPDX-License-Identifier: Apache-2.0

public import SwitchyardTypes

/// The losses of one step, and what its routers did.
public struct StepReport: Sendable, Hashable {
    /// One sparse layer's balance.
    public struct Layer: Sendable, Hashable {
        /// The layer.
        public var layer: SparseLayer
        /// The share of the layer's tokens that were sent to each expert, dropped ones included.
        public var shares: [Double]
        /// The share of the layer's tokens that were dropped.
        public var dropped: Double
        /// The probability of a token's most probable expert, averaged over the layer's tokens.
        public var certainty: Double
    }

    /// What was minimised: the sum of the following, each with its factor.
    public var loss = 0.0
    /// `-log p` of the right answers, averaged over the target's tokens; without label smoothing.
    public var crossEntropy = 0.0
    /// `log(sum exp(logits))` squared, averaged over the target's tokens, before its factor.
    public var softmaxZ = 0.0
    /// How far the model is from its teacher, averaged over the target's tokens, before its factor; nil without a teacher.
    public var divergence: Double?
    /// The load balancing loss, before its factor.
    public var balance = 0.0
    /// How many layers, or stacks with transformers' form, the load balancing loss adds up; an even one gives 1.
    public var balanceGroups = 0
    /// The router z-loss, before its factor.
    public var routerZ = 0.0
    /// Each sparse layer's balance, the encoder's first.
    public var layers: [Layer] = []
    /// The share of all sparse layers' tokens that were dropped.
    public var dropped = 0.0
    /// Tokens of inputs; 0 in models without an encoder, whose inputs are their targets, a token earlier.
    public var inputTokens = 0
    /// Tokens of targets.
    public var targetTokens = 0
    /// Target tokens whose right answer has the greatest logit; nil in a training step, which does not look.
    public var correctTokens: Int?
    /// The gradients' norm over all parameters, in float64; 0 in evaluation.
    public var gradientNorm = 0.0
}
