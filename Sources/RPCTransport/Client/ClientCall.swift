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
        /// A completion that takes the one response.
        case unary((Result<UnaryReply, RPCError>) -> Void)
        /// A reader of any number of responses.
        case stream(MessageInbox, ResponseDetails)
        /// Nobody any more.
        case none
    }

    let method: Method
    let options: CallOptions
    private let token: CallToken
    let configuration: ClientCallConfiguration
    private var state: ClientCallState
    private var assembler: MessageAssembler
    private var sink: Sink
    private let gate: WriteGate?
    /// The messages of the request that wait for the stream to be opened, and those sent that another attempt needs.
    private var messages: [Payload]
    /// The bytes of those sent.
    private var keptBytes = 0
    /// How many of them the gate knows about.
    private var reportedMessages = 0
    private var requestIsComplete: Bool
    private var response: ByteBuffer?
    private var initialMetadata = Metadata()
    private var uncreditedBytes = 0
    private(set) var streamID: Int32?
    private weak var connection: ClientConnection?
    private var retries: CallRetries
    /// How many earlier attempts the server may have seen.
    private var previousAttempts = 0
    /// The timer of a call that waits for a connection or for its next attempt.
    var waitTimer: Scheduled<Void>?
    /// Where the call was made and is retried.
    weak var slot: ConnectionSlot?

    /// Creates a call.
    ///
    /// The payload is the request of a method that takes one; without it, messages follow through the gate.
    init(
        method: Method,
        shape: CallShape,
        payload: Payload?,
        options: CallOptions,
        configuration: ClientCallConfiguration,
        token: CallToken,
        gate: WriteGate?,
        sink: Sink
    ) {
        self.method = method
        self.options = options
        self.configuration = configuration
        self.token = token
        self.gate = gate
        self.sink = sink
        self.state = ClientCallState(shape: shape, encodings: Self.encodings)
        self.assembler = MessageAssembler(maxMessageBytes: configuration.limits.maxReceiveMessageBytes)
        self.retries = CallRetries(policy: configuration.retry.policy)
        self.messages = []
        self.requestIsComplete = false
        if let payload {
            self.send(payload)
            self.endRequest()
        }
    }

    /// What this side reads besides plain messages.
    static let encodings = [Gzip.name]

    /// Whether the call has completed.
    var isEnded: Bool { self.state.isEnded }

    // MARK: - The caller's events

    /// Opens the call's stream on a connection.
    func start(on connection: ClientConnection) {
        self.waitTimer?.cancel()
        self.waitTimer = nil
        guard !self.state.isEnded else { return }
        var timeout: Timeout?
        if let due = self.options.dueTime {
            let left = (due - .now()).nanoseconds
            guard left > 0 else {
                self.finish(self.state.deadlineExpired())
                return
            }
            timeout = left > Timeout.horizonNanoseconds ? nil : Timeout(coveringNanoseconds: left)
        }
        let pieces =
            self.messages.count == 1 ? self.framed(self.messages[0]) : self.messages.flatMap { self.framed($0) }
        let sent = self.messages
        if self.retries.isCommitted { self.messages = [] }
        do throws(HTTP2CodecError) {
            let streamID = try connection.open(self, timeout: timeout, previousAttempts: self.previousAttempts)
            self.streamID = streamID
            self.connection = connection
            if !pieces.isEmpty || self.requestIsComplete {
                try connection.codec.submitData(streamID: streamID, pieces, endStream: self.requestIsComplete)
            }
            if self.reportedMessages > 0, let gate = self.gate {
                connection.codec.notifyDrained(streamID: streamID, atOrBelow: gate.drainMark)
                gate.drained(queuedBytes: connection.codec.queuedBytes(streamID: streamID))
            }
            for payload in sent.dropFirst(self.reportedMessages) { self.reportSubmitted(payload) }
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
            self.messages.append(payload)
            return
        }
        self.keep(payload)
        do throws(HTTP2CodecError) {
            try connection.codec.submitData(streamID: streamID, self.framed(payload))
            self.reportSubmitted(payload)
            connection.setNeedsFlush()
        } catch {
            self.fail(RPCError(.internal, error.message))
        }
    }

    /// Tells the stream that no message follows.
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

    func headersReceived(_ block: ResponseFields, endStream: Bool) {
        switch self.state.headersReceived(block, endStream: endStream) {
        case .ignore:
            break
        case .response(let head):
            self.commit()
            self.initialMetadata = head.metadata
            if case .stream(_, let details) = self.sink { details.setInitial(head.metadata) }
        case .end(let end):
            do throws(RPCError) {
                if end.status.isOK { try self.assembler.end() }
                if !self.tryAgain(end) { self.finish(end) }
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
        let end = self.state.streamEndedWithoutTrailers()
        if !self.tryAgain(end) { self.finish(end) }
    }

    func streamClosed(code: HTTP2ErrorCode, origin: StreamCloseOrigin) {
        let farewell = self.connection?.farewell.map { ": \($0)" } ?? ""
        self.streamID = nil
        self.connection = nil
        switch origin {
        case .peer:
            let isLate = self.options.dueTime.map { $0 <= .now() } ?? false
            let end = self.state.resetReceived(ResetCode(code), deadlineHasPassed: isLate)
            if !self.tryAgain(end, code == .refusedStream ? .refused : .unknown) { self.finish(end) }
        case .neverProcessed, .neverSent:
            let message = "the server is going away and did not take the call\(farewell)"
            let end = self.state.connectionLost(message, isUnprocessed: true)
            if !self.tryAgain(end, origin == .neverSent ? .neverSent : .refused) { self.finish(end) }
        case .fault:
            self.fail(RPCError(.internal, "the server broke the protocol: \(code)"))
        case .local:
            let end = self.state.streamEndedWithoutTrailers()
            if !self.tryAgain(end) { self.finish(end) }
        }
    }

    func connectionLost(_ reason: String) {
        self.streamID = nil
        self.connection = nil
        let end = self.state.connectionLost(reason)
        if !self.tryAgain(end) { self.finish(end) }
    }

    /// The stream's queue has drained.
    func drained() {
        guard let streamID = self.streamID, let connection = self.connection else { return }
        self.gate?.drained(queuedBytes: connection.codec.queuedBytes(streamID: streamID))
    }

    // MARK: - Private

    private func messageReceived(_ message: MessageAssembler.Message) {
        self.configuration.compressionLog?.add(message.isCompressed)
        switch self.state.messageReceived(isCompressed: message.isCompressed) {
        case .deliver:
            self.deliver(message.bytes)
        case .decompress:
            do throws(RPCError) {
                let limit = self.configuration.limits.maxReceiveMessageBytes
                self.deliver(try Gzip.decompressed(message.bytes, limitBytes: limit))
            } catch {
                self.fail(error)
            }
        case .drop:
            break
        case .end(let end):
            self.finish(end)
        }
    }

    private func deliver(_ message: ByteBuffer) {
        switch self.sink {
        case .unary: self.response = message
        case .stream(let inbox, _): inbox.push(message)
        case .none: break
        }
    }

    private func framed(_ payload: Payload) -> [ByteBuffer] { self.configuration.compression.framed(payload) }

    private func reportSubmitted(_ payload: Payload) {
        self.reportedMessages += 1
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
            if self.configuration.retry.policy.hasAttempts {
                self.configuration.retry.withBudget { self.retries.succeeded(budget: &$0) }
            }
            self.complete(.success(end.metadata))
        }
    }

    // MARK: - Attempts

    /// Keeps a message for another attempt, as long as there is room.
    private func keep(_ payload: Payload) {
        guard !self.retries.isCommitted else { return }
        self.messages.append(payload)
        self.keptBytes += payload.byteCount
        if self.keptBytes > self.configuration.retry.policy.bufferBytes { self.commit() }
    }

    /// Lets go of what another attempt would need.
    private func commit() {
        guard !self.retries.isCommitted else { return }
        self.retries.commit()
        self.messages = []
    }

    /// Makes the call again, if the policy says so.
    ///
    /// Returns whether the call goes on.
    private func tryAgain(_ end: ClientCallState.End?, _ progress: CallRetries.Progress = .unknown) -> Bool {
        guard let end, !end.status.isOK, let slot = self.slot else { return false }
        let timeLeft = self.options.dueTime.map { Duration.nanoseconds(($0 - .now()).nanoseconds) }
        let decision = self.configuration.retry.withBudget { budget in
            self.retries.failed(
                code: end.status.code,
                pushback: RetryPushback(end.metadata),
                progress: progress,
                timeLeft: timeLeft,
                budget: &budget,
                chance: .random(in: 0...1)
            )
        }
        guard case .again(let wait, let previousAttempts) = decision else { return false }
        self.reset(end.reset)
        if let streamID = self.streamID { self.connection?.forget(streamID) }
        self.streamID = nil
        self.connection = nil
        self.previousAttempts = previousAttempts
        self.state = ClientCallState(shape: self.state.shape, encodings: Self.encodings)
        for _ in self.messages { _ = self.state.messageSent() }
        if self.requestIsComplete { _ = self.state.requestEnded() }
        self.assembler = MessageAssembler(maxMessageBytes: self.configuration.limits.maxReceiveMessageBytes)
        self.uncreditedBytes = 0
        let bound = NIOLoopBound(self, eventLoop: slot.eventLoop)
        // Never from inside the event that ended the attempt: the connection may be closing itself.
        self.waitTimer = slot.eventLoop.scheduleTask(in: wait.timeAmount) {
            bound.value.waitTimer = nil
            if let slot = bound.value.slot {
                slot.submit(bound.value)
            } else {
                bound.value.fail(.notSent(.unavailable, "the channel is gone"))
            }
        }
        return true
    }

    private func finish(with error: RPCError) {
        _ = self.state.failed(error)
        self.complete(.failure(error))
    }

    private func complete(_ result: Result<Metadata, RPCError>) {
        let sink = self.sink
        self.sink = .none
        self.messages = []
        self.waitTimer?.cancel()
        self.waitTimer = nil
        self.token.detach()
        let writeError =
            switch result {
            case .success: RPCError(.internal, "the call has ended; write before its status arrives")
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
