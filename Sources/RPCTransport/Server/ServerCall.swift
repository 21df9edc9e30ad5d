// SPDX-License-Identifier: Apache-2.0

internal import HTTP2Session
internal import NIOCore
internal import RPCCore

/// One call on a server's connection: runs its machine and carries messages to the handler and back.
///
/// Belongs to the connection's event loop.
final class ServerCall {
    let streamID: Int32
    let shared: ServerCallShared
    private let connection: ServerConnection
    private var state = ServerCallState(encodings: [Gzip.name])
    /// How this call's messages are sent; decided when its headers came.
    private var compression = MessageCompression.none
    private var assembler: MessageAssembler
    private var handler: ServiceMethod.Handler?
    private var context: ServerContext?
    /// The message of a method that takes one, until the request has ended.
    private var request: ByteBuffer?
    private var inbox: MessageInbox?
    private var gate: WriteGate?
    /// How long the request has been arriving, and how long the peer has read nothing.
    private var arrival = StallClock()
    private var stall = StallClock()
    private var requestIsComplete = false
    /// What counts the call; nil before its method is known.
    private var counts: ServerCounts.MethodCounts?
    private var isCounted = false
    private var receivedBytes = 0
    /// Bytes received and not credited yet.
    private var uncreditedBytes = 0

    init(streamID: Int32, connection: ServerConnection) {
        self.streamID = streamID
        self.connection = connection
        self.shared = ServerCallShared(compressionLog: connection.recordsCompression ? CompressionLog() : nil)
        self.assembler = MessageAssembler(maxMessageBytes: connection.limits.maxReceiveMessageBytes)
    }

    /// Whether the status is decided.
    var isEnded: Bool { self.state.isEnded }

    // MARK: - The peer's events

    /// - Parameters:
    ///   - request: What the block is.
    ///   - timeout: The value of `grpc-timeout`.
    ///   - endStream: Whether the block ends the stream.
    func headersReceived(_ request: ReceivedRequest, timeout: String?, endStream: Bool) {
        var parsed = request.parsed
        var deadline: NIODeadline?
        if let timeout, request.head != nil {
            do throws(TimeoutError) {
                deadline = try Timeout(parsing: timeout).nanoseconds.map { .now() + .nanoseconds($0) }
            } catch {
                parsed = .refused(Status(code: .internal, message: error.description))
            }
        }
        switch self.state.headersReceived(parsed, endStream: endStream) {
        case .route:
            self.route(request, deadline: deadline)
            if endStream { self.requestEnded() }
        case .end(let ending):
            self.send(ending)
        case .reset(let code, let cancelHandler):
            if cancelHandler { self.cancelHandler("the caller broke the protocol") }
            self.connection.codec.reset(streamID: self.streamID, code: HTTP2ErrorCode(code))
        case .ignore:
            break
        }
    }

    /// The request's header block was larger than the limit.
    func headersTooLarge(sizeBytes: Int, limitBytes: Int, endStream: Bool) {
        let message = "the header list has \(sizeBytes) bytes, more than the limit of \(limitBytes); send less metadata"
        switch self.state.phase {
        case .idle:
            let fields = Trailers(status: Status(code: .resourceExhausted, message: message)).trailersOnlyFields()
            // The machine never saw a request, so the stream is answered without it and forgotten.
            _ = self.state.cancelled()
            self.count(.resourceExhausted)
            self.connection.submitHead(self, fields, endStream: true)
            self.connection.codec.resetAfterEnd(streamID: self.streamID, code: .noError)
        case .routing, .open, .ended:
            self.abort(self.state.cancelled(reset: .protocolError), message)
        }
    }

    func dataReceived(_ bytes: ByteBuffer) {
        guard !self.state.isEnded else {
            // Nothing waits for them: not even assembled.
            self.connection.codec.consume(streamID: self.streamID, byteCount: bytes.readableBytes)
            return
        }
        self.uncreditedBytes += bytes.readableBytes
        self.receivedBytes += bytes.readableBytes
        do throws(RPCError) {
            try self.assembler.feed(bytes) { self.messageReceived($0) }
        } catch {
            self.end(error)
        }
        self.creditIfEmptied()
    }

    /// Ends a call whose one message does not arrive, and one whose messages are not read.
    func sweep(_ timing: ConnectionTiming, now: ContinuousClock.Instant) {
        // A stream of messages may pause between two, and take its time inside a large one; it must not stop there.
        let isStream = self.inbox != nil
        let awaitsMessage =
            !self.requestIsComplete && !self.state.isEnded && !(isStream && self.assembler.isBetweenMessages)
        let progress = isStream ? self.receivedBytes : 0
        if let limit = timing.requestTimeout,
            self.arrival.observe(isWaiting: awaitsMessage, progress: progress, now: now) >= limit
        {
            self.end(RPCError(.deadlineExceeded, "the request did not arrive within \(limit)"))
            return
        }
        let codec = self.connection.codec
        let isWaiting = codec.queuedBytes(streamID: self.streamID) > 0
        let sent = codec.sentBytes(streamID: self.streamID)
        if let limit = timing.stallTimeout,
            self.stall.observe(isWaiting: isWaiting, progress: sent, now: now) >= limit
        {
            self.cancelHandler("the caller read nothing for \(limit)")
            _ = self.state.cancelled()
            codec.reset(streamID: self.streamID, code: .cancel)
            self.connection.setNeedsFlush()
        }
    }

    func requestEnded() {
        self.requestIsComplete = true
        do throws(RPCError) {
            try self.assembler.end()
        } catch {
            self.end(error)
            return
        }
        switch self.state.requestEnded() {
        case .deliver:
            self.inbox?.finish(.success(()))
            if let request = self.request {
                self.request = nil
                self.start(with: request)
            }
        case .drop:
            break
        case .end(let ending):
            self.cancelHandler("the request broke the protocol")
            self.send(ending)
        }
    }

    /// The stream is closed, or the connection is lost.
    ///
    /// Nothing comes after it.
    func peerLeft() {
        self.abort(self.state.peerLeft(), "the caller has left")
        self.count(.cancelled)
        // Gate and inbox hold the call to report to it: unless it releases them, all three leak, along with the
        // connection and its codec.
        self.gate = nil
        self.inbox = nil
        self.handler = nil
        self.context = nil
    }

    /// The stream's queue has drained.
    func drained() {
        self.gate?.drained(queuedBytes: self.connection.codec.queuedBytes(streamID: self.streamID))
    }

    /// The deadline has passed.
    ///
    /// The status is sent although the client knows: one whose timer lags a little would take a reset with `CANCEL` for
    /// a cancellation. Where messages still wait for the client to read them, trailers would queue after them, so the
    /// stream is reset instead.
    func deadlineExpired() {
        let reason = "the deadline has passed"
        if self.connection.codec.queuedBytes(streamID: self.streamID) == 0 {
            self.end(RPCError(.deadlineExceeded, reason))
        } else {
            self.abort(self.state.deadlineExpired(), reason)
        }
    }

    /// The server gives up on the call at the end of its drain.
    func abandon() {
        self.abort(self.state.cancelled(), "the server is shutting down")
    }

    /// Gives credit for what the handler has taken.
    func creditIfEmptied() {
        guard self.uncreditedBytes > 0, self.inbox?.isEmpty ?? true else { return }
        self.connection.codec.consume(streamID: self.streamID, byteCount: self.uncreditedBytes)
        self.uncreditedBytes = 0
        self.connection.setNeedsFlush()
    }

    // MARK: - The handler's events

    /// The handler of a method with one response has ended.
    func finish(_ result: Result<Payload, RPCError>) {
        switch result {
        case .success(let payload):
            guard !self.state.isEnded else { return }
            self.submit(payload)
            self.finish(.ok)
        case .failure(let error):
            self.finish(error.status, metadata: error.metadata)
        }
    }

    /// The handler has ended with a status.
    func finish(_ status: Status, metadata: Metadata = Metadata()) {
        var trailing = self.shared.trailing
        trailing.add(contentsOf: metadata)
        guard let ending = self.state.statusSent(status, metadata: trailing) else { return }
        self.gate?.close(RPCError(.internal, "the call has ended; write before the handler returns"))
        self.inbox?.finish(.failure(RPCError(.cancelled, "the call has ended")))
        self.shared.finish()
        self.send(ending)
    }

    /// Sends one message of the handler.
    func submit(_ payload: Payload) {
        let codec = self.connection.codec
        let count = payload.byteCount + MessagePrefix.byteCount
        defer {
            if let gate = self.gate {
                codec.notifyDrained(streamID: self.streamID, atOrBelow: gate.drainMark)
                gate.submitted(byteCount: count, queuedBytes: codec.queuedBytes(streamID: self.streamID))
            }
        }
        guard payload.byteCount <= Int(UInt32.max) else {
            self.end(
                RPCError(.internal, "a message of \(payload.byteCount) bytes is over gRPC's limit of 4 GiB; send less")
            )
            return
        }
        let limit = self.connection.limits.connectionOutputBytes
        guard codec.queuedBytes == 0 || codec.queuedBytes + count <= limit else {
            self.end(
                RPCError(
                    .resourceExhausted,
                    "\(codec.queuedBytes) bytes of responses wait on this connection and the limit is \(limit); "
                        + "read them before asking for more"
                )
            )
            return
        }
        switch self.state.messageSent(initialMetadata: self.shared.initial) {
        case .sendHead(let head):
            var head = head
            head.encoding = self.compression.encoding
            guard self.connection.submitHead(self, head) else { return }
            self.connection.submitBody(self, self.compression.framed(payload))
        case .send:
            self.connection.submitBody(self, self.compression.framed(payload))
        case .drop:
            break
        case .refuse(let status):
            self.end(RPCError(status.code, status.message))
        }
    }

    /// Ends the call with an error that did not come from its handler.
    func end(_ error: RPCError) {
        guard !self.state.isEnded else { return }
        let ending = self.state.statusSent(error.status, metadata: error.metadata)
        self.cancelHandler(error.message)
        if let ending { self.send(ending) }
    }

    // MARK: - Private

    private func route(_ request: ReceivedRequest, deadline: NIODeadline?) {
        self.counts = request.counts
        self.connection.counts.callBegan()
        let context = ServerContext(
            request: request,
            dueTime: deadline,
            caller: self.connection.caller,
            shared: self.shared
        )
        if let error = self.connection.authorize?(context) {
            let ending = self.state.statusSent(error.status, metadata: error.metadata)
            if let ending { self.send(ending) }
            return
        }
        guard let method = request.method else {
            let message = "this server has no method \(request.head?.method.description ?? "")"
            if let ending = self.state.statusSent(Status(code: .unimplemented, message: message)) { self.send(ending) }
            return
        }
        if let error = self.connection.admit(context) {
            if let ending = self.state.statusSent(error.status, metadata: error.metadata) { self.send(ending) }
            return
        }
        guard self.state.methodFound(method.shape) else { return }
        self.context = context
        let accepted = request.head?.acceptedEncodings ?? []
        if let encoding = self.connection.compression.encoding, accepted.contains(encoding) {
            self.compression = self.connection.compression
        }
        self.handler = method.handler
        if let deadline { self.connection.watchDeadline(of: self, deadline) }
        if !method.shape.hasSingleRequest { self.startStreaming(method.handler, context) }
    }

    private func messageReceived(_ message: MessageAssembler.Message) {
        self.shared.compressionLog?.add(message.isCompressed)
        switch self.state.messageReceived(isCompressed: message.isCompressed) {
        case .deliver:
            self.deliver(message.bytes)
        case .decompress:
            do throws(RPCError) {
                let limit = self.connection.limits.maxReceiveMessageBytes
                self.deliver(try Gzip.decompressed(message.bytes, limitBytes: limit))
            } catch {
                self.end(error)
            }
        case .drop:
            break
        case .end(let ending):
            self.cancelHandler("the request broke the protocol")
            self.send(ending)
        }
    }

    private func deliver(_ message: ByteBuffer) {
        if let inbox = self.inbox { inbox.push(message) } else { self.request = message }
    }

    private func abort(_ action: ServerCallState.OnAbort, _ reason: String) {
        guard case .cancelHandler(let reset) = action else { return }
        self.cancelHandler(reason)
        if let reset {
            self.connection.codec.reset(streamID: self.streamID, code: HTTP2ErrorCode(reset))
            self.connection.setNeedsFlush()
        }
    }

    private func cancelHandler(_ reason: String) {
        let error = RPCError(.cancelled, reason)
        self.request = nil
        // First: a writer or a reader that wakes up with the error may ask whether the call was cancelled.
        self.shared.cancel()
        self.gate?.close(error)
        self.inbox?.finish(.failure(error))
    }

    private func send(_ ending: ServerCallState.Ending) {
        switch ending.block {
        case .trailers(let trailers), .trailersOnly(let trailers, _): self.count(trailers.status.code)
        // No call of gRPC.
        case .http: self.isCounted = true
        }
        self.connection.submitEnd(self, ending)
    }

    /// Counts the call's first end.
    private func count(_ code: Status.Code) {
        guard !self.isCounted else { return }
        self.isCounted = true
        (self.counts ?? self.connection.counts.counts(of: nil)).add(code)
        if self.counts != nil { self.connection.counts.callEnded() }
    }

    // MARK: - Handlers

    private func start(with request: ByteBuffer) {
        guard let handler = self.handler, let context = self.context else { return }
        let bound = NIOLoopBound(self, eventLoop: self.connection.eventLoop)
        switch handler {
        case .eventLoop(let body):
            body(request, context, UnaryResponder(eventLoop: self.connection.eventLoop, call: bound))
        case .unary(let body):
            let responder = UnaryResponder(eventLoop: self.connection.eventLoop, call: bound)
            self.accept {
                do {
                    responder.finish(.success(try await body(request, context)))
                } catch {
                    responder.finish(.failure(.thrown(error)))
                }
            }
        case .serverStreaming(let body):
            let writer = self.makeWriter(bound)
            self.acceptStreaming { try await body(request, context, writer) }
        case .clientStreaming, .bidirectional:
            break
        }
    }

    private func startStreaming(_ handler: ServiceMethod.Handler, _ context: ServerContext) {
        let bound = NIOLoopBound(self, eventLoop: self.connection.eventLoop)
        let eventLoop = self.connection.eventLoop
        let inbox = MessageInbox { eventLoop.execute { bound.value.creditIfEmptied() } }
        self.inbox = inbox
        let requests = RequestStream(inbox: inbox)
        switch handler {
        case .clientStreaming(let body):
            let responder = UnaryResponder(eventLoop: eventLoop, call: bound)
            self.accept {
                do {
                    responder.finish(.success(try await body(requests, context)))
                } catch {
                    responder.finish(.failure(.thrown(error)))
                }
            }
        case .bidirectional(let body):
            let writer = self.makeWriter(bound)
            self.acceptStreaming { try await body(requests, context, writer) }
        case .eventLoop, .unary, .serverStreaming:
            break
        }
    }

    private func makeWriter(_ bound: NIOLoopBound<ServerCall>) -> ResponseWriter {
        let gate = WriteGate(
            eventLoop: self.connection.eventLoop,
            limitBytes: self.connection.limits.writeBufferBytes,
            submit: { bound.value.submit($0) }
        )
        self.gate = gate
        return ResponseWriter(gate: gate)
    }

    private func accept(_ body: @escaping @Sendable () async -> Void) {
        self.connection.accept(AcceptedCall(shared: self.shared, body: body))
    }

    /// Runs a handler that ends the call by returning.
    private func acceptStreaming(_ body: @escaping @Sendable () async throws -> Void) {
        let eventLoop = self.connection.eventLoop
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        self.accept {
            do {
                try await body()
                eventLoop.execute { bound.value.finish(.ok) }
            } catch {
                let error = RPCError.thrown(error)
                eventLoop.execute { bound.value.finish(error.status, metadata: error.metadata) }
            }
        }
    }
}

// The call belongs to its connection's event loop.
@available(*, unavailable)
extension ServerCall: Sendable {}
