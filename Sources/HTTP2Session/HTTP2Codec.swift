// SPDX-License-Identifier: Apache-2.0

internal import CNGHTTP2
public import NIOCore

/// One end of an HTTP/2 connection without a socket: bytes in, events out; commands in, bytes out.
///
/// The codec wraps one `nghttp2_session` of libnghttp2 1.52. It is confined to one thread (an event loop). The
/// library's callbacks only record what happened; the owner calls ``receive(_:now:)``, then ``takeEvents()`` and acts on
/// the events, then ``takeOutput(limitBytes:)`` and writes what it returns. Taking output can record further events.
///
/// Flow control belongs to the owner: received bytes are credited to the peer only by
/// ``consume(streamID:byteCount:)``, and whatever a closed stream had left is credited when it closes.
///
/// Beyond the library the codec enforces the header list limit, detects reused and skipped stream identifiers, and ends
/// connections that send too many useless frames.
public final class HTTP2Codec {
    /// Which end this is.
    public let role: HTTP2Role
    /// The settings and limits in force.
    public let configuration: HTTP2CodecConfiguration

    /// The bytes of all streams' bodies that the library has not framed yet.
    public internal(set) var queuedBytes = 0

    /// How many frames the peer sent; all frames of the last read before a failure count.
    public internal(set) var receivedFrames = 0

    /// How many bytes the peer sent until the connection failed.
    public private(set) var receivedBytes = 0

    /// How many frames with headers or data were sent.
    public internal(set) var sentMessageFrames = 0

    /// Why the connection has to end, when the peer or the library made it impossible to go on.
    public internal(set) var failure: HTTP2CodecError?

    let session: OpaquePointer
    private(set) var streams: [Int32: CodecStream] = [:]
    /// The stream that was looked up last: frames of one stream come in a row.
    private var lastStream: CodecStream?
    var events: [HTTP2Event] = []
    var now: ContinuousClock.Instant
    var history = StreamIDHistory()
    var budget: FrameBudget
    /// The allowance for the peer's resets.
    var resetBudget: FrameBudget
    var scanner: FrameHeaderScanner
    // The stream whose open body the last frame belonged to, 0 for none: the next frame on it needs no judgement.
    var bodyStreamID: Int32 = 0

    // The input that mem_recv reads at present: data callbacks turn their pointers into slices of it.
    var input = ByteBuffer()
    var inputBase: UnsafeRawPointer?

    // The header block that is being received.
    var blockFields: [HTTP2HeaderField] = []
    var blockBuffers: [BlockRecall.Buffers] = []
    var blockVariable: HTTP2HeaderField?
    var blockSizeBytes = 0
    var recall = BlockRecall()

    /// The blocks that are kept to be sent again.
    var storedBlocks: [StoredFields] = []

    // The output of the current takeOutput call, in wire order.
    var output: [ByteBuffer] = []
    var scratch = ByteBuffer()
    private var lastScratchBytes = 0
    var producedBytes = 0
    var outputLimitBytes = Int.max
    var outputIsHeldBack = false

    // Reused memory for header fields on their way to the library.
    var fieldBytes: [UInt8] = []
    var fieldVectors: [nghttp2_nv] = []

    /// The library's last complaint, for error messages.
    var lastDiagnostic = ""
    /// An error found where the library cannot be told at once; it is raised after the library returned.
    var pendingConnectionError: (code: HTTP2ErrorCode, error: HTTP2CodecError)?

    /// Creates one end of a connection and queues its first settings.
    ///
    /// - Parameters:
    ///   - role: Which end this is.
    ///   - configuration: Settings and limits.
    ///   - now: The current time, for rate limits.
    /// - Throws: ``HTTP2CodecError`` when a value is out of range or the library has no memory.
    public init(
        role: HTTP2Role,
        configuration: HTTP2CodecConfiguration = .defaults,
        now: ContinuousClock.Instant
    ) throws(HTTP2CodecError) {
        try configuration.validate()
        self.role = role
        self.configuration = configuration
        self.now = now
        self.resetBudget = FrameBudget(
            capacity: configuration.resetBurst,
            tokensPerSecond: configuration.resetsPerSecond
        )
        self.budget = FrameBudget(
            capacity: configuration.idleFrameBurst,
            tokensPerSecond: configuration.idleFramesPerSecond
        )
        // The client's connection preface comes before its first frame (RFC 9113, section 3.4).
        self.scanner = FrameHeaderScanner(prefaceBytes: role == .server ? 24 : 0)
        self.session = try HTTP2Codec.makeSession(role: role, configuration: configuration)
        nghttp2_session_set_user_data(self.session, Unmanaged.passUnretained(self).toOpaque())
        try self.submitInitialSettings()
    }

    deinit {
        for buffers in self.blockBuffers { buffers.release() }
        self.recall.forgetAll()
        nghttp2_session_del(self.session)
    }

    /// Feeds bytes from the peer.
    ///
    /// - Parameters:
    ///   - bytes: What the socket delivered; any split is fine.
    ///   - now: The current time, for rate limits.
    /// - Throws: ``HTTP2CodecError`` when the connection has to end. Output queued for the peer, usually a `GOAWAY`, can
    ///   still be taken and should be sent before the connection is closed.
    public func receive(_ bytes: ByteBuffer, now: ContinuousClock.Instant) throws(HTTP2CodecError) {
        if let failure = self.failure { throw failure }
        self.now = now
        self.input = bytes
        self.receivedBytes &+= bytes.readableBytes
        // A call's frames make about this many events: one allocation instead of one per doubling.
        if self.events.capacity == 0 { self.events.reserveCapacity(8) }
        let result = bytes.withUnsafeReadableBytes { self.feed($0) }
        self.input = ByteBuffer()
        if result < 0 && self.pendingConnectionError == nil {
            self.pendingConnectionError = HTTP2Codec.connectionError(
                library: Int32(result),
                detail: self.lastDiagnostic
            )
        }
        self.raisePendingError()
        if let failure = self.failure { throw failure }
    }

    /// Takes the events recorded since the last call, oldest first.
    public func takeEvents() -> [HTTP2Event] {
        guard !self.events.isEmpty else { return [] }
        let events = self.events
        self.events = []
        return events
    }

    /// Whether events wait to be taken.
    public var hasEvents: Bool {
        !self.events.isEmpty
    }

    /// Takes bytes for the peer, in order, for one gathering write.
    ///
    /// - Parameter limitBytes: A mark after which no further frame is added. Frames are never cut: the result can exceed
    ///   the mark by one frame.
    /// - Returns: The buffers to write; empty when there is nothing to send at present. When ``outputIsPending`` is true
    ///   afterwards, more can be taken once the socket accepts bytes again.
    public func takeOutput(limitBytes: Int = .max) -> [ByteBuffer] {
        self.producedBytes = 0
        self.outputLimitBytes = limitBytes
        self.outputIsHeldBack = false
        self.pumpOutput()
        if self.pendingConnectionError != nil {
            self.raisePendingError()
            self.pumpOutput()
        }
        self.sealScratch()
        let output = self.output
        self.output = []
        return output
    }

    /// Whether the last ``takeOutput(limitBytes:)`` stopped at its mark.
    package var outputIsPending: Bool {
        self.outputIsHeldBack
    }

    /// Whether the connection has nothing more to read or to write and should be closed.
    public var isFinished: Bool {
        nghttp2_session_want_read(self.session) == 0 && nghttp2_session_want_write(self.session) == 0
    }

    /// How many streams are open.
    package var openStreamCount: Int {
        self.streams.count
    }

    /// How many more streams this client may open now under the peer's `SETTINGS_MAX_CONCURRENT_STREAMS`.
    ///
    /// Zero when the connection takes no new streams at all. The library would queue requests above the peer's limit
    /// without a bound; callers hold them back instead.
    public var availableStreams: Int {
        guard self.failure == nil, nghttp2_session_check_request_allowed(self.session) != 0 else { return 0 }
        let limit = nghttp2_session_get_remote_settings(self.session, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS)
        return max(0, Int(limit) - self.streams.count)
    }

    /// Whether a client may still open streams on this connection, now or when others have ended.
    public var acceptsNewStreams: Bool {
        self.failure == nil && nghttp2_session_check_request_allowed(self.session) != 0
    }

    /// The bytes queued on a stream that the library has not framed yet; 0 for a stream that is not open.
    public func queuedBytes(streamID: Int32) -> Int {
        self.stream(streamID)?.queuedBytes ?? 0
    }

    /// The bytes of a stream's body that the library has framed; 0 for a stream that is not open.
    public func sentBytes(streamID: Int32) -> Int {
        self.stream(streamID)?.sentBytes ?? 0
    }

    /// Whether the stream is open.
    public func isOpen(streamID: Int32) -> Bool {
        self.streams[streamID] != nil
    }

    // MARK: - Streams

    /// The open stream with an identifier.
    func stream(_ streamID: Int32) -> CodecStream? {
        if let stream = self.lastStream, stream.id == streamID { return stream }
        guard let stream = self.streams[streamID] else { return nil }
        self.lastStream = stream
        return stream
    }

    /// A stream has been opened.
    func add(_ stream: CodecStream) {
        self.streams[stream.id] = stream
        self.lastStream = stream
    }

    /// A stream is over.
    func removeStream(_ streamID: Int32) -> CodecStream? {
        if self.lastStream?.id == streamID { self.lastStream = nil }
        return self.streams.removeValue(forKey: streamID)
    }

    // MARK: - Output

    private func pumpOutput() {
        while self.producedBytes < self.outputLimitBytes {
            var pointer: UnsafePointer<UInt8>?
            let count = nghttp2_session_mem_send(self.session, &pointer)
            if count < 0 {
                if self.failure == nil {
                    self.pendingConnectionError =
                        self.pendingConnectionError
                        ?? HTTP2Codec.connectionError(library: Int32(count), detail: self.lastDiagnostic)
                }
                return
            }
            guard count > 0, let pointer else { return }
            self.appendOutput(UnsafeRawBufferPointer(start: pointer, count: count))
        }
        self.outputIsHeldBack = true
    }

    func appendOutput(_ bytes: UnsafeRawBufferPointer) {
        if self.scratch.capacity == 0 {
            // As much as the last output took, so that a busy connection does not grow its buffer step by step.
            self.scratch = ByteBufferAllocator().buffer(capacity: max(512, bytes.count, self.lastScratchBytes))
        }
        self.scratch.writeBytes(bytes)
        self.producedBytes += bytes.count
    }

    func appendOutput(_ piece: ByteBuffer) {
        self.producedBytes += piece.readableBytes
        if piece.readableBytes <= self.configuration.coalesceBytes {
            self.scratch.writeImmutableBuffer(piece)
        } else {
            self.sealScratch()
            self.output.append(piece)
        }
    }

    private func sealScratch() {
        guard self.scratch.readableBytes > 0 else { return }
        self.lastScratchBytes = min(self.scratch.readableBytes, 1 << 16)
        self.output.append(self.scratch)
        self.scratch = ByteBuffer()
    }

    // MARK: - Failure

    /// Turns an error that was recorded inside the library into the connection's failure and queues a GOAWAY.
    private func raisePendingError() {
        guard let (code, error) = self.pendingConnectionError else { return }
        self.pendingConnectionError = nil
        guard self.failure == nil else { return }
        self.failure = error
        // The result is not examined: without memory for a GOAWAY the connection is closed without one.
        _ = nghttp2_session_terminate_session(self.session, code.rawValue)
    }

    static func connectionError(
        library code: Int32,
        detail: String
    ) -> (code: HTTP2ErrorCode, error: HTTP2CodecError) {
        let text = String(cString: nghttp2_strerror(code)) + (detail.isEmpty ? "" : " (\(detail))")
        switch code {
        case NGHTTP2_ERR_FLOODED.rawValue, NGHTTP2_ERR_TOO_MANY_CONTINUATIONS.rawValue:
            return (
                .enhanceYourCalm,
                HTTP2CodecError(code: .flooded, message: "the peer is flooding the connection: \(text)")
            )
        case NGHTTP2_ERR_BAD_CLIENT_MAGIC.rawValue:
            return (
                .protocolError,
                HTTP2CodecError(
                    code: .peerFault,
                    message: "the peer does not speak HTTP/2 with prior knowledge: \(text)"
                )
            )
        case NGHTTP2_ERR_NOMEM.rawValue:
            return (.internalError, HTTP2CodecError(code: .library, message: "libnghttp2: \(text)"))
        default:
            return (.protocolError, HTTP2CodecError(code: .peerFault, message: "libnghttp2: \(text)"))
        }
    }
}

// The codec belongs to one event loop.
@available(*, unavailable)
extension HTTP2Codec: Sendable {}
