// SPDX-License-Identifier: Apache-2.0

/// A request for experts that cannot be served.
public struct ExpertError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The kind of fault.
    public enum Code: Sendable, Hashable {
        /// The model has no such sparse layer.
        case unknownLayer

        /// The expert is not held here.
        case notHeld

        /// A group's number of rows is not positive.
        case invalidGroup

        /// The expert's weights are kept in a type through which no gradient flows.
        case notTrainable

        /// A layer's work is waited for that was not begun, or was waited for already.
        case notBegun
    }

    /// The kind of fault.
    public var code: Code

    /// What is wrong and what to do about it.
    public var message: String

    /// Describes a fault.
    ///
    /// - Parameters:
    ///   - code: The kind of fault.
    ///   - message: What is wrong and what to do about it.
    public init(code: Code, message: String) {
        self.code = code
        self.message = message
    }

    /// The message.
    public var description: String {
        self.message
    }
}
