// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

/// Weights could not be fetched: what is wrong, with the file and the address, and what to do next.
public struct FetchError: Error, Sendable, Hashable, CustomStringConvertible {
    /// What went wrong, as a value that programs can compare.
    public enum Code: Sendable, Hashable {
        /// An address, a name or a pattern cannot be used.
        case invalidArgument
        /// The server does not know the model, the revision or the file.
        case notFound
        /// The server requires a token, or another one.
        case denied
        /// No connection, or one that broke too often.
        case unreachable
        /// The server's answer does not follow the protocol.
        case badAnswer
        /// What arrived is not what was announced.
        case corrupt
        /// The disk is too small.
        case noSpace
        /// The system refused to write a file.
        case writeFailed
    }

    /// What went wrong.
    public var code: Code
    /// What is wrong and what to do next.
    public var message: String

    /// Describes a failure.
    ///
    /// - Parameters:
    ///   - code: What went wrong.
    ///   - message: What is wrong and what to do next; addresses in it are masked.
    public init(_ code: Code, _ message: String) {
        self.code = code
        // It can quote what a server says.
        self.message = ErrorText.shown(message)
    }

    /// The message.
    public var description: String { self.message }
}
