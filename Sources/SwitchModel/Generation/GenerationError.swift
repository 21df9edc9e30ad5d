// SPDX-License-Identifier: Apache-2.0

/// Parameters of generation that cannot be used.
public struct GenerationError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The faulty parameter, as the protocol names it, such as `max_new_tokens`.
    public let field: String

    /// The limit, the value, and what to do next.
    public let message: String

    /// Creates an error.
    ///
    /// - Parameters:
    ///   - field: The faulty parameter, as the protocol names it.
    ///   - message: The limit, the value, and what to do next.
    public init(field: String, message: String) {
        self.field = field
        self.message = message
    }

    /// The parameter and the message.
    public var description: String { "\(self.field): \(self.message)" }
}
