// SPDX-License-Identifier: Apache-2.0

public import NIOCore
public import RPCCore

/// How one call is made.
public struct CallOptions: Sendable {
    /// When the caller stops waiting; nil means never.
    ///
    /// The time left is sent as `grpc-timeout`.
    public var deadline: ContinuousClock.Instant? {
        get { self.dueTime?.instant }
        set { self.dueTime = newValue.map { NIODeadline($0) } }
    }
    /// The caller's own key-value pairs.
    public var metadata: Metadata
    /// Whether the call waits for a connection instead of failing at once when there is none.
    public var waitForReady: Bool

    /// ``deadline`` as event loops count.
    var dueTime: NIODeadline?

    /// Creates options.
    ///
    /// - Parameters:
    ///   - deadline: When the caller stops waiting; nil means never.
    ///   - metadata: The caller's own key-value pairs.
    ///   - waitForReady: Whether the call waits for a connection.
    public init(
        deadline: ContinuousClock.Instant? = nil,
        metadata: Metadata = Metadata(),
        waitForReady: Bool = false
    ) {
        self.dueTime = deadline.map { NIODeadline($0) }
        self.metadata = metadata
        self.waitForReady = waitForReady
    }
}

/// The answer to a call with one response.
public struct UnaryReply: Sendable {
    /// The response's bytes.
    public var message: ByteBuffer
    /// What the server sent before the response.
    public var initialMetadata: Metadata
    /// What the server sent with the status.
    public var trailingMetadata: Metadata
}

/// Marks a failed call that can be retried without running twice: the server did no work for it.
///
/// It is the ``RPCCore/RPCError/cause`` of errors of calls that never left, that were refused, or that a `GOAWAY`
/// excluded.
public struct CallNeverProcessed: Error, Sendable, Hashable {
    /// Creates the mark.
    public init() {}
}

extension RPCError {
    /// Whether the server certainly did no work for the call, so that it may be retried at once.
    public var isNeverProcessed: Bool { self.cause is CallNeverProcessed }

    /// The error of a call that cannot leave.
    static func notSent(_ code: Status.Code, _ message: String) -> RPCError {
        RPCError(code, message, cause: CallNeverProcessed())
    }
}
