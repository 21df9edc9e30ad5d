// SPDX-License-Identifier: Apache-2.0

/// A call that did not end with `OK`.
///
/// Servers throw it from a handler to choose the status of the call; clients receive it from a call that failed,
/// whether the status came from the server or was made locally.
public struct RPCError: Error, Sendable, CustomStringConvertible {
    /// The code that programs act on; never `.ok`.
    public var code: Status.Code

    /// The text that people read.
    public var message: String

    /// Metadata of the trailers.
    public var metadata: Metadata

    /// The underlying error of this process, if any; never sent.
    public var cause: (any Error)?

    /// Creates an error.
    ///
    /// - Parameters:
    ///   - code: The code that programs act on. `.ok` is not an error and becomes `.unknown`.
    ///   - message: The text that people read.
    ///   - metadata: Metadata of the trailers.
    ///   - cause: The underlying error.
    public init(_ code: Status.Code, _ message: String, metadata: Metadata = Metadata(), cause: (any Error)? = nil) {
        self.code = code == .ok ? .unknown : code
        self.message = message
        self.metadata = metadata
        self.cause = cause
    }

    /// Creates an error from the status of a call; nil for `OK`.
    ///
    /// - Parameters:
    ///   - status: How the call ended.
    ///   - metadata: Metadata of the trailers.
    public init?(status: Status, metadata: Metadata = Metadata()) {
        guard !status.isOK else {
            return nil
        }
        self.init(status.code, status.message, metadata: metadata)
    }

    /// The status that a server sends for this error.
    public var status: Status { Status(code: self.code, message: self.message) }

    /// The code's name, the message, and the cause if there is one.
    public var description: String {
        guard let cause = self.cause else {
            return self.status.description
        }
        return "\(self.status.description) (cause: \(cause))"
    }
}
