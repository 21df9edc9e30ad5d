// SPDX-License-Identifier: Apache-2.0

/// A fault of a training run, with what to do next.
public struct RunError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The whole message.
    public var description: String

    /// Describes a fault.
    ///
    /// - Parameter description: What is wrong, and what to do next.
    public init(_ description: String) {
        self.description = description
    }
}
