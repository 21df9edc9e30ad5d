// SPDX-License-Identifier: Apache-2.0

/// How a call ended: one of gRPC's seventeen codes and a message for people.
///
/// Source: https://github.com/grpc/grpc/blob/v1.51.1/doc/statuscodes.md
public struct Status: Sendable, Hashable, CustomStringConvertible {
    /// The code that programs act on.
    public var code: Code

    /// The text that people read; empty where there is nothing to add to the code.
    public var message: String

    /// Creates a status.
    ///
    /// - Parameters:
    ///   - code: The code that programs act on.
    ///   - message: The text that people read.
    public init(code: Code, message: String = "") {
        self.code = code
        self.message = message
    }

    /// The status of a call that succeeded.
    public static let ok = Status(code: .ok)

    /// Whether the call succeeded.
    public var isOK: Bool { self.code == .ok }

    /// The code's name, followed by the message if there is one.
    public var description: String {
        self.message.isEmpty ? self.code.name : "\(self.code.name): \(self.message)"
    }
}

extension Status {
    /// One of gRPC's seventeen status codes; the raw value is the number on the wire.
    public enum Code: UInt8, Sendable, Hashable, CaseIterable, CustomStringConvertible {
        /// The call succeeded.
        case ok = 0
        /// The caller gave up on the call.
        case cancelled = 1
        /// An error that fits no other code, or that came without one.
        case unknown = 2
        /// A field of the request is wrong, whatever the state of the server.
        case invalidArgument = 3
        /// The deadline passed before the call ended.
        case deadlineExceeded = 4
        /// Something that the request names does not exist.
        case notFound = 5
        /// Something that the request would create exists.
        case alreadyExists = 6
        /// The caller is known but may not do this.
        case permissionDenied = 7
        /// A queue, a quota or a size limit is used up.
        case resourceExhausted = 8
        /// The server is not in the state that the call needs.
        case failedPrecondition = 9
        /// The call lost a race and may be made again from its beginning.
        case aborted = 10
        /// The request goes past the end of a range.
        case outOfRange = 11
        /// The server does not have this method.
        case unimplemented = 12
        /// One of the two sides broke the protocol or its own invariants.
        case `internal` = 13
        /// The server cannot be reached or is draining; the call may be retried.
        case unavailable = 14
        /// Data was lost and cannot be recovered.
        case dataLoss = 15
        /// The caller has given no valid credentials.
        case unauthenticated = 16

        /// The code's name as the protocol's documents write it, for example `INVALID_ARGUMENT`.
        public var name: String {
            switch self {
            case .ok: "OK"
            case .cancelled: "CANCELLED"
            case .unknown: "UNKNOWN"
            case .invalidArgument: "INVALID_ARGUMENT"
            case .deadlineExceeded: "DEADLINE_EXCEEDED"
            case .notFound: "NOT_FOUND"
            case .alreadyExists: "ALREADY_EXISTS"
            case .permissionDenied: "PERMISSION_DENIED"
            case .resourceExhausted: "RESOURCE_EXHAUSTED"
            case .failedPrecondition: "FAILED_PRECONDITION"
            case .aborted: "ABORTED"
            case .outOfRange: "OUT_OF_RANGE"
            case .unimplemented: "UNIMPLEMENTED"
            case .internal: "INTERNAL"
            case .unavailable: "UNAVAILABLE"
            case .dataLoss: "DATA_LOSS"
            case .unauthenticated: "UNAUTHENTICATED"
            }
        }

        /// The code's name.
        public var description: String { self.name }
    }
}
