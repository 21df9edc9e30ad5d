// SPDX-License-Identifier: Apache-2.0

internal import HTTP2Session
internal import NIOCore
internal import RPCCore
internal import SwitchyardTypes

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
        /// The call has ended, or its caller has left.
        case none
    }

    let method: Method
    let options: CallOptions
    private let token: CallToken
    let configuration: ClientCallConfiguration
    var state: ClientCallState
    var assembler: MessageAssembler
    var sink: Sink
    let gate: WriteGate?
    /// The messages of the request that wait for the stream to be opened, and those sent that another attempt needs.
    var messages = ShortList<Payload>()
    /// The bytes of those sent.
    var keptBytes = 0
    /// How many of them the gate knows about.
    private var reportedMessages = 0
    var requestIsComplete: Bool
    var response: ByteBuffer?
    var initialMetadata = Metadata()
    var uncreditedBytes = 0
    var streamID: Int32?
    /// The connection of ``streamID``; let go of when the stream is over, so that no cycle outlives it.
    var connection: ClientConnection?
    var retries: CallRetries
    /// How many earlier attempts the server may have seen.
    var previousAttempts = 0
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
        self.configuration.stages?.mark(.opened)
        var timeout: Timeout?
        if let due = self.options.dueTime {
            let left = (due - .now()).nanoseconds
            guard left > 0 else {
                self.finish(self.state.deadlineExpired())
                return
            }
            timeout = left > Timeout.horizonNanoseconds ? nil : Timeout(coveringNanoseconds: left)
        }
        let sent = self.messages
        if self.retries.isCommitted { self.messages.removeAll() }
        do throws(HTTP2CodecError) {
            let streamID = try connection.open(self, timeout: timeout, previousAttempts: self.previousAttempts)
            self.streamID = streamID
            self.connection = connection
            for index in sent.indices {
                let isLast = index == sent.count - 1
                try connection.submit(sent[index], streamID: streamID, endStream: isLast && self.requestIsComplete)
            }
            if sent.isEmpty, self.requestIsComplete {
                try connection.codec.submitData(streamID: streamID, [], endStream: true)
            }
            if self.reportedMessages > 0, let gate = self.gate {
                connection.codec.notifyDrained(streamID: streamID, atOrBelow: gate.drainMark)
                gate.drained(queuedBytes: connection.codec.queuedBytes(streamID: streamID))
            }
            if self.gate != nil {
                for payload in sent.dropFirst(self.reportedMessages) { self.reportSubmitted(payload) }
            }
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
            try connection.submit(payload, streamID: streamID, endStream: false)
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

    // MARK: - Private

    private func reportSubmitted(_ payload: Payload) {
        guard let gate = self.gate else { return }
        self.reportedMessages += 1
        guard let streamID = self.streamID, let codec = self.connection?.codec else { return }
        codec.notifyDrained(streamID: streamID, atOrBelow: gate.drainMark)
        gate.submitted(
            byteCount: payload.byteCount + MessagePrefix.byteCount,
            queuedBytes: codec.queuedBytes(streamID: streamID)
        )
    }

    func reset(_ code: ResetCode?) {
        guard let code, let streamID = self.streamID, let connection = self.connection else { return }
        connection.codec.reset(streamID: streamID, code: HTTP2ErrorCode(code))
        connection.setNeedsFlush()
    }

    func finish(_ end: ClientCallState.End?, neverSent: Bool = false) {
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

    private func finish(with error: RPCError) {
        _ = self.state.failed(error)
        self.complete(.failure(error))
    }

    func complete(_ result: Result<Metadata, RPCError>) {
        let sink = self.sink
        self.sink = .none
        self.messages.removeAll()
        if let timer = self.waitTimer {
            timer.cancel()
            self.waitTimer = nil
        }
        self.token.detach()
        if let gate = self.gate {
            switch result {
            case .success: gate.close(RPCError(.internal, "the call has ended; write before its status arrives"))
            case .failure(let error): gate.close(error)
            }
        }
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
