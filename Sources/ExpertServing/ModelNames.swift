// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import SwitchyardProtos
internal import TensorKernels

extension StackMessage {
    /// The protocol's name of a stack.
    init(_ stack: Checkpoints.Stack) {
        switch stack {
        case .encoder: self = .encoder
        case .decoder: self = .decoder
        }
    }

    /// The model's name of a stack, if one is given.
    var modelStack: Checkpoints.Stack? {
        switch self {
        case .unspecified: nil
        case .encoder: .encoder
        case .decoder: .decoder
        }
    }
}

extension DType {
    /// The protocol's name of a type of rows.
    init(_ type: RowType) {
        switch type {
        case .float32: self = .float32
        case .bfloat16: self = .bfloat16
        }
    }

    /// The protocol's name of a way to keep weights.
    init(_ type: PackedDType) {
        switch type {
        case .float32: self = .float32
        case .bfloat16: self = .bfloat16
        case .int8: self = .int8
        }
    }
}
