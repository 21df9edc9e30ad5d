// SPDX-License-Identifier: Apache-2.0

internal import HTTP2Session
internal import Logging
internal import NIOCore
internal import RPCCore
internal import SwitchyardTypes

/// A server's end of one connection: opens a call for each stream and drains on request.
///
/// Belongs to the connection's event loop.
final class ServerConnection: ConnectionRole {
    let codec: HTTP2Codec
    let eventLoop: any EventLoop
    let limits: TransportLimits
    let compression: MessageCompression
    /// Whether calls record which requests were compressed.
    var recordsCompression = false
    private let conformanceBody: ByteBuffer?
    /// The streams of plain requests that have not ended.
    private var plainStreams: Set<Int32> = []
    /// Decides whether a call may be made.
    let authorize: (@Sendable (ServerContext) -> RPCError?)?
    let hasRoom: (@Sendable (ServerContext) -> RPCError?)?
    var pace = RefusalPace()
    /// Calls of the present read, by whether there was room for them.
    var admittedInRead = 0
    var refusedInRead = 0
    /// Whether the connection has calls; it leaves for another one while it has none.
    let activity: ConnectionActivity
    /// Whether it has one of the places that are kept for probes.
    var servesProbesOnly = false
    let places: PlaceKeeper
    /// Notes when calls are answered, for benchmarks.
    let stages: CallStages?
    /// Who the client said it is.
    var knownName: String?
    let probeServices: Set<String>
    /// Who the client is, as far as that is known.
    private(set) var caller: Caller
    /// Why the connection is refused, although its handshake went well.
    private var refusal: TLSFailure?
    private let methods: [Method: ServiceMethod]
    let counts: ServerCounts
    private let acceptCall: @Sendable (AcceptedCall) -> Void
    private let onMismatch: @Sendable (String) -> Void
    private let onEnd: @Sendable () -> Void
    private let logger: Logger
    private let deadlines: DeadlineTimer
    private(set) var calls = StreamTable<ServerCall>()
    private let timing: ConnectionTiming
    private var pingStrikes: PingStrikes
    private var sentAtLastPing = 0
    private var requests = RecurringBlocks<ReceivedRequest>()
    private var framing = FramingMemory()
    var receiving = MessageAssembler.memory()
    /// The head and the trailers of nearly every response, kept by the codec.
    private var plainHead: HTTP2StoredBlock?
    private var plainTrailers: HTTP2StoredBlock?
    /// The refusals of this connection, which are nearly all the same.
    var refusals: [Trailers: HTTP2StoredBlock] = [:]
    /// The bytes of requests that no handler has taken.
    var account: ReceiveAccount
    /// What carries the connection's bytes, until the connection ends.
    private(set) var handler: ConnectionHandler?
    var drain = Drain.none

    enum Drain {
        case none
        /// The first GOAWAY was sent; the answer to the ping after it shows that the client has seen it.
        case announced
        /// The second GOAWAY names the last stream; the connection ends with its calls.
        case final
    }

    private static let ok = Trailers(status: .ok)
    private static let drainPing: UInt64 = 0x6472_6169_6e00_0001

    init(
        codec: HTTP2Codec,
        eventLoop: any EventLoop,
        configuration: RPCServerConfiguration,
        peer: String,
        methods: [Method: ServiceMethod],
        counts: ServerCounts,
        logger: Logger,
        accept: @escaping @Sendable (AcceptedCall) -> Void,
        onMismatch: @escaping @Sendable (String) -> Void,
        places: PlaceKeeper,
        onEnd: @escaping @Sendable () -> Void
    ) {
        self.codec = codec
        self.eventLoop = eventLoop
        self.limits = configuration.limits
        self.account = ReceiveAccount(limits: configuration.limits)
        self.compression = configuration.compression
        self.conformanceBody = configuration.conformanceBody
        self.timing = configuration.timing
        self.pingStrikes = PingStrikes(timing: configuration.timing)
        self.caller = Caller(address: peer, identity: nil)
        self.methods = methods
        self.counts = counts
        self.authorize = configuration.authorize
        self.hasRoom = configuration.admit
        self.activity = ConnectionActivity(now: NIODeadline.now().uptimeNanoseconds)
        self.places = places
        self.stages = configuration.stages
        self.probeServices = configuration.probeServices
        self.logger = logger
        self.acceptCall = accept
        self.onMismatch = onMismatch
        self.onEnd = onEnd
        self.deadlines = DeadlineTimer(eventLoop: eventLoop)
    }

    /// The client's address as text.
    var peer: String { self.caller.address }

    /// Whether the connection can carry calls, or could before.
    private(set) var hasBegun = false

    /// The handshake has settled who the client is and whether it is accepted.
    func secured(identity: PeerIdentity?, refusal: TLSFailure?) {
        self.caller = Caller(address: self.caller.address, identity: identity)
        self.refusal = refusal
    }

    // MARK: - Drain

    /// Lets the calls in flight finish and takes no new ones.
    ///
    /// GOAWAY is sent twice, with a round trip between (RFC 9113, section 6.8).
    func beginDrain() {
        guard case .none = self.drain, let handler = self.handler, handler.isOpen else { return }
        self.drain = .announced
        self.codec.announceShutdown()
        self.codec.ping(opaque: Self.drainPing)
        handler.setNeedsFlush()
        let bound = NIOLoopBound(self, eventLoop: self.eventLoop)
        // A client that answers no ping must not hold up the drain.
        self.eventLoop.scheduleTask(in: .seconds(1)) { bound.value.finishDrain() }
    }

    private func finishDrain() {
        guard case .announced = self.drain else { return }
        self.drain = .final
        self.codec.goAway()
        self.handler?.setNeedsFlush()
    }

    /// Ends all calls now and the connection as soon as their resets have left.
    func abandon() {
        self.drain = .final
        for call in self.calls.values { call.abandon() }
        // The connection is finished when its last stream is closed; a peer that does not read gets no extra time.
        self.codec.goAway()
        self.handler?.setNeedsFlush()
        let bound = NIOLoopBound(self, eventLoop: self.eventLoop)
        self.eventLoop.scheduleTask(in: .milliseconds(200)) {
            bound.value.handler?.close(reason: "the server is shutting down")
        }
    }

    // MARK: - ConnectionRole

    var openCallCount: Int { self.calls.count }

    func connectionBegan(_ connection: ConnectionHandler) {
        self.handler = connection
        self.hasBegun = true
        if let refusal = self.refusal {
            // Said in HTTP/2, which every client reports; a TLS alert carries no text.
            self.drain = .final
            self.codec.goAway(code: .inadequateSecurity, debug: refusal.description)
        }
        self.deadlines.onExpiry = { [unowned self] in self.calls[$0]?.deadlineExpired() }
        self.deadlines.isOpen = { [unowned self] in self.calls[$0] != nil }
    }

    func handle(_ event: HTTP2Event) {
        switch event {
        case .headers(let block):
            self.headersReceived(block)
        case .headersTooLarge(let streamID, _, let sizeBytes, let limitBytes):
            let call = self.calls[streamID] ?? self.open(streamID)
            call.headersTooLarge(sizeBytes: sizeBytes, limitBytes: limitBytes, endStream: false)
        case .data(let streamID, let bytes):
            if let call = self.calls[streamID] {
                call.dataReceived(bytes)
            } else {
                self.codec.consume(streamID: streamID, byteCount: bytes.readableBytes)
            }
        case .endOfStream(let streamID):
            if let call = self.calls[streamID] {
                call.requestEnded()
            } else if self.plainStreams.remove(streamID) != nil {
                self.answerPlainRequest(streamID)
            }
        case .streamClosed(let streamID, _, _):
            self.calls.removeValue(forKey: streamID)?.peerLeft()
            if self.calls.isEmpty { self.activity.becameIdle(now: NIODeadline.now().uptimeNanoseconds) }
            if self.conformanceBody != nil { self.plainStreams.remove(streamID) }
        case .drained(let streamID):
            self.calls[streamID]?.drained()
        case .pingAcknowledged(Self.drainPing):
            self.finishDrain()
        case .ping:
            self.pinged()
        case .settings, .settingsAcknowledged, .pingAcknowledged, .goAway:
            break
        }
    }

    func turnEnded() {}

    func sweep(now: ContinuousClock.Instant) {
        for call in self.calls.values { call.sweep(self.timing, now: now) }
    }

    private func pinged() {
        let sent = self.codec.sentMessageFrames
        if sent != self.sentAtLastPing { self.pingStrikes.sent() }
        self.sentAtLastPing = sent
        guard self.pingStrikes.pinged(openCalls: self.calls.count, now: .now) else { return }
        self.logger.info("a client pings too often", metadata: ["peer": "\(self.caller.address)"])
        self.codec.endConnection(code: .enhanceYourCalm, debug: "too_many_pings")
        self.setNeedsFlush()
    }

    func connectionIdled() { self.beginDrain() }

    func connectionOverdue() { self.abandon() }

    func connectionEnded(reason: String) {
        self.logger.debug(
            "connection ended",
            metadata: [
                "peer": "\(self.peer)", "frames": "\(self.codec.receivedFrames)",
                "bytes": "\(self.codec.receivedBytes)", "reason": "\(reason)",
            ]
        )
        if ProtocolMismatch.ofClients.contains(reason) { self.onMismatch(reason) }
        self.handler = nil
        self.deadlines.stop()
        let calls = self.calls.values
        self.calls = StreamTable()
        for call in calls { call.peerLeft() }
        self.releaseAccount()
        self.onEnd()
    }

    // MARK: - For calls

    func call(_ streamID: Int32) -> ServerCall? { self.calls[streamID] }

    func setNeedsFlush() { self.handler?.setNeedsFlush() }

    func accept(_ call: AcceptedCall) { self.acceptCall(call) }

    func watchDeadline(of call: ServerCall, _ deadline: NIODeadline) {
        self.deadlines.sweep(liveCount: self.calls.count) { self.calls[$0] != nil }
        self.deadlines.add(call.streamID, deadline: deadline)
    }

    /// Writes the head of a response.
    ///
    /// A block that cannot be sent ends the call with a reset.
    @discardableResult
    func submitHead(_ call: ServerCall, _ head: ResponseHead) -> Bool {
        guard head == ResponseHead() else { return self.submitHead(call, head.fields(), endStream: false) }
        do throws(HTTP2CodecError) {
            if self.plainHead == nil { self.plainHead = try self.codec.store(head.fields().forCodec) }
            guard let block = self.plainHead else { return self.submitHead(call, head.fields(), endStream: false) }
            try self.codec.submitResponse(streamID: call.streamID, block, endStream: false)
            self.setNeedsFlush()
            return true
        } catch {
            self.fail(call, error)
            return false
        }
    }

    /// Writes a header block.
    ///
    /// A block that cannot be sent ends the call with a reset.
    @discardableResult
    func submitHead(_ call: ServerCall, _ fields: [HeaderField], endStream: Bool) -> Bool {
        do throws(HTTP2CodecError) {
            try self.codec.submitResponse(streamID: call.streamID, fields.forCodec, endStream: endStream)
            self.setNeedsFlush()
            return true
        } catch {
            self.fail(call, error)
            return false
        }
    }

    func submitBody(_ call: ServerCall, _ payload: Payload) {
        do throws(HTTP2CodecError) {
            try self.codec.submit(payload, call.compression, &self.framing, streamID: call.streamID)
            self.setNeedsFlush()
        } catch {
            self.fail(call, error)
        }
    }

    /// Writes the block that ends a call: trailers, or everything in one block when nothing was written before.
    func submitEnd(_ call: ServerCall, _ ending: ServerCallState.Ending) {
        if let reset = ending.reset {
            self.codec.resetAfterEnd(streamID: call.streamID, code: HTTP2ErrorCode(reset))
        }
        guard case .trailers(let trailers) = ending.block else {
            if !self.submitRefusal(call, ending) { self.submitHead(call, ending.fields, endStream: true) }
            return
        }
        do throws(HTTP2CodecError) {
            if trailers == Self.ok {
                if self.plainTrailers == nil { self.plainTrailers = try self.codec.store(trailers.fields().forCodec) }
                if let block = self.plainTrailers {
                    try self.codec.submitTrailers(streamID: call.streamID, block)
                    self.setNeedsFlush()
                    return
                }
            }
            try self.codec.submitTrailers(streamID: call.streamID, trailers.fields().forCodec)
            self.setNeedsFlush()
        } catch {
            self.fail(call, error)
        }
    }

    // MARK: - Private

    private func headersReceived(_ block: HTTP2HeaderBlock) {
        if block.kind == .trailers, block.endStream, self.plainStreams.remove(block.streamID) != nil {
            self.answerPlainRequest(block.streamID)
        } else if let call = self.calls[block.streamID] {
            call.headersReceived(self.request(of: block), timeout: block.variable?.value, endStream: block.endStream)
        } else if block.kind == .request {
            let request = self.request(of: block)
            if self.conformanceBody != nil, case .notGRPC = request.parsed {
                if block.endStream {
                    self.answerPlainRequest(block.streamID)
                } else {
                    self.plainStreams.insert(block.streamID)
                }
                return
            }
            self.open(block.streamID)
                .headersReceived(request, timeout: block.variable?.value, endStream: block.endStream)
        }
    }

    private func answerPlainRequest(_ streamID: Int32) {
        guard let body = self.conformanceBody else { return }
        do throws(HTTP2CodecError) {
            let head = [HTTP2HeaderField(":status", "200"), HTTP2HeaderField("content-type", "text/plain")]
            try self.codec.submitResponse(streamID: streamID, head, endStream: false)
            try self.codec.submitData(streamID: streamID, [body], endStream: true)
        } catch {
            self.codec.reset(streamID: streamID, code: .internalError)
        }
        self.setNeedsFlush()
    }

    private func request(of block: HTTP2HeaderBlock) -> ReceivedRequest {
        self.requests.made(of: block) {
            ReceivedRequest(RequestHead.parse(block.callFields), methods: self.methods, counts: self.counts)
        }
    }

    private func open(_ streamID: Int32) -> ServerCall {
        let call = ServerCall(streamID: streamID, connection: self)
        if self.calls.isEmpty { self.activity.becameBusy() }
        self.calls[streamID] = call
        return call
    }

    func fail(_ call: ServerCall, _ error: HTTP2CodecError) {
        self.logger.error("a response could not be sent", metadata: ["peer": "\(self.peer)", "error": "\(error)"])
        self.codec.reset(streamID: call.streamID, code: .internalError)
        self.setNeedsFlush()
    }
}

// The connection belongs to its event loop.
@available(*, unavailable)
extension ServerConnection: Sendable {}
