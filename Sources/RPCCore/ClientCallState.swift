// SPDX-License-Identifier: Apache-2.0

/// The client's side of one call: what each event means for the call and for its stream.
///
/// A pure machine. The runner sends the request's headers when it creates the machine, tells it what happens, and does
/// what the returned actions say. Once an action carries an ``End`` the call is over: later events from the peer are
/// dropped and later sends are refused, both without an error, since they race with the end.
///
/// - state `waiting`: no response headers yet; can go to `receiving`, `ended`.
/// - state `receiving`: response headers came; can go to `ended`.
/// - state `ended`: the status is known; stays.
///
/// In both open states the request is open until ``requestEnded()`` and half-closed after it.
public struct ClientCallState: ~Copyable {
    /// How the call ended and what is left to do.
    public struct End: Sendable, Hashable {
        /// The status to report.
        public var status: Status
        /// The metadata of the trailers.
        public var metadata: Metadata
        /// The code to reset the stream with; nil where both sides have closed it.
        public var reset: ResetCode?
        /// Whether the server certainly did no work, so that the call may be retried elsewhere.
        public var isSafeToRetry: Bool

        /// Creates the end of a call.
        ///
        /// - Parameters:
        ///   - status: The status to report.
        ///   - metadata: The metadata of the trailers.
        ///   - reset: The code to reset the stream with.
        ///   - isSafeToRetry: Whether the server certainly did no work.
        public init(
            status: Status,
            metadata: Metadata = Metadata(),
            reset: ResetCode? = nil,
            isSafeToRetry: Bool = false
        ) {
            self.status = status
            self.metadata = metadata
            self.reset = reset
            self.isSafeToRetry = isSafeToRetry
        }
    }

    /// What to do with something that the caller sends.
    public enum OnSend: Sendable, Hashable {
        /// Write it to the stream.
        case send
        /// Drop it: the call is over, and the caller learns that from the status.
        case drop
        /// Refuse it: the method takes one message and this is the second, or the request has ended.
        case refuse(Status)
    }

    /// What a header block of the peer means.
    public enum OnHeaders: Sendable, Hashable {
        /// Nothing: an interim response, or the call is over.
        case ignore
        /// The response has begun; hand its metadata to the caller.
        case response(ResponseHead)
        /// The call is over.
        case end(End)
    }

    /// What a message of the peer means.
    public enum OnMessage: Sendable, Hashable {
        /// Hand it to the caller; where the response is a single message, together with the end of the call.
        case deliver
        /// Decompress it with this encoding, within the limit, then deliver it.
        case decompress(String)
        /// Drop it: the call is over.
        case drop
        /// The call is over, and the message is not delivered.
        case end(End)
    }

    /// What an open call knows.
    private struct Open {
        var isRequestOpen = true
        var sentMessages = 0
        var receivedMessages = 0
        var encoding: String?
    }

    /// Where the call is.
    private enum State: ~Copyable {
        case waiting(Open)
        case receiving(Open)
        case ended
    }

    /// The call's state as seen from outside.
    public enum Phase: Sendable, Hashable {
        /// No response headers yet.
        case waiting(requestOpen: Bool)
        /// Response headers came.
        case receiving(requestOpen: Bool, messages: Int)
        /// The status is known.
        case ended
    }

    /// How many messages each side sends.
    public let shape: CallShape

    /// The encodings, `identity` aside, that the runner can decompress.
    public let encodings: [String]

    /// Where the call is.
    private var state: State

    /// Creates the machine of a call whose request headers are being sent.
    ///
    /// - Parameters:
    ///   - shape: How many messages each side sends.
    ///   - encodings: The encodings that the runner can decompress.
    public init(shape: CallShape, encodings: [String] = []) {
        self.init(shape: shape, encodings: encodings, state: .waiting(Open()))
    }

    /// Creates the machine in a state.
    private init(shape: CallShape, encodings: [String], state: consuming State) {
        self.shape = shape
        self.encodings = encodings
        self.state = state
    }

    /// Where the call is, for tests and logs.
    public var phase: Phase {
        switch self.state {
        case .waiting(let open): .waiting(requestOpen: open.isRequestOpen)
        case .receiving(let open): .receiving(requestOpen: open.isRequestOpen, messages: open.receivedMessages)
        case .ended: .ended
        }
    }

    /// Whether the call is over.
    public var isEnded: Bool {
        switch self.state {
        case .ended: true
        case .waiting: false
        case .receiving: false
        }
    }
}

// MARK: - The caller's events

extension ClientCallState {
    /// The caller sends a message.
    ///
    /// - Returns: Whether to write it.
    public mutating func messageSent() -> OnSend {
        self.modify { shape, open in
            guard open.isRequestOpen else {
                return .refuse(
                    Status(code: .internal, message: "a message after the end of the request; send it before")
                )
            }
            guard !(shape.hasSingleRequest && open.sentMessages == 1) else {
                return .refuse(
                    Status(code: .internal, message: "a second message to a method that takes one; send one")
                )
            }
            open.sentMessages += 1
            return .send
        } ?? .drop
    }

    /// The caller has sent its last message.
    ///
    /// - Returns: Whether to write the end of the stream.
    public mutating func requestEnded() -> OnSend {
        self.modify { _, open in
            guard open.isRequestOpen else {
                return .refuse(Status(code: .internal, message: "the request has already ended; end it once"))
            }
            open.isRequestOpen = false
            return .send
        } ?? .drop
    }

    /// The caller gives up.
    ///
    /// - Returns: `CANCELLED` and a reset, or nil where the call is over.
    public mutating func cancelled() -> End? {
        self.end(.cancelled, "the call was cancelled by its caller", reset: .cancel)
    }

    /// The deadline has passed; whatever the peer sent in the meantime is ignored.
    ///
    /// - Returns: `DEADLINE_EXCEEDED` and a reset, or nil where the call is over.
    public mutating func deadlineExpired() -> End? {
        self.end(.deadlineExceeded, "the deadline passed before the call ended", reset: .cancel)
    }

    /// A message could not be deframed, decompressed or parsed.
    ///
    /// - Parameter error: What is wrong with it.
    /// - Returns: The error's status and a reset, or nil where the call is over.
    public mutating func failed(_ error: RPCError) -> End? {
        self.end(error.code, error.message, reset: .cancel)
    }
}

// MARK: - The peer's events

extension ClientCallState {
    /// A header block came.
    ///
    /// - Parameters:
    ///   - fields: The block, names in lower case.
    ///   - endStream: Whether it ends the stream.
    /// - Returns: What it means.
    public mutating func headersReceived(_ fields: [HeaderField], endStream: Bool) -> OnHeaders {
        self.headersReceived(ResponseFields(fields), endStream: endStream)
    }

    /// A header block came, which may already have been parsed.
    ///
    /// - Parameters:
    ///   - block: The block.
    ///   - endStream: Whether it ends the stream.
    /// - Returns: What it means.
    public mutating func headersReceived(_ block: ResponseFields, endStream: Bool) -> OnHeaders {
        switch consume self.state {
        case .ended:
            self = .init(shape: self.shape, encodings: self.encodings, state: .ended)
            return .ignore

        case .waiting(var open):
            switch block.head(endStream: endStream) {
            case .interim:
                self = .init(shape: self.shape, encodings: self.encodings, state: .waiting(open))
                return .ignore
            case .response(let head):
                open.encoding = head.encoding
                self = .init(shape: self.shape, encodings: self.encodings, state: .receiving(open))
                return .response(head)
            case .trailersOnly(let trailers):
                self = .init(shape: self.shape, encodings: self.encodings, state: .ended)
                return .end(Self.end(by: trailers, shape: self.shape, open: open))
            case .failed(let status):
                self = .init(shape: self.shape, encodings: self.encodings, state: .ended)
                let reset: ResetCode? = endStream && !open.isRequestOpen ? nil : .cancel
                return .end(End(status: status, reset: reset))
            }

        case .receiving(let open):
            self = .init(shape: self.shape, encodings: self.encodings, state: .ended)
            guard endStream else {
                let status = Status(code: .internal, message: "a second header block does not end the response")
                return .end(End(status: status, reset: .protocolError))
            }
            return .end(Self.end(by: block.trailers, shape: self.shape, open: open))
        }
    }

    /// A whole message came; its length is within the limit.
    ///
    /// - Parameter isCompressed: The flag of its prefix.
    /// - Returns: What it means.
    public mutating func messageReceived(isCompressed: Bool) -> OnMessage {
        switch consume self.state {
        case .ended:
            self = .init(shape: self.shape, encodings: self.encodings, state: .ended)
            return .drop

        case .waiting:
            self = .init(shape: self.shape, encodings: self.encodings, state: .ended)
            return .end(Self.fault(.internal, "a message came before the response's headers"))

        case .receiving(var open):
            if self.shape.hasSingleResponse, open.receivedMessages == 1 {
                self = .init(shape: self.shape, encodings: self.encodings, state: .ended)
                return .end(Self.fault(.unimplemented, "a second message came from a method that answers with one"))
            }
            guard isCompressed else {
                open.receivedMessages += 1
                self = .init(shape: self.shape, encodings: self.encodings, state: .receiving(open))
                return .deliver
            }
            guard let encoding = open.encoding else {
                self = .init(shape: self.shape, encodings: self.encodings, state: .ended)
                return .end(Self.fault(.internal, "a compressed message came without a grpc-encoding"))
            }
            guard self.encodings.contains(encoding) else {
                self = .init(shape: self.shape, encodings: self.encodings, state: .ended)
                return .end(Self.fault(.internal, "a message came in the unknown encoding \"\(encoding.prefix(32))\""))
            }
            open.receivedMessages += 1
            self = .init(shape: self.shape, encodings: self.encodings, state: .receiving(open))
            return .decompress(encoding)
        }
    }

    /// The peer ended the stream with data, so without trailers.
    ///
    /// - Returns: The end of the call, or nil where it is over.
    public mutating func streamEndedWithoutTrailers() -> End? {
        switch self.phase {
        case .waiting(let isRequestOpen), .receiving(let isRequestOpen, _):
            self.end(.unknown, "the response ended without trailers", reset: isRequestOpen ? .cancel : nil)
        case .ended:
            nil
        }
    }

    /// The peer reset the stream.
    ///
    /// A `NO_ERROR` after the trailers finds the call ended and is ignored.
    ///
    /// - Parameters:
    ///   - code: The frame's code.
    ///   - deadlineHasPassed: Whether the call's deadline is over. Servers reset with `CANCEL` then, and the frame can
    ///     arrive before the caller's own timer has fired.
    /// - Returns: The end of the call, or nil where it is over.
    public mutating func resetReceived(_ code: ResetCode, deadlineHasPassed: Bool = false) -> End? {
        if code == .cancel, deadlineHasPassed {
            return self.end(.deadlineExceeded, "the deadline passed before the call ended")
        }
        let isSafe = code == .refusedStream
        return self.end(
            ResetCodeMapping.code(for: code),
            "the peer reset the stream with \(code)",
            isSafeToRetry: isSafe
        )
    }

    /// The connection is lost, or is going away without having taken the stream.
    ///
    /// - Parameters:
    ///   - reason: What happened, for people.
    ///   - isUnprocessed: Whether the peer said (with the last stream of its `GOAWAY`) that it did no work, or the
    ///     request was never sent.
    /// - Returns: `UNAVAILABLE`, or nil where the call is over.
    public mutating func connectionLost(_ reason: String, isUnprocessed: Bool = false) -> End? {
        self.end(.unavailable, reason, isSafeToRetry: isUnprocessed)
    }
}

// MARK: - Transitions

extension ClientCallState {
    /// Changes what an open call knows; does nothing where the call is over.
    private mutating func modify(_ change: (CallShape, inout Open) -> OnSend) -> OnSend? {
        switch consume self.state {
        case .waiting(var open):
            let action = change(self.shape, &open)
            self = .init(shape: self.shape, encodings: self.encodings, state: .waiting(open))
            return action
        case .receiving(var open):
            let action = change(self.shape, &open)
            self = .init(shape: self.shape, encodings: self.encodings, state: .receiving(open))
            return action
        case .ended:
            self = .init(shape: self.shape, encodings: self.encodings, state: .ended)
            return nil
        }
    }

    /// Ends an open call with a status made on this side.
    private mutating func end(
        _ code: Status.Code,
        _ message: String,
        reset: ResetCode? = nil,
        isSafeToRetry: Bool = false
    ) -> End? {
        if self.isEnded {
            return nil
        }
        self = .init(shape: self.shape, encodings: self.encodings, state: .ended)
        return End(status: Status(code: code, message: message), reset: reset, isSafeToRetry: isSafeToRetry)
    }

    /// The end that trailers bring; a server that ends before the request does is told that nothing more will come.
    private static func end(by trailers: Trailers, shape: CallShape, open: Open) -> End {
        var status = trailers.status
        if status.isOK, shape.hasSingleResponse, open.receivedMessages == 0 {
            status = Status(code: .unimplemented, message: "OK without a message from a method that answers with one")
        }
        return End(status: status, metadata: trailers.metadata, reset: open.isRequestOpen ? .noError : nil)
    }

    /// The end of a call whose peer broke the protocol.
    private static func fault(_ code: Status.Code, _ message: String) -> End {
        End(status: Status(code: code, message: message), reset: .cancel)
    }
}
