// SPDX-License-Identifier: Apache-2.0

internal import TensorKernels

/// How to run one call of the model.
public struct StepOptions: Sendable, Hashable {
    /// For which tokens to compute logits.
    public enum Logits: Sendable, Hashable {
        /// The last token of each row.
        case last

        /// Every token, in the order of the rows.
        case all
    }

    /// How many tokens an expert takes.
    public var capacityPolicy: CapacityPolicy

    /// Whether to keep the hidden states after each block.
    public var collectHiddenStates: Bool

    /// Whether to keep the routers' decisions.
    public var collectRouting: Bool

    /// For which tokens to compute logits.
    public var logits: Logits

    /// A number for the step, handed on to the expert executor.
    public var step: Int

    /// Options with the defaults of serving.
    ///
    /// - Parameters:
    ///   - capacityPolicy: How many tokens an expert takes.
    ///   - collectHiddenStates: Whether to keep the hidden states after each block.
    ///   - collectRouting: Whether to keep the routers' decisions.
    ///   - logits: For which tokens to compute logits.
    ///   - step: A number for the step, handed on to the expert executor.
    public init(
        capacityPolicy: CapacityPolicy = .checkpoint,
        collectHiddenStates: Bool = false,
        collectRouting: Bool = false,
        logits: Logits = .last,
        step: Int = 0
    ) {
        self.capacityPolicy = capacityPolicy
        self.collectHiddenStates = collectHiddenStates
        self.collectRouting = collectRouting
        self.logits = logits
        self.step = step
    }
}

/// What the layers of one call have in common.
struct StepContext {
    let options: StepOptions
    let experts: any ExpertExecutor
    let pool: WorkPool

    /// For each token, the index of its sequence in the call's inputs.
    let sequences: [Int32]
}
