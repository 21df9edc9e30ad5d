// SPDX-License-Identifier: Apache-2.0

/// The numbers that a step computes with.
///
/// Weights that change, their gradients and the optimizer's state are float32 in any case.
public enum TrainingPrecision: String, Sendable, Hashable, CaseIterable, Codable {
    /// All numbers are float32.
    case float32
    /// Selective precision: Fedus et al., "Switch Transformers" (2021), section 2.4.
    ///
    /// A step rounds the weights once, and every row of numbers that an operation hands to the next one, to bfloat16, to nearest
    /// even. Routers compute in float32 with float32 weights. So do the insides of operations: norms, softmax, sums of products,
    /// and the loss with its logits. Deviation: routers' probabilities are not rounded before they scale experts' outputs.
    case bfloat16
}
