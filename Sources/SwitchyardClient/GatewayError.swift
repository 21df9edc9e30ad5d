// SPDX-License-Identifier: Apache-2.0

public import RPCCore
internal import RPCTransport
internal import SwitchyardProtos

/// A call of the gateway that failed.
public struct GatewayError: Error, Sendable, CustomStringConvertible {
    /// The code that programs act on.
    ///
    /// `INVALID_ARGUMENT`: a field is wrong, the message names it. `RESOURCE_EXHAUSTED`: the queue is full or the input
    /// too long. `DEADLINE_EXCEEDED`, `CANCELLED`: this side gave up. `UNAVAILABLE`: the gateway cannot be reached or
    /// is draining, or under a strict drop policy no host answered for an expert.
    public let code: Status.Code

    /// The text that people read.
    public let message: String

    /// How long to wait before retrying the call, if the gateway said so.
    public let retryDelay: Duration?

    /// Whether the call may be retried because the gateway did nothing for it: it could not be reached, or refused
    /// the call and said when to retry.
    public let isRetryable: Bool

    /// The underlying error.
    public let cause: (any Error)?

    /// Creates an error of the client itself.
    init(_ code: Status.Code, _ message: String, cause: (any Error)? = nil) {
        self.code = code
        self.message = message
        self.retryDelay = nil
        self.isRetryable = false
        self.cause = cause
    }

    /// Creates an error from the status of a call.
    init(_ error: RPCError) {
        switch RetryPushback(error.metadata) {
        case .none: (self.retryDelay, self.isRetryable) = (nil, error.isNeverProcessed)
        case .wait(let delay): (self.retryDelay, self.isRetryable) = (delay, true)
        case .never: (self.retryDelay, self.isRetryable) = (nil, false)
        }
        self.code = error.code
        self.message = error.message
        self.cause = error.cause
    }

    /// Creates an error from whatever a call or the reading of its response threw.
    init(wrapping error: any Error) {
        switch error {
        case let error as GatewayError: self = error
        case let error as RPCError: self.init(error)
        case let error as ProtoError: self.init(.internal, "the gateway's answer: \(error)", cause: error)
        case let error as TLSError: self.init(.failedPrecondition, "\(error)", cause: error)
        case let error as CancellationError: self.init(.cancelled, "the task was cancelled", cause: error)
        default: self.init(.unknown, "\(error)", cause: error)
        }
    }

    /// The code's name and the message.
    public var description: String { Status(code: self.code, message: self.message).description }
}
