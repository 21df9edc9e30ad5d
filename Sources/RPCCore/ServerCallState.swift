// SPDX-License-Identifier: Apache-2.0

/// The server's side of one call: what each event means for the handler and for the stream.
///
/// A pure machine, created when a stream's first header block comes. The runner tells it what happens and does what the
/// returned actions say. Once the call has ended, later events from the peer are dropped and what the handler still
/// sends is refused with ``OnSend/drop``, since both race with the end.
///
/// - state `idle`: no headers yet; can go to `routing`, `ended`.
/// - state `routing`: headers are good and the method is being looked up; can go to `open`, `ended`.
/// - state `open`: a handler runs; can go to `ended`.
/// - state `ended`: trailers or a reset are sent, or the peer is gone; stays.
public struct ServerCallState: ~Copyable {
    /// What a running call knows.
    private struct Open {
        var shape: CallShape
        var encoding: String?
        var isRequestOpen: Bool
        var isHeadSent = false
        var sentMessages = 0
        var receivedMessages = 0
    }

    /// Where the call is.
    private enum State: ~Copyable {
        case idle
        case routing(encoding: String?, isRequestOpen: Bool)
        case open(Open)
        case ended
    }

    /// The call's state as seen from outside.
    public enum Phase: Sendable, Hashable {
        /// No headers yet.
        case idle
        /// The method is being looked up.
        case routing(requestOpen: Bool)
        /// A handler runs.
        case open(requestOpen: Bool, received: Int, sent: Int)
        /// The call is over.
        case ended
    }

    /// The encodings, `identity` aside, that the runner can decompress.
    public let encodings: [String]

    /// Where the call is.
    private var state: State

    /// Creates the machine of a stream that has just been opened.
    ///
    /// - Parameter encodings: The encodings that the runner can decompress.
    public init(encodings: [String] = []) {
        self.init(encodings: encodings, state: .idle)
    }

    /// Creates the machine in a state.
    private init(encodings: [String], state: consuming State) {
        self.encodings = encodings
        self.state = state
    }

    /// Where the call is, for tests and logs.
    public var phase: Phase {
        switch self.state {
        case .idle: .idle
        case .routing(_, let isRequestOpen): .routing(requestOpen: isRequestOpen)
        case .open(let open):
            .open(requestOpen: open.isRequestOpen, received: open.receivedMessages, sent: open.sentMessages)
        case .ended: .ended
        }
    }

    /// Whether the call is over.
    public var isEnded: Bool {
        switch self.state {
        case .ended: true
        case .idle: false
        case .routing: false
        case .open: false
        }
    }

    /// How many messages each side sends, while a handler runs.
    var shape: CallShape? {
        switch self.state {
        case .open(let open): open.shape
        case .idle: nil
        case .routing: nil
        case .ended: nil
        }
    }
}

// MARK: - The peer's events

extension ServerCallState {
    /// A header block came.
    ///
    /// - Parameters:
    ///   - fields: The block, names in lower case.
    ///   - endStream: Whether it ends the stream.
    ///   - now: The time, from which the deadline is counted.
    /// - Returns: What it means. A second block from the client is a protocol error.
    public mutating func headersReceived(
        _ fields: [HeaderField],
        endStream: Bool,
        now: ContinuousClock.Instant
    ) -> OnHeaders {
        let parsed = RequestHead.parse(fields)
        switch self.headersReceived(parsed, endStream: endStream) {
        case .route:
            guard case .call(let head) = parsed else { return .ignore }
            return .route(head, deadline: head.timeout.flatMap { $0.deadline(from: now) })
        case .end(let ending): return .end(ending)
        case .reset(let code, let cancelHandler): return .reset(code, cancelHandler: cancelHandler)
        case .ignore: return .ignore
        }
    }

    /// A header block came that was already parsed, for this call or for another with the same block.
    ///
    /// - Parameters:
    ///   - parsed: What the block is.
    ///   - endStream: Whether it ends the stream.
    /// - Returns: What it means. A second block from the client is a protocol error.
    public mutating func headersReceived(_ parsed: RequestHead.Parsed, endStream: Bool) -> OnParsedHeaders {
        switch consume self.state {
        case .idle:
            switch parsed {
            case .call(let head):
                self = .init(
                    encodings: self.encodings,
                    state: .routing(encoding: head.encoding, isRequestOpen: !endStream)
                )
                return .route
            case .notGRPC(let fields):
                self = .init(encodings: self.encodings, state: .ended)
                return .end(Ending(.http(fields), reset: endStream ? nil : .noError))
            case .refused(let status):
                self = .init(encodings: self.encodings, state: .ended)
                return .end(Ending(.trailersOnly(Trailers(status: status)), reset: endStream ? nil : .noError))
            }
        case .routing:
            self = .init(encodings: self.encodings, state: .ended)
            return .reset(.protocolError, cancelHandler: false)
        case .open:
            self = .init(encodings: self.encodings, state: .ended)
            return .reset(.protocolError, cancelHandler: true)
        case .ended:
            self = .init(encodings: self.encodings, state: .ended)
            return .ignore
        }
    }

    /// A whole message came; its length is within the limit.
    ///
    /// - Parameter isCompressed: The flag of its prefix.
    /// - Returns: What it means.
    public mutating func messageReceived(isCompressed: Bool) -> OnMessage {
        switch consume self.state {
        case .idle:
            self = .init(encodings: self.encodings, state: .idle)
            return .drop
        case .routing(let encoding, let isRequestOpen):
            self = .init(
                encodings: self.encodings,
                state: .routing(encoding: encoding, isRequestOpen: isRequestOpen)
            )
            return .drop
        case .ended:
            self = .init(encodings: self.encodings, state: .ended)
            return .drop
        case .open(var open):
            if let status = Self.fault(of: open, isCompressed: isCompressed, encodings: self.encodings) {
                self = .init(encodings: self.encodings, state: .ended)
                let accepted = status.code == .unimplemented && isCompressed ? self.encodings : []
                return .end(Self.ending(of: open, trailers: Trailers(status: status), acceptedEncodings: accepted))
            }
            open.receivedMessages += 1
            let encoding = isCompressed ? open.encoding : nil
            self = .init(encodings: self.encodings, state: .open(open))
            return encoding.map { .decompress($0) } ?? .deliver
        }
    }

    /// The peer ended the request.
    ///
    /// - Returns: What it means. A request that needs one message and has none ends as `UNIMPLEMENTED`.
    public mutating func requestEnded() -> OnRequestEnd {
        switch consume self.state {
        case .idle:
            self = .init(encodings: self.encodings, state: .idle)
            return .drop
        case .routing(let encoding, _):
            self = .init(encodings: self.encodings, state: .routing(encoding: encoding, isRequestOpen: false))
            return .drop
        case .ended:
            self = .init(encodings: self.encodings, state: .ended)
            return .drop
        case .open(var open):
            open.isRequestOpen = false
            if open.shape.hasSingleRequest, open.receivedMessages == 0 {
                self = .init(encodings: self.encodings, state: .ended)
                let status = Status(
                    code: .unimplemented,
                    message: "the request has no message and the method takes one"
                )
                return .end(Self.ending(of: open, trailers: Trailers(status: status)))
            }
            self = .init(encodings: self.encodings, state: .open(open))
            return .deliver
        }
    }

    /// The peer reset the stream, or its connection is lost.
    ///
    /// - Returns: Whether there is a handler to cancel; never a reset.
    public mutating func peerLeft() -> OnAbort { self.abort(reset: nil) }
}

// MARK: - This side's events

extension ServerCallState {
    /// The method exists and its handler is about to run.
    ///
    /// Call it only in the state `routing`; elsewhere it changes nothing, since the peer may have left.
    ///
    /// - Parameter shape: How many messages each side sends.
    /// - Returns: Whether to run the handler.
    public mutating func methodFound(_ shape: CallShape) -> Bool {
        switch consume self.state {
        case .routing(let encoding, let isRequestOpen):
            let open = Open(shape: shape, encoding: encoding, isRequestOpen: isRequestOpen)
            self = .init(encodings: self.encodings, state: .open(open))
            return true
        case .idle:
            self = .init(encodings: self.encodings, state: .idle)
            return false
        case .open(let open):
            self = .init(encodings: self.encodings, state: .open(open))
            return false
        case .ended:
            self = .init(encodings: self.encodings, state: .ended)
            return false
        }
    }

    /// The handler sends a message.
    ///
    /// - Parameter initialMetadata: The key-value pairs of the head, used with the first message only.
    /// - Returns: What to write.
    public mutating func messageSent(initialMetadata: Metadata = Metadata()) -> OnSend {
        switch consume self.state {
        case .idle:
            self = .init(encodings: self.encodings, state: .idle)
            return .drop
        case .routing(let encoding, let isRequestOpen):
            self = .init(
                encodings: self.encodings,
                state: .routing(encoding: encoding, isRequestOpen: isRequestOpen)
            )
            return .drop
        case .ended:
            self = .init(encodings: self.encodings, state: .ended)
            return .drop
        case .open(var open):
            if open.shape.hasSingleResponse, open.sentMessages == 1 {
                self = .init(encodings: self.encodings, state: .open(open))
                return .refuse(
                    Status(code: .internal, message: "a second message from a method that answers with one; send one")
                )
            }
            open.sentMessages += 1
            let isFirst = !open.isHeadSent
            open.isHeadSent = true
            self = .init(encodings: self.encodings, state: .open(open))
            return isFirst ? .sendHead(ResponseHead(metadata: initialMetadata)) : .send
        }
    }

    /// The handler sends its initial metadata ahead of any message.
    ///
    /// - Parameter metadata: The key-value pairs of the head.
    /// - Returns: The header block to write, or nil where it was already written or the call is over.
    public mutating func headSent(_ metadata: Metadata) -> ResponseHead? {
        switch consume self.state {
        case .open(var open):
            let isFirst = !open.isHeadSent
            open.isHeadSent = true
            self = .init(encodings: self.encodings, state: .open(open))
            return isFirst ? ResponseHead(metadata: metadata) : nil
        case .idle:
            self = .init(encodings: self.encodings, state: .idle)
            return nil
        case .routing(let encoding, let isRequestOpen):
            self = .init(
                encodings: self.encodings,
                state: .routing(encoding: encoding, isRequestOpen: isRequestOpen)
            )
            return nil
        case .ended:
            self = .init(encodings: self.encodings, state: .ended)
            return nil
        }
    }

    /// The handler has ended, or there is none to run.
    ///
    /// - Parameters:
    ///   - status: How the call ended. `OK` without a message from a method that answers with one becomes `INTERNAL`.
    ///   - metadata: The server's last key-value pairs.
    /// - Returns: What to write, or nil where the call is over.
    public mutating func statusSent(_ status: Status, metadata: Metadata = Metadata()) -> Ending? {
        let trailers = Trailers(status: status, metadata: metadata)
        switch consume self.state {
        case .open(let open):
            self = .init(encodings: self.encodings, state: .ended)
            if status.isOK, open.shape.hasSingleResponse, open.sentMessages == 0 {
                let fault = Status(
                    code: .internal,
                    message: "the method ended without sending its response message"
                )
                return Self.ending(of: open, trailers: Trailers(status: fault, metadata: metadata))
            }
            return Self.ending(of: open, trailers: trailers)
        case .routing(_, let isRequestOpen):
            self = .init(encodings: self.encodings, state: .ended)
            return Ending(.trailersOnly(trailers), reset: isRequestOpen ? .noError : nil)
        case .idle:
            self = .init(encodings: self.encodings, state: .idle)
            return nil
        case .ended:
            self = .init(encodings: self.encodings, state: .ended)
            return nil
        }
    }

    /// The deadline has passed: the client knows, and needs no trailers.
    ///
    /// - Returns: Whether there is a handler to cancel, and the reset `CANCEL`.
    public mutating func deadlineExpired() -> OnAbort { self.abort(reset: .cancel) }

    /// The server itself gives up on the call, for example at the end of a drain.
    ///
    /// - Parameter reset: The code to reset the stream with.
    /// - Returns: Whether there is a handler to cancel, and the reset.
    public mutating func cancelled(reset: ResetCode = .cancel) -> OnAbort { self.abort(reset: reset) }
}

// MARK: - Transitions

extension ServerCallState {
    /// Ends an open call without trailers.
    private mutating func abort(reset: ResetCode?) -> OnAbort {
        let wasEnded = self.isEnded
        self = .init(encodings: self.encodings, state: .ended)
        return wasEnded ? .ignore : .cancelHandler(reset: reset)
    }

    /// What is wrong with a message.
    private static func fault(of open: Open, isCompressed: Bool, encodings: [String]) -> Status? {
        if open.shape.hasSingleRequest, open.receivedMessages == 1 {
            return Status(code: .unimplemented, message: "a second message to a method that takes one")
        }
        guard isCompressed else {
            return nil
        }
        guard let encoding = open.encoding else {
            return Status(code: .internal, message: "a compressed message without a grpc-encoding")
        }
        guard encodings.contains(encoding) else {
            return Status(
                code: .unimplemented,
                message: "a message in the unknown encoding \"\(encoding.prefix(32))\"; use one of grpc-accept-encoding"
            )
        }
        return nil
    }

    /// The block that ends an open call: trailers, or everything in one block where nothing has been sent.
    private static func ending(of open: Open, trailers: Trailers, acceptedEncodings: [String] = []) -> Ending {
        Ending(
            open.isHeadSent ? .trailers(trailers) : .trailersOnly(trailers, acceptedEncodings: acceptedEncodings),
            reset: open.isRequestOpen ? .noError : nil
        )
    }
}
