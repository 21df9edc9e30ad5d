// SPDX-License-Identifier: Apache-2.0

/// Why training data cannot be read on: an error of a file, of the settings or of a position to resume from.
///
/// A single line that cannot be used is a ``LineFault``; it becomes an error only where the caller wants that.
public struct DataError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The kinds of error.
    public enum Code: Sendable, Hashable {
        /// A file cannot be opened or read.
        case unreadableFile
        /// A file is not text in UTF-8 as a whole: compressed, or in another encoding.
        case notText
        /// A file is no longer what it was when its lines were counted.
        case fileChanged
        /// A line cannot be used, and the caller wants that to be an error.
        case unusableLine
        /// There is nothing to learn from: no line, or none that can be used.
        case noExamples
        /// A setting is out of range, or two do not fit each other.
        case invalidSettings
        /// A saved position belongs to other data, another seed or other settings.
        case otherPosition
    }

    /// The kind of error.
    public let code: Code

    /// What is wrong, and what to do next.
    public let message: String

    /// The faulty file, or nil where no file is at fault.
    public let file: String?

    /// Creates an error.
    ///
    /// - Parameters:
    ///   - code: The kind of error.
    ///   - message: What is wrong, and what to do next.
    ///   - file: The faulty file, or nil where no file is at fault.
    public init(_ code: Code, _ message: String, file: String? = nil) {
        self.code = code
        self.message = message
        self.file = file
    }

    /// The file, where there is one, and the message.
    public var description: String {
        self.file.map { "\($0): \(self.message)" } ?? self.message
    }
}
