// SPDX-License-Identifier: Apache-2.0

internal import TensorKernels

/// How to keep a checkpoint's weights in memory.
///
/// Activations are float32 in any case.
public enum WeightStorage: Sendable, Hashable {
    /// As they are in the checkpoint; float16 as float32.
    case checkpoint

    /// Four bytes a weight.
    case float32

    /// Two bytes a weight. Weights that are not bfloat16 in the checkpoint are rounded.
    case bfloat16

    /// One byte a weight and one scale a row of a matrix, into which all weights are rounded. Routers, norms, relative
    /// biases and the embeddings that are looked up stay as they are.
    case int8

    func packedDType(for source: ElementType) -> PackedDType {
        switch self {
        case .checkpoint: source == .bfloat16 ? .bfloat16 : .float32
        case .float32: .float32
        case .bfloat16: .bfloat16
        case .int8: .int8
        }
    }
}
