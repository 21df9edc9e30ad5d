// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

/// What is wrong with a tokenizer's files, or with a text given to it.
public struct TokenizerError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The kinds of error.
    public enum Code: Sendable, Hashable {
        /// A file is missing or cannot be read.
        case unreadableFile

        /// A file's content is not a usable tokenizer.
        case malformedFile

        /// A text's bytes are not UTF-8.
        case invalidText

        /// A text has more ids, or costs more, than the limits allow.
        case tooLong

        /// The caller no longer wants the ids.
        case cancelled

        /// A text has a character that no id stands for.
        case unknownCharacter

        /// libsentencepiece failed on a text, which happens only when memory runs out.
        case encodingFailed
    }

    /// The kind of error.
    public let code: Code

    /// What is wrong, and what to do next.
    public let message: String

    /// The faulty file, or nil where the text is at fault.
    public let file: String?

    /// Creates an error.
    ///
    /// - Parameters:
    ///   - code: The kind of error.
    ///   - message: What is wrong, and what to do next.
    ///   - file: The faulty file, or nil where the text is at fault.
    public init(_ code: Code, _ message: String, file: String? = nil) {
        self.code = code
        // It can quote the file.
        self.message = ErrorText.shown(message)
        self.file = file
    }

    /// The file, where there is one, and the message.
    public var description: String {
        self.file.map { "\($0): \(self.message)" } ?? self.message
    }
}
