// SPDX-License-Identifier: Apache-2.0

/// One of the two halves of the model.
public enum Stack: UInt8, Sendable, Hashable, CaseIterable, Comparable, CustomStringConvertible {
    /// Reads the input once.
    case encoder
    /// Writes the output, token by token.
    case decoder

    /// The name that tensors of this stack begin with.
    public var description: String {
        switch self {
        case .encoder: "encoder"
        case .decoder: "decoder"
        }
    }

    /// The stack with this name.
    ///
    /// - Parameter name: `encoder` or `decoder`.
    public init?(name: some StringProtocol) {
        switch name {
        case "encoder": self = .encoder
        case "decoder": self = .decoder
        default: return nil
        }
    }

    /// Encoder first.
    public static func < (left: Self, right: Self) -> Bool {
        left.rawValue < right.rawValue
    }
}
