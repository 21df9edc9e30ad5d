// SPDX-License-Identifier: Apache-2.0

/// A call or a checkpoint that the model cannot use.
public struct ModelError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The kind of fault.
    public enum Code: Sendable, Hashable {
        /// The checkpoint asks for something that is not implemented.
        case unsupported

        /// The inputs of a call are malformed.
        case invalidInput

        /// An executor's outputs do not fit its request.
        case invalidExpertOutputs
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
