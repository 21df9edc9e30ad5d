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
    let connection: ServerConnection
    var state = ServerCallState(encodings: [Gzip.name])
    /// How this call's messages are sent; decided when its headers came.
    var compression = MessageCompression.none
    var assembler: MessageAssembler
    /// The largest message of the request, in bytes.
    private var maxRequestBytes: Int
    var handler: ServiceMethod.Handler?
    var context: ServerContext?
    /// The message of a method that takes one, until the request has ended.
    var request: ByteBuffer?
    var inbox: MessageInbox?
    var gate: WriteGate?
    /// How long the request has been arriving, and how long the peer has read nothing.
    var arrival = StallClock()
    var stall = StallClock()
    var requestIsComplete = false
    /// What counts the call; nil before its method is known.
    var counts: ServerCounts.MethodCounts?
    var isCounted = false
    var receivedBytes = 0
    var receivedMessages = 0
    /// Bytes received and not credited yet.
    var uncreditedBytes = 0
    /// Bytes that no handler has taken, as the connection was told.
    var heldBytes = 0
    /// Whether the assembler is handing over messages.
    var isFeeding = false

    init(streamID: Int32, connection: ServerConnection) {
        self.streamID = streamID
        self.connection = connection
        self.shared = ServerCallShared(compressionLog: connection.recordsCompression ? CompressionLog() : nil)
        self.maxRequestBytes = connection.limits.maxReceiveMessageBytes
        self.assembler = MessageAssembler(maxMessageBytes: connection.limits.maxReceiveMessageBytes)
    }

    /// What a stream of messages must send within the request's time while a message is incomplete.
    private static let leastProgressBytes = 1 << 14

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
            // A caller that was refused may have sent its message meanwhile; nobody reads it.
            self.connection.codec.consume(streamID: self.streamID, byteCount: bytes.readableBytes)
            self.connection.setNeedsFlush()
            return
        }
        self.uncreditedBytes += bytes.readableBytes
        self.receivedBytes += bytes.readableBytes
        self.isFeeding = true
        do throws(RPCError) {
            try self.assembler.feed(bytes, &self.connection.receiving) { self.messageReceived($0) }
        } catch {
            self.end(error)
        }
        self.isFeeding = false
        self.settle()
        self.creditIfEmptied()
    }

    /// Tells the connection how many bytes of this call no handler has taken; a call that is over keeps none.
    func settle() {
        // The assembler cannot be looked at while it hands over messages.
        guard !self.isFeeding else { return }
        var bytes = 0
        if self.state.isEnded {
            self.assembler.discard()
            self.request = nil
            self.connection.dropped(self.heldBytes)
        } else {
            bytes = self.assembler.heldBytes + (self.request?.readableBytes ?? 0) + (self.inbox?.waitingBytes ?? 0)
        }
        guard bytes != self.heldBytes else { return }
        self.heldBytes = bytes
        self.connection.holds(self.streamID, bytes)
    }

    /// Ends a call whose one message does not arrive, and one whose messages are not read.
    func sweep(_ timing: ConnectionTiming, now: ContinuousClock.Instant) {
        // A stream of messages may pause between two, and take its time inside a large one; it must not stop there, nor
        // send so little that it might as well have.
        let isStream = self.inbox != nil
        let awaitsMessage =
            !self.requestIsComplete && !self.state.isEnded && !(isStream && self.assembler.isBetweenMessages)
        let progress = isStream ? self.receivedMessages + self.receivedBytes / Self.leastProgressBytes : 0
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
                self.settle()
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
        self.settle()
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

    /// The handler has taken the last message that waited.
    func inboxEmptied() {
        self.settle()
        self.creditIfEmptied()
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
        if let limit = method.maxRequestBytes { self.maxRequestBytes = min(limit, self.maxRequestBytes) }
        self.assembler = MessageAssembler(maxMessageBytes: self.maxRequestBytes, method: method.method)
        if let deadline { self.connection.watchDeadline(of: self, deadline) }
        if !method.shape.hasSingleRequest { self.startStreaming(method.handler, context) }
    }

    private func messageReceived(_ message: MessageAssembler.Message) {
        self.receivedMessages += 1
        self.shared.compressionLog?.add(message.isCompressed)
        switch self.state.messageReceived(isCompressed: message.isCompressed) {
        case .deliver:
            self.deliver(message.bytes)
        case .decompress:
            do throws(RPCError) {
                self.deliver(try Gzip.decompressed(message.bytes, limitBytes: self.maxRequestBytes))
            } catch {
                var named = error
                if let method = self.context?.method { named.message = "\(method): \(error.message)" }
                self.end(named)
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
}

// The call belongs to its connection's event loop.
@available(*, unavailable)
extension ServerCall: Sendable {}
