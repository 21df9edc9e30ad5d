// SPDX-License-Identifier: Apache-2.0

public import SwitchyardTypes

// The one place that converts between the protocol's numbers and the project's own types.

extension WireStack {
    /// The protocol's number of a stack.
    public init(_ stack: SwitchyardTypes.Stack) {
        switch stack {
        case .encoder: self = .encoder
        case .decoder: self = .decoder
        }
    }

    /// The stack, if one is given.
    public var stack: SwitchyardTypes.Stack? {
        switch self {
        case .unspecified: nil
        case .encoder: .encoder
        case .decoder: .decoder
        }
    }
}

extension WireDropReason {
    /// The protocol's number of a reason.
    public init(_ reason: SwitchyardTypes.DropReason) {
        switch reason {
        case .capacity: self = .capacity
        case .timeout: self = .timeout
        case .unavailable: self = .unavailable
        case .overloaded: self = .overloaded
        case .badReply: self = .badReply
        }
    }

    /// The reason, if one is given.
    public var reason: SwitchyardTypes.DropReason? {
        switch self {
        case .unspecified: nil
        case .capacity: .capacity
        case .timeout: .timeout
        case .unavailable: .unavailable
        case .overloaded: .overloaded
        case .badReply: .badReply
        }
    }
}

extension WireDType {
    /// The bytes of one element of a tensor that is sent; nil where no type is given, or one that is never sent.
    public var byteCount: Int? { self == .int8 ? nil : self.type?.byteCount }

    /// The protocol's number of a type; `unspecified` for one that the protocol has no number for.
    public init(_ type: SwitchyardTypes.DType) {
        switch type {
        case .float32: self = .float32
        case .bfloat16: self = .bfloat16
        case .float16: self = .float16
        case .int8: self = .int8
        default: self = .unspecified
        }
    }

    /// The type, if one is given.
    public var type: SwitchyardTypes.DType? {
        switch self {
        case .unspecified: nil
        case .float32: .float32
        case .bfloat16: .bfloat16
        case .float16: .float16
        case .int8: .int8
        }
    }
}
