// SPDX-License-Identifier: Apache-2.0

internal import RPCCore

/// Why an HTTP request gets no answer: a status, and what each dialect says of it.
struct DoorFault: Error, Sendable, Equatable {
    /// The status of HTTP.
    var status: Int
    /// The status of gRPC for the same reason.
    var code: Status.Code
    /// What is wrong, with the field, its limit and its value.
    var message: String
    /// The field of the body that is wrong, in the dialect's own words; nil where it is no single field.
    var field: String?
    /// OpenAI's word for the reason; nil where it has none.
    var reason: String?
    /// When to try again, in milliseconds.
    var retryMilliseconds: Int64?

    init(
        _ status: Int,
        _ code: Status.Code,
        _ message: String,
        field: String? = nil,
        reason: String? = nil,
        retryMilliseconds: Int64? = nil
    ) {
        self.status = status
        self.code = code
        self.message = message
        self.field = field
        self.reason = reason
        self.retryMilliseconds = retryMilliseconds
    }

    /// A field with a value that cannot be honoured.
    ///
    /// - Parameters:
    ///   - field: The field.
    ///   - words: What is wrong with it, as the end of a sentence that begins with the field.
    /// - Returns: The fault.
    static func invalid(_ field: String, _ words: String) -> DoorFault {
        DoorFault(400, .invalidArgument, field.isEmpty ? "the body \(words)" : "\(field) \(words)", field: field)
    }

    /// Whatever ended a request.
    init(_ error: any Error) {
        switch error {
        case let fault as DoorFault: self = fault
        case let error as RPCError: self.init(error)
        case is CancellationError: self.init(499, .cancelled, "the client left before the request was done")
        default: self.init(500, .internal, "the gateway failed to answer: \(error)")
        }
    }

    /// What the gateway says over gRPC, over HTTP.
    ///
    /// Source of the statuses: https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto. Deviation:
    /// RESOURCE_EXHAUSTED that comes without a time to try again is an input over a limit, which no repetition helps, so it is
    /// 400 and not 429; and DEADLINE_EXCEEDED, a deadline that the client itself has set, is 408 and not 504.
    init(_ error: RPCError) {
        self.init(500, error.code, error.message)
        if case .wait(let time) = RetryPushback(error.metadata) {
            let (seconds, attoseconds) = time.components
            self.retryMilliseconds = seconds * 1_000 + attoseconds / 1_000_000_000_000_000
        }
        switch error.code {
        case .invalidArgument, .failedPrecondition, .outOfRange: self.status = 400
        case .unauthenticated:
            self.status = 401
            self.reason = "invalid_api_key"
        case .permissionDenied: self.status = 403
        case .notFound, .unimplemented: self.status = 404
        case .aborted, .alreadyExists: self.status = 409
        case .resourceExhausted:
            let isOverLimit = self.retryMilliseconds == nil
            self.status = isOverLimit ? 400 : 429
            self.reason = isOverLimit ? "context_length_exceeded" : "rate_limit_exceeded"
        case .cancelled: self.status = 499
        case .unavailable: self.status = 503
        case .deadlineExceeded: self.status = 408
        case .ok, .unknown, .internal, .dataLoss: self.status = 500
        }
    }

    /// The same fault with the gateway's names of fields replaced by a dialect's.
    ///
    /// - Parameter names: The gateway's names, and the dialect's.
    /// - Returns: The fault.
    func renamed(_ names: KeyValuePairs<String, String>) -> DoorFault {
        guard self.field == nil else { return self }
        var fault = self
        for (own, theirs) in names {
            for prefix in ["the number of biases in ", "the length of ", "the number of tokens in ", ""] {
                guard self.message.hasPrefix(prefix + own) else { continue }
                let rest = self.message.dropFirst(prefix.count + own.count)
                guard rest.first.map({ !$0.isLetter && $0 != "_" }) ?? true else { continue }
                fault.message = prefix + theirs + rest
                fault.field = theirs
                return fault
            }
        }
        return fault
    }
}
