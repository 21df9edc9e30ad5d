// SPDX-License-Identifier: Apache-2.0

/// A message that cannot be read.
public struct ProtoError: Error, Sendable, Hashable, CustomStringConvertible {
    /// What is wrong with the message.
    public enum Code: Sendable, Hashable {
        /// The bytes are not a message of this type.
        case malformed
        /// The bytes, or the memory that they unfold to, are over the limit.
        case overLimit
        /// A text is not UTF-8.
        case invalidUTF8
        /// An enum has a number that this version does not know.
        case unknownChoice
        /// A tensor's bytes are not as many as its shape and type say.
        case sizeMismatch
    }

    /// What is wrong.
    public let code: Code

    /// The message's full name, for example `switchyard.v1.GenerateRequest`.
    public let message: String

    /// The field's name; empty for the message as a whole.
    public let field: String

    /// The limit, the value and what to do about it.
    public let detail: String

    /// Creates an error.
    ///
    /// - Parameters:
    ///   - code: What is wrong.
    ///   - message: The message's full name.
    ///   - field: The field's name, or nothing.
    ///   - detail: The limit, the value and what to do about it.
    public init(_ code: Code, message: String, field: String = "", detail: String) {
        self.code = code
        self.message = message
        self.field = field
        self.detail = detail
    }

    /// Names the message and the field and says what is wrong.
    public var description: String {
        self.field.isEmpty ? "\(self.message): \(self.detail)" : "\(self.message).\(self.field): \(self.detail)"
    }
}
