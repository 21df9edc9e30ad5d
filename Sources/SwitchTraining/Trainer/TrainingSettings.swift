// SPDX-License-Identifier: Apache-2.0

public import SwitchModel

/// How the routers' losses are formed.
public enum RouterLossForm: String, Sendable, Hashable, CaseIterable {
    /// Each sparse layer by itself, added up: Fedus et al., "Switch Transformers" (2021), equation 4, and Zoph et al.,
    /// "ST-MoE" (2022), equation 5. `f` and `P` are over the step's tokens.
    case paper
    /// As transformers 5.23: the tokens of all sparse layers of a stack are one group, so that one layer's imbalance can
    /// cancel another's, and a stack whose sparse step is 1 has no losses at all.
    case transformers
}

/// What a training step minimises, and how.
public struct TrainingSettings: Sendable, Hashable {
    /// Probability of dropping an element of embeddings, attention weights, sublayers' outputs, dense hidden rows and final
    /// rows; 0 for none (the paper: 0.1).
    public var dropout = 0.0
    /// Probability of dropping an element of an expert's hidden row; ``dropout`` where nil (the paper: 0.4).
    public var expertDropout: Double?
    /// Routers' inputs are multiplied by numbers within `1 - jitter ..< 1 + jitter`; 0 for none (the paper: 0.01).
    ///
    /// Experts see the input as it is, unlike in transformers, where float32 inputs are changed in place.
    public var jitter = 0.0
    /// The share of the target that is spread over the whole vocabulary; 0 for none.
    public var labelSmoothing = 0.0
    /// The factor of `log(sum exp(logits))` squared, averaged over the target's tokens; 0 for none (T5X: 1e-4).
    public var softmaxZ = 0.0
    /// The factor of the load balancing loss (the paper: 0.01).
    public var balance = 0.01
    /// The factor of the router z-loss; 0 for none (ST-MoE: 0.001).
    public var routerZ = 0.0
    /// How the routers' losses are formed.
    public var routerLosses = RouterLossForm.paper
    /// How many tokens an expert takes in training (the paper: a factor of 1.25).
    public var capacity = CapacityPolicy.factor(1.25)
    /// How many tokens an expert takes in evaluation (the paper: a factor of 2).
    public var evaluationCapacity = CapacityPolicy.factor(2)
    /// Whether blocks keep their input only, and are computed again on the way back: about a third more work, for a
    /// fraction of the memory.
    public var recomputesBlocks = false
    /// The numbers that a step computes with.
    public var precision = TrainingPrecision.float32
    /// What all random numbers of a run come from.
    public var seed: UInt64 = 0
    /// What is learnt of a teacher's answers, which every example of a step must then have; nil to learn from the data alone.
    public var teacher: TeacherLoss?

    /// Settings with no dropout, no jitter and the paper's load balancing.
    public init() {}

    /// Refuses what is out of range.
    ///
    /// - Throws: `invalidSettings` with the field, its limits and its value.
    public func validate() throws(TrainingError) {
        func check(_ name: String, _ value: Double, below limit: Double) throws(TrainingError) {
            guard value >= 0, value < limit else {
                let range = limit.isFinite ? "at least 0 and below \(limit)" : "at least 0 and finite"
                throw TrainingError(
                    code: .invalidSettings,
                    message: "\(name) must be \(range), but is \(value); correct the training settings"
                )
            }
        }
        try check("dropout", self.dropout, below: 1)
        if let expertDropout { try check("expertDropout", expertDropout, below: 1) }
        try check("jitter", self.jitter, below: 1)
        try check("labelSmoothing", self.labelSmoothing, below: 1)
        try check("softmaxZ", self.softmaxZ, below: .infinity)
        try check("balance", self.balance, below: .infinity)
        try check("routerZ", self.routerZ, below: .infinity)
        try self.teacher?.validate()
        for (name, policy) in [("capacity", self.capacity), ("evaluationCapacity", self.evaluationCapacity)] {
            let factor: Double? =
                switch policy {
                case .factor(let factor), .floor(let factor, _): factor
                case .checkpoint, .unlimited: nil
                }
            if let factor, !(factor > 0) {
                throw TrainingError(
                    code: .invalidSettings,
                    message: "\(name) must be a factor above 0, but is \(factor); correct the training settings"
                )
            }
        }
    }
}
