// SPDX-License-Identifier: Apache-2.0

internal import HTTP2Session
internal import NIOCore
internal import RPCCore

/// A client's end of one connection: keeps the calls of its streams.
///
/// Belongs to its event loop.
final class ClientConnection: ConnectionRole {
    static let userAgent = "switchyard-swift"

    let codec: HTTP2Codec
    let authority: String
    /// The server's address, for messages.
    private let name: String
    /// `https` over TLS, otherwise `http`.
    let scheme: String
    /// Why the server is closing the connection, in its own words.
    private(set) var farewell: String?
    private let compression: MessageCompression
    private let slot: ConnectionSlot
    private let deadlines: DeadlineTimer
    private var calls = StreamTable<ClientCall>()
    private var blocks = RecurringBlocks<ResponseFields>()
    private var framing = FramingMemory()
    private var receiving = MessageAssembler.memory()
    /// The requests that the codec keeps, by method.
    private var stored: [Method: StoredRequest] = [:]
    /// The one that was used last: a client calls one method many times.
    private var lastStored: StoredRequest?
    /// What carries the connection's bytes, until the connection ends.
    private var handler: ConnectionHandler?
    private(set) var peerSettings: HTTP2PeerSettings?

    init(
        codec: HTTP2Codec,
        authority: String,
        name: String,
        scheme: String,
        compression: MessageCompression,
        slot: ConnectionSlot,
        eventLoop: any EventLoop
    ) {
        self.codec = codec
        self.compression = compression
        self.authority = authority
        self.name = name
        self.scheme = scheme
        self.slot = slot
        self.deadlines = DeadlineTimer(eventLoop: eventLoop)
    }

    /// Whether this connection can start calls, now or after others have ended.
    var acceptsCalls: Bool { self.peerSettings != nil && self.codec.acceptsNewStreams && self.handler?.isOpen == true }

    /// How many calls can be started now.
    var availableStreams: Int { self.acceptsCalls ? self.codec.availableStreams : 0 }

    /// The block of a method whose calls carry no metadata of their own.
    private final class StoredRequest {
        let path: String
        let block: HTTP2StoredBlock
        let sizeBytes: Int

        init(path: String, block: HTTP2StoredBlock, sizeBytes: Int) {
            self.path = path
            self.block = block
            self.sizeBytes = sizeBytes
        }
    }

    /// Opens a stream for a call.
    func open(_ call: ClientCall, timeout: Timeout?, previousAttempts: Int) throws(HTTP2CodecError) -> Int32 {
        let streamID: Int32
        if call.options.metadata.isEmpty, previousAttempts == 0, let stored = try self.storedRequest(call.method) {
            let variable = timeout.map { HTTP2HeaderField(HeaderField("grpc-timeout", $0.description)) }
            try self.checkSize(stored.sizeBytes + (variable?.listSizeBytes ?? 0))
            streamID = try self.codec.submitRequest(stored.block, variable: variable, endStream: false)
        } else {
            var fields = self.head(of: call.method, timeout: timeout, metadata: call.options.metadata).fields()
            if previousAttempts > 0 { fields.append(HeaderField("grpc-previous-rpc-attempts", "\(previousAttempts)")) }
            try self.checkSize(fields.reduce(0) { $0 + $1.countedBytes })
            streamID = try self.codec.submitRequest(fields.forCodec, endStream: false)
        }
        self.calls[streamID] = call
        if let deadline = call.options.dueTime {
            self.deadlines.sweep(liveCount: self.calls.count) { self.calls[$0] != nil }
            self.deadlines.add(streamID, deadline: deadline)
        }
        return streamID
    }

    private func head(of method: Method, timeout: Timeout?, metadata: Metadata) -> RequestHead {
        RequestHead(
            method: method,
            scheme: self.scheme,
            authority: self.authority,
            timeout: timeout,
            encoding: self.compression.encoding,
            acceptedEncodings: ClientCall.encodings,
            userAgent: Self.userAgent,
            metadata: metadata
        )
    }

    private func storedRequest(_ method: Method) throws(HTTP2CodecError) -> StoredRequest? {
        if let last = self.lastStored, last.path == method.path { return last }
        if let known = self.stored[method] {
            self.lastStored = known
            return known
        }
        let fields = self.head(of: method, timeout: nil, metadata: Metadata()).fields()
        guard let block = try self.codec.store(fields.forCodec) else { return nil }
        let made = StoredRequest(
            path: method.path,
            block: block,
            sizeBytes: fields.reduce(0) { $0 + $1.countedBytes }
        )
        self.stored[method] = made
        self.lastStored = made
        return made
    }

    private func checkSize(_ size: Int) throws(HTTP2CodecError) {
        guard let limit = self.peerSettings?.maxHeaderListBytes, limit != .max, size > Int(limit) else { return }
        throw HTTP2CodecError(
            code: .invalidHeader,
            message: "the request's header list has \(size) bytes, more than the server's limit of \(limit); "
                + "send less metadata"
        )
    }

    /// Queues a message of a call.
    func submit(_ payload: Payload, streamID: Int32, endStream: Bool) throws(HTTP2CodecError) {
        try self.codec.submit(payload, self.compression, &self.framing, streamID: streamID, endStream: endStream)
    }

    /// Forgets a stream whose attempt is over.
    func forget(_ streamID: Int32) { self.calls[streamID] = nil }

    func setNeedsFlush() { self.handler?.setNeedsFlush() }

    /// Lets the calls in flight finish, then closes.
    func beginDrain() {
        self.codec.goAway()
        self.setNeedsFlush()
    }

    /// Closes at once; calls in flight end with `UNAVAILABLE`.
    func close(reason: String) {
        self.handler?.close(reason: reason)
    }

    // MARK: - ConnectionRole

    var openCallCount: Int { self.calls.count }

    func connectionBegan(_ connection: ConnectionHandler) {
        self.handler = connection
        self.slot.connectionBegan(self)
        self.deadlines.onExpiry = { [unowned self] in self.calls[$0]?.deadlineExpired() }
        self.deadlines.isOpen = { [unowned self] in self.calls[$0] != nil }
    }

    func handle(_ event: HTTP2Event) {
        switch event {
        case .headers(let block):
            guard let call = self.calls[block.streamID] else { return }
            let fields = self.blocks.made(of: block) { ResponseFields(block.callFields) }
            call.headersReceived(fields, endStream: block.endStream)
        case .headersTooLarge(let streamID, _, let sizeBytes, let limitBytes):
            self.calls[streamID]?.headersTooLarge(sizeBytes: sizeBytes, limitBytes: limitBytes)
        case .data(let streamID, let bytes):
            if let call = self.calls[streamID] {
                call.dataReceived(bytes, &self.receiving)
            } else {
                self.codec.consume(streamID: streamID, byteCount: bytes.readableBytes)
            }
        case .endOfStream(let streamID):
            self.calls[streamID]?.endedWithoutTrailers()
        case .streamClosed(let streamID, let code, let origin):
            self.calls.removeValue(forKey: streamID)?.streamClosed(code: code, origin: origin)
        case .drained(let streamID):
            self.calls[streamID]?.drained()
        case .settings(let settings):
            self.peerSettings = settings
            self.slot.settingsReceived(on: self, allowsCalls: settings.maxConcurrentStreams > 0)
        case .goAway(_, let code, let debug):
            if !debug.isEmpty { self.farewell = debug }
            if code == .enhanceYourCalm && debug == "too_many_pings" { self.slot.pingedTooOften() }
            if code == .inadequateSecurity {
                self.slot.connectionRefused(self, reason: debug)
            } else {
                self.slot.connectionGoesAway(self)
            }
        case .settingsAcknowledged, .ping, .pingAcknowledged:
            break
        }
    }

    func sweep(now: ContinuousClock.Instant) {}

    func turnEnded() { self.slot.startWaitingCalls(on: self) }

    func connectionIdled() {
        self.slot.connectionGoesAway(self)
        self.beginDrain()
    }

    func connectionOverdue() { self.connectionIdled() }

    func connectionEnded(reason: String) {
        self.handler = nil
        self.deadlines.stop()
        let calls = self.calls.values
        self.calls = StreamTable()
        self.slot.connectionEnded(self, reason: reason)
        for call in calls { call.connectionLost("the connection to \(self.name) is lost: \(reason)") }
    }
}

// The connection belongs to its event loop.
@available(*, unavailable)
extension ClientConnection: Sendable {}
