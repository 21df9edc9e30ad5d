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
    /// `https` over TLS, otherwise `http`.
    let scheme: String
    /// Why the server closes the connection, in its own words.
    private(set) var farewell: String?
    private let slot: ConnectionSlot
    private let deadlines: DeadlineTimer
    private var calls: [Int32: ClientCall] = [:]
    private weak var handler: ConnectionHandler?
    private(set) var peerSettings: HTTP2PeerSettings?

    init(codec: HTTP2Codec, authority: String, scheme: String, slot: ConnectionSlot, eventLoop: any EventLoop) {
        self.codec = codec
        self.authority = authority
        self.scheme = scheme
        self.slot = slot
        self.deadlines = DeadlineTimer(eventLoop: eventLoop)
    }

    /// Whether calls can be started on this connection, now or when others have ended.
    var acceptsCalls: Bool { self.peerSettings != nil && self.codec.acceptsNewStreams && self.handler?.isOpen == true }

    /// How many calls can be started now.
    var availableStreams: Int { self.acceptsCalls ? self.codec.availableStreams : 0 }

    /// Opens a stream for a call.
    func open(_ call: ClientCall, _ fields: [HeaderField]) throws(HTTP2CodecError) -> Int32 {
        if let limit = self.peerSettings?.maxHeaderListBytes, limit != .max {
            let size = fields.reduce(0) { $0 + $1.countedBytes }
            guard size <= Int(limit) else {
                throw HTTP2CodecError(
                    code: .invalidHeader,
                    message: "the request's header list has \(size) bytes, more than the server's limit of \(limit); "
                        + "send less metadata"
                )
            }
        }
        let streamID = try self.codec.submitRequest(fields.forCodec, endStream: false)
        self.calls[streamID] = call
        if let deadline = call.options.deadline {
            self.deadlines.sweep(liveCount: self.calls.count) { self.calls[$0] != nil }
            self.deadlines.add(streamID, deadline: deadline)
        }
        return streamID
    }

    func setNeedsFlush() { self.handler?.setNeedsFlush() }

    /// Lets the calls under way finish, then closes.
    func beginDrain() {
        self.codec.goAway()
        self.setNeedsFlush()
    }

    /// Closes at once; calls under way end with `UNAVAILABLE`.
    func close(reason: String) {
        self.handler?.close(reason: reason)
    }

    // MARK: - ConnectionRole

    var openCallCount: Int { self.calls.count }

    func connectionBegan(_ connection: ConnectionHandler) {
        self.handler = connection
        self.slot.connectionBegan(self)
        self.deadlines.onExpiry = { [unowned self] in self.calls[$0]?.deadlineExpired() }
    }

    func handle(_ event: HTTP2Event) {
        switch event {
        case .headers(let block):
            self.calls[block.streamID]?.headersReceived(block)
        case .headersTooLarge(let streamID, _, let sizeBytes, let limitBytes):
            self.calls[streamID]?.headersTooLarge(sizeBytes: sizeBytes, limitBytes: limitBytes)
        case .data(let streamID, let bytes):
            if let call = self.calls[streamID] {
                call.dataReceived(bytes)
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
            let isFirst = self.peerSettings == nil
            self.peerSettings = settings
            if isFirst { self.slot.connectionReady(self) }
        case .goAway(_, let code, let debug):
            if !debug.isEmpty { self.farewell = debug }
            if code == .inadequateSecurity {
                self.slot.connectionRefused(self, reason: debug)
            } else {
                self.slot.connectionGoesAway(self)
            }
        case .settingsAcknowledged, .ping, .pingAcknowledged:
            break
        }
    }

    func turnEnded() { self.slot.startWaitingCalls(on: self) }

    func connectionIdled() {
        self.slot.connectionGoesAway(self)
        self.beginDrain()
    }

    func connectionEnded(reason: String) {
        self.deadlines.stop()
        let calls = self.calls.values
        self.calls = [:]
        self.slot.connectionEnded(self, reason: reason)
        for call in calls { call.connectionLost("the connection to \(self.authority) is lost: \(reason)") }
    }
}

// The connection belongs to its event loop.
@available(*, unavailable)
extension ClientConnection: Sendable {}
