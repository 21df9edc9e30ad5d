// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import SwitchyardProtos

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
