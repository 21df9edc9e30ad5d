// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

/// Why a receipt cannot be used: it is malformed, too large, or not what its digests say.
public struct ReceiptError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The field that is wrong, as the receipt's file writes it, such as `model.capacity`; empty for the file as a whole.
    public var field: String

    /// What is wrong with it and what would be right.
    public var message: String

    /// Describes what is wrong.
    ///
    /// - Parameters:
    ///   - field: The field, or empty.
    ///   - message: What is wrong with it and what would be right.
    public init(_ field: String, _ message: String) {
        self.field = field
        self.message = message
    }

    /// The field and what is wrong with it, at most a page and without control characters.
    public var description: String {
        ErrorText.shown(
            self.field.isEmpty ? "the receipt \(self.message)" : "the receipt's \(self.field) \(self.message)"
        )
    }
}
