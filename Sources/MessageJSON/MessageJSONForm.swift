// SPDX-License-Identifier: Apache-2.0

/// How messages are written as JSON.
///
/// Source: https://protobuf.dev/programming-guides/json/.
package enum MessageJSONForm: Sendable {
    /// For files that people keep: the names of the `.proto` files, indented, and bytes as hexadecimal digits, as digests are
    /// written everywhere. Equal messages give the same text, and nothing but that form is read.
    case file
    /// Protobuf's own mapping: names in camel case, bytes in base64, no white space. Whatever the mapping allows is read.
    case mapping

    /// The name of a field as it is written.
    func name(of field: MessageSchema.Field) -> String { self == .file ? field.name : field.camelName }

    /// Whether a key names a field.
    func accepts(_ key: String, for field: MessageSchema.Field) -> Bool {
        key == field.name || self == .mapping && key == field.camelName
    }
}

/// What is wrong with a JSON value that was to be a message.
package struct MessageJSONError: Error, Sendable, Hashable {
    /// The field as the text names it, such as `parameters.seed`; empty for the whole.
    package var field: String
    /// What is wrong with it and what would be right, as the end of a sentence that begins with the field.
    package var message: String

    init(_ field: String, _ message: String) {
        self.field = field
        self.message = message
    }
}
