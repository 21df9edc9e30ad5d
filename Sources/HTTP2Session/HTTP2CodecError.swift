// SPDX-License-Identifier: Apache-2.0

/// Why a connection's codec refused a command or gave up on the connection.
public struct HTTP2CodecError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The kind of an error.
    public enum Code: Sendable, Hashable {
        /// A configuration value is out of range.
        case invalidConfiguration
        /// The peer broke the protocol; the connection ends after the queued output is sent.
        case peerFault
        /// The peer sends too many useless frames; the connection ends after the queued output is sent.
        case flooded
        /// The stream does not exist, is closed, or is in a state in which the command has no meaning.
        case noSuchStream
        /// A header field that is to be sent has an invalid name or value.
        case invalidHeader
        /// The connection takes no new streams.
        case noNewStreams
        /// The library ran out of memory or failed for another reason.
        case library
    }

    /// The kind of the error.
    public var code: Code
    /// What happened, with limits and values.
    public var message: String

    /// Creates an error.
    ///
    /// - Parameters:
    ///   - code: The kind of the error.
    ///   - message: What happened, with limits and values.
    public init(code: Code, message: String) {
        self.code = code
        self.message = message
    }

    /// The kind and the message.
    public var description: String {
        "\(self.code): \(self.message)"
    }
}
