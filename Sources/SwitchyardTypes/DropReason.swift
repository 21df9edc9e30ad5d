// SPDX-License-Identifier: Apache-2.0

/// Why a token got no expert output in a sparse layer, so that the residual alone carried it on.
public enum DropReason: UInt8, Sendable, Hashable, CaseIterable {
    /// The expert had taken as many tokens as its capacity allows.
    case capacity

    /// No answer came before the layer's deadline.
    case timeout

    /// No host that holds the expert could be reached.
    case unavailable

    /// The hosts that hold the expert refused more work.
    case overloaded

    /// A host answered with something that cannot be an expert's output.
    case badReply
}
