// SPDX-License-Identifier: Apache-2.0

public import SwitchyardTypes

/// How to keep a checkpoint's weights in memory.
///
/// Activations are float32 in any case.
public enum WeightStorage: String, Sendable, Hashable, CaseIterable, CustomStringConvertible {
    /// As they are in the checkpoint; float16 as float32.
    case checkpoint

    /// Four bytes per weight.
    case float32

    /// Two bytes per weight. Weights that are not bfloat16 in the checkpoint are rounded.
    case bfloat16

    /// One byte per weight and one scale per row of a matrix; all weights are rounded. Routers, norms, relative biases
    /// and the embeddings that are looked up stay as they are.
    case int8

    /// The name that users choose it by.
    public var description: String { self.rawValue }

    /// How weights of a type are kept.
    ///
    /// - Parameter source: The type that they have in the checkpoint.
    /// - Returns: The type that they have in memory.
    public func packedDType(for source: DType) -> DType {
        switch self {
        case .checkpoint: source == .bfloat16 ? .bfloat16 : .float32
        case .float32: .float32
        case .bfloat16: .bfloat16
        case .int8: .int8
        }
    }

    /// Whether already packed weights match the request; `checkpoint` then means as they are.
    func accepts(packed type: DType) -> Bool {
        switch self {
        case .checkpoint: true
        case .float32: type == .float32
        case .bfloat16: type == .bfloat16
        case .int8: type == .int8
        }
    }
}
