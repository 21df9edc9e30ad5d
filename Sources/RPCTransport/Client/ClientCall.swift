// SPDX-License-Identifier: Apache-2.0

internal import HTTP2Session
internal import NIOCore
internal import RPCCore

/// One call of a client: runs its machine and carries messages out and back.
///
/// Belongs to the event loop of its connection slot. It completes exactly once, whatever happens.
final class ClientCall {
    /// Who gets the responses.
    enum Sink {
        /// A completion that wants the one response.
        case unary((Result<UnaryReply, RPCError>) -> Void)
        /// A reader of any number of responses.
        case stream(MessageInbox, ResponseDetails)
        /// Nobody any more.
        case none
    }

    let method: Method
    let options: CallOptions
    private let token: CallToken
    private let limits: TransportLimits
    private var state: ClientCallState
    private var assembler: MessageAssembler
    private var sink: Sink
    private let gate: WriteGate?
    /// What waits for the stream to be opened.
    private var unsent: [Payload]
    private var requestIsComplete: Bool
    private var response: ByteBuffer?
    private var initialMetadata = Metadata()
    private var uncreditedBytes = 0
    private(set) var streamID: Int32?
    private weak var connection: ClientConnection?
    /// The timer of a call that waits for a connection.
    var waitTimer: Scheduled<Void>?

    /// Creates a call.
    ///
    /// The payload is the request of a method that takes one; without it, messages follow through the gate.
    init(
        method: Method,
        shape: CallShape,
        payload: Payload?,
        options: CallOptions,
        limits: TransportLimits,
        token: CallToken,
        gate: WriteGate?,
        sink: Sink
    ) {
        self.method = method
        self.options = options
        self.limits = limits
        self.token = token
        self.gate = gate
        self.sink = sink
        self.state = ClientCallState(shape: shape)
        self.assembler = MessageAssembler(maxMessageBytes: limits.maxReceiveMessageBytes)
        self.unsent = []
        self.requestIsComplete = false
        if let payload {
            self.send(payload)
            self.endRequest()
        }
    }

    /// Whether the call has completed.
    var isEnded: Bool { self.state.isEnded }

    // MARK: - The caller's events

    /// Opens the call's stream on a connection.
    func start(on connection: ClientConnection) {
        self.waitTimer?.cancel()
        self.waitTimer = nil
        guard !self.state.isEnded else { return }
        var timeout: Timeout?
        if let deadline = self.options.deadline {
            let left = deadline - .now
            guard left > .zero else {
                self.finish(self.state.deadlineExpired())
                return
            }
            timeout = left > Timeout.horizon ? nil : Timeout(covering: left)
        }
        let head = RequestHead(
            method: self.method,
            scheme: connection.scheme,
            authority: connection.authority,
            timeout: timeout,
            userAgent: ClientConnection.userAgent,
            metadata: self.options.metadata
        )
        let pieces = self.unsent.flatMap { $0.framed() }
        let sent = self.unsent
        self.unsent = []
        do throws(HTTP2CodecError) {
            let streamID = try connection.open(self, head.fields())
            self.streamID = streamID
            self.connection = connection
            if !pieces.isEmpty || self.requestIsComplete {
                try connection.codec.submitData(streamID: streamID, pieces, endStream: self.requestIsComplete)
            }
            for payload in sent { self.reportSubmitted(payload) }
            connection.setNeedsFlush()
        } catch {
            if let streamID = self.streamID { connection.codec.reset(streamID: streamID, code: .cancel) }
            self.finish(with: .notSent(error.code == .invalidHeader ? .internal : .unavailable, error.message))
        }
    }

    /// Sends a message, or keeps it until the stream is open.
    func send(_ payload: Payload) {
        guard payload.byteCount <= Int(UInt32.max) else {
            self.fail(
                RPCError(.internal, "a message of \(payload.byteCount) bytes is over gRPC's limit of 4 GiB; send less")
            )
            return
        }
        switch self.state.messageSent() {
        case .send: break
        case .drop: return
        case .refuse(let status):
            self.fail(RPCError(status.code, status.message))
            return
        }
        guard let connection = self.connection, let streamID = self.streamID else {
            self.unsent.append(payload)
            return
        }
        do throws(HTTP2CodecError) {
            try connection.codec.submitData(streamID: streamID, payload.framed())
            self.reportSubmitted(payload)
            connection.setNeedsFlush()
        } catch {
            self.fail(RPCError(.internal, error.message))
        }
    }

    /// Says that no message follows.
    func endRequest() {
        guard case .send = self.state.requestEnded() else { return }
        self.requestIsComplete = true
        guard let connection = self.connection, let streamID = self.streamID else { return }
        do throws(HTTP2CodecError) {
            try connection.codec.submitData(streamID: streamID, [], endStream: true)
            connection.setNeedsFlush()
        } catch {
            self.fail(RPCError(.internal, error.message))
        }
    }

    func cancel() {
        let wasSent = self.streamID != nil
        guard let end = self.state.cancelled() else { return }
        self.finish(end, neverSent: !wasSent)
    }

    func deadlineExpired() {
        self.finish(self.state.deadlineExpired())
    }

    /// Gives the call up before or after its stream was opened.
    func fail(_ error: RPCError) {
        guard let end = self.state.failed(error) else { return }
        self.reset(end.reset)
        self.complete(.failure(error))
    }

    /// Gives credit for what the reader has taken.
    func creditIfEmptied() {
        guard self.uncreditedBytes > 0, let streamID = self.streamID, let connection = self.connection else { return }
        if case .stream(let inbox, _) = self.sink, !inbox.isEmpty { return }
        connection.codec.consume(streamID: streamID, byteCount: self.uncreditedBytes)
        self.uncreditedBytes = 0
        connection.setNeedsFlush()
    }

    // MARK: - The peer's events

    func headersReceived(_ block: HTTP2HeaderBlock) {
        switch self.state.headersReceived(block.callFields, endStream: block.endStream) {
        case .ignore:
            break
        case .response(let head):
            self.initialMetadata = head.metadata
            if case .stream(_, let details) = self.sink { details.setInitial(head.metadata) }
        case .end(let end):
            do throws(RPCError) {
                if end.status.isOK { try self.assembler.end() }
                self.finish(end)
            } catch {
                self.complete(.failure(error))
            }
        }
    }

    func headersTooLarge(sizeBytes: Int, limitBytes: Int) {
        let limit = "the response's header list has \(sizeBytes) bytes, more than the limit of \(limitBytes)"
        self.fail(RPCError(.resourceExhausted, limit + "; raise maxHeaderListBytes"))
    }

    func dataReceived(_ bytes: ByteBuffer) {
        self.uncreditedBytes += bytes.readableBytes
        do throws(RPCError) {
            try self.assembler.feed(bytes) { self.messageReceived($0) }
        } catch {
            self.fail(error)
        }
        self.creditIfEmptied()
    }

    func endedWithoutTrailers() {
        self.finish(self.state.streamEndedWithoutTrailers())
    }

    func streamClosed(code: HTTP2ErrorCode, origin: StreamCloseOrigin) {
        switch origin {
        case .peer:
            self.finish(self.state.resetReceived(ResetCode(code)))
        case .neverProcessed:
            let reason = self.connection?.farewell.map { ": \($0)" } ?? ""
            self.finish(
                self.state.connectionLost(
                    "the server goes away and did not take the call\(reason)",
                    isUnprocessed: true
                )
            )
        case .fault:
            self.fail(RPCError(.internal, "the server broke the protocol: \(code)"))
        case .local:
            self.finish(self.state.streamEndedWithoutTrailers())
        }
        self.streamID = nil
        self.connection = nil
    }

    func connectionLost(_ reason: String) {
        self.streamID = nil
        self.connection = nil
        self.finish(self.state.connectionLost(reason))
    }

    /// The stream's queue has drained.
    func drained() {
        guard let streamID = self.streamID, let connection = self.connection else { return }
        self.gate?.drained(queuedBytes: connection.codec.queuedBytes(streamID: streamID))
    }

    // MARK: - Private

    private func messageReceived(_ message: MessageAssembler.Message) {
        switch self.state.messageReceived(isCompressed: message.isCompressed) {
        case .deliver:
            switch self.sink {
            case .unary: self.response = message.bytes
            case .stream(let inbox, _): inbox.push(message.bytes)
            case .none: break
            }
        case .decompress, .drop:
            // No encodings are accepted, so the machine never asks to decompress.
            break
        case .end(let end):
            self.finish(end)
        }
    }

    private func reportSubmitted(_ payload: Payload) {
        guard let gate = self.gate, let streamID = self.streamID, let codec = self.connection?.codec else { return }
        codec.notifyDrained(streamID: streamID, atOrBelow: gate.drainMark)
        gate.submitted(
            byteCount: payload.byteCount + MessagePrefix.byteCount,
            queuedBytes: codec.queuedBytes(streamID: streamID)
        )
    }

    private func reset(_ code: ResetCode?) {
        guard let code, let streamID = self.streamID, let connection = self.connection else { return }
        connection.codec.reset(streamID: streamID, code: HTTP2ErrorCode(code))
        connection.setNeedsFlush()
    }

    private func finish(_ end: ClientCallState.End?, neverSent: Bool = false) {
        guard let end else { return }
        self.reset(end.reset)
        if var error = RPCError(status: end.status, metadata: end.metadata) {
            if end.isSafeToRetry || neverSent { error.cause = CallNeverProcessed() }
            self.complete(.failure(error))
        } else {
            self.complete(.success(end.metadata))
        }
    }

    private func finish(with error: RPCError) {
        _ = self.state.failed(error)
        self.complete(.failure(error))
    }

    private func complete(_ result: Result<Metadata, RPCError>) {
        let sink = self.sink
        self.sink = .none
        self.unsent = []
        self.waitTimer?.cancel()
        self.waitTimer = nil
        self.token.detach()
        let writeError =
            switch result {
            case .success: RPCError(.internal, "the call has ended; write before its status comes")
            case .failure(let error): error
            }
        self.gate?.close(writeError)
        switch sink {
        case .unary(let completion):
            switch result {
            case .failure(let error):
                completion(.failure(error))
            case .success(let trailing):
                // The machine lets no OK without a message through.
                let message = self.response ?? ByteBuffer()
                self.response = nil
                completion(
                    .success(
                        UnaryReply(
                            message: message,
                            initialMetadata: self.initialMetadata,
                            trailingMetadata: trailing
                        )
                    )
                )
            }
        case .stream(let inbox, let details):
            switch result {
            case .failure(let error):
                details.end(trailing: error.metadata)
                inbox.finish(.failure(error))
            case .success(let trailing):
                details.end(trailing: trailing)
                inbox.finish(.success(()))
            }
        case .none:
            break
        }
    }
}

// The call belongs to its event loop.
@available(*, unavailable)
extension ClientCall: Sendable {}
