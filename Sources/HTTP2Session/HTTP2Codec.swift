// SPDX-License-Identifier: Apache-2.0

internal import CNGHTTP2
public import NIOCore

/// One end of an HTTP/2 connection without a socket: bytes in, events out; commands in, bytes out.
///
/// The codec is the whole of a session: frames, stream states and flow control; libnghttp2 codes and decodes header blocks. It is
/// confined to one thread (an event loop). The owner calls ``receive(_:now:)``, then ``takeEvents()`` and acts on the events,
/// then ``takeOutput(limitBytes:)`` and writes what it returns. Taking output can record further events.
///
/// A repeated header block costs a comparison, and a frame that came whole is read where it lies: nearly all of a connection's
/// frames are such.
///
/// Flow control belongs to the owner: received bytes are credited to the peer only by
/// ``consume(streamID:byteCount:)``, and whatever a closed stream had left is credited when it closes.
///
/// The codec enforces the header list limit, detects reused and skipped stream identifiers, and ends connections that send too
/// many useless frames.
public final class HTTP2Codec {
    /// Which end this is.
    public let role: HTTP2Role
    /// The settings and limits in force.
    public let configuration: HTTP2CodecConfiguration

    /// The bytes of all streams' bodies that are not framed yet.
    public internal(set) var queuedBytes = 0

    /// How many frames the peer sent; all frames of the last read before a failure count.
    public internal(set) var receivedFrames = 0

    /// How many bytes the peer sent until the connection failed.
    public private(set) var receivedBytes = 0

    /// How many frames with headers or data were sent.
    public internal(set) var sentMessageFrames = 0

    /// Why the connection has to end, when the peer made it impossible to go on.
    public internal(set) var failure: HTTP2CodecError?

    private(set) var streams = StreamTable<CodecStream>()
    /// The stream that was looked up last: frames of one stream come in a row.
    private var lastStream: CodecStream?
    /// A few streams that are over, whose objects become new streams.
    private(set) var endedStreams: [CodecStream] = []
    var events: [HTTP2Event] = []
    var now: ContinuousClock.Instant
    var history = StreamIDHistory()
    var budget: FrameBudget
    /// The allowance for the peer's resets.
    var resetBudget: FrameBudget

    // What the peer said and was told.
    var peer = PeerLimits()
    /// Whether the peer's first settings came.
    var settingsCame = false
    /// How many of our settings the peer has not acknowledged.
    var settingsInFlight = 1
    /// The highest stream that the peer opened, and the highest that was taken (server only).
    var highestPeerID: Int32 = 0
    var lastProcessedID: Int32 = 0
    /// The next stream that this client opens.
    var nextStreamID: Int32 = 1
    /// The last stream that a `GOAWAY` of ours named.
    var announcedLastID = Int32.max
    /// The last stream that the peer's `GOAWAY` named.
    var peerLastStreamID = Int32.max
    /// Whether a `GOAWAY` of ours refuses further streams, and whether one of the peer's does.
    var refusesStreams = false
    var peerRefusesStreams = false
    /// Whether the connection ends with a `GOAWAY`, and whether that was sent.
    var isTerminating = false
    var isTerminated = false

    // Flow control of the connection.
    var sendWindow = SendWindow(available: HTTP2Codec.firstWindowBytes)
    var receiveWindow: ReceiveWindow

    // What is being received.
    var reader: FrameReader
    var frame = FrameHeader(payloadBytes: 0, type: 0, flags: 0, streamID: 0)
    var intake = Intake.skip
    /// The input that is read at present: pieces of bodies are slices of it.
    var input = ByteBuffer()
    /// Bytes of a small frame, or of what comes before a header block or a body.
    var collected: [UInt8] = []
    /// How many bytes come before the header block or the body of the frame, and how many it has.
    var prefixMissing = 0
    var contentMissing = 0
    /// How many bytes of a DATA frame are none of its body.
    var paddingBytes = 0
    var block = BlockIntake()
    var knownBlocks = KnownBlocks()
    let decoder: HPACKDecoder

    // What waits to be sent.
    var controls = Line<Control>()
    var acknowledgements = 0
    /// Requests whose header block was not sent, in the order of their streams.
    var requests = Line<CodecStream>()
    /// How many streams of this client the server knows.
    var sentRequests = 0
    /// Streams that have something to send, in turn.
    var senders = Line<CodecStream>()
    /// Those that wait for the connection's window.
    var blockedSenders: [CodecStream] = []
    let encoder: HPACKEncoder

    /// The blocks that are kept to be sent again.
    var storedBlocks: [StoredFields] = []

    // The output of the current takeOutput call, in wire order.
    var output: [ByteBuffer] = []
    var scratch = ByteBuffer()
    private var lastScratchBytes = 0
    /// The memory of the last small output, for the next one once it is written.
    private var scratchMemory = ByteBuffer()
    var producedBytes = 0
    var outputLimitBytes = Int.max
    var outputIsHeldBack = false

    // Reused memory for header fields on their way to the encoder, and for what it makes of them.
    var fieldBytes: [UInt8] = []
    var fieldVectors: [nghttp2_nv] = []
    var encoded: [UInt8] = []

    /// An error of the peer that ends the connection; it is raised once the bytes before it are dealt with.
    var pendingConnectionError: (code: HTTP2ErrorCode, error: HTTP2CodecError)?

    /// The windows before any settings (RFC 9113, section 6.9.2).
    static let firstWindowBytes = 65_535

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
        self.reader = FrameReader(expectsPreface: role == .server)
        self.receiveWindow = ReceiveWindow(size: configuration.connectionWindowBytes)
        self.decoder = try HPACKDecoder()
        self.encoder = try HPACKEncoder()
        self.open()
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
        if self.events.capacity == 0 { self.events.reserveCapacity(Self.usualEvents) }
        if !self.isTerminating { bytes.withUnsafeReadableBytes { self.feed($0) } }
        self.input = ByteBuffer()
        self.raisePendingError()
        if let failure = self.failure { throw failure }
    }

    /// Takes the events recorded since the last call, oldest first.
    public func takeEvents() -> [HTTP2Event] {
        var events: [HTTP2Event] = []
        self.takeEvents(into: &events)
        return events
    }

    /// Takes the events recorded since the last call, oldest first, and leaves the list's memory for the next ones.
    ///
    /// - Parameter list: Is emptied, and then has the events.
    package func takeEvents(into list: inout [HTTP2Event]) {
        list.removeAll(keepingCapacity: list.capacity <= Self.mostKept)
        if !self.events.isEmpty { swap(&self.events, &list) }
    }

    /// A stream that ended may be referred to until the next one, so there is more than one.
    private static let mostEndedStreams = 4
    private static let usualEvents = 8
    /// The longest list, and the largest output, of which the memory is kept.
    private static let mostKept = 64
    private static let mostKeptBytes = 1 << 14

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
        var output: [ByteBuffer] = []
        self.takeOutput(limitBytes: limitBytes, into: &output)
        return output
    }

    /// Takes bytes for the peer as ``takeOutput(limitBytes:)`` does, and leaves the list's memory for the next ones.
    ///
    /// - Parameters:
    ///   - limitBytes: The mark.
    ///   - list: Is emptied, and then has the buffers.
    package func takeOutput(limitBytes: Int, into list: inout [ByteBuffer]) {
        list.removeAll(keepingCapacity: list.capacity <= Self.mostKept)
        self.producedBytes = 0
        self.outputLimitBytes = limitBytes
        self.outputIsHeldBack = false
        self.pumpOutput()
        if self.pendingConnectionError != nil {
            self.raisePendingError()
            self.pumpOutput()
        }
        self.sealScratch()
        if !self.output.isEmpty { swap(&self.output, &list) }
    }

    /// Whether the last ``takeOutput(limitBytes:)`` stopped at its mark.
    package var outputIsPending: Bool {
        self.outputIsHeldBack
    }

    /// Whether the connection has nothing more to read or to write and should be closed.
    public var isFinished: Bool {
        if self.isTerminated { return true }
        // Whichever side ends the connection, the streams in flight are finished first.
        guard self.refusesStreams || self.peerRefusesStreams, !self.isTerminating else { return false }
        return self.streams.isEmpty && self.controls.isEmpty
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
        guard self.acceptsNewStreams else { return 0 }
        return max(0, Int(self.peer.maxConcurrentStreams) - self.streams.count)
    }

    /// Whether a client may still open streams on this connection, now or when others have ended.
    public var acceptsNewStreams: Bool {
        self.role == .client && self.failure == nil && self.nextStreamID > 0 && !self.peerRefusesStreams
            && !self.isTerminating && !self.isFinished
    }

    /// The bytes queued on a stream that are not framed yet; 0 for a stream that is not open.
    public func queuedBytes(streamID: Int32) -> Int {
        self.stream(streamID)?.queuedBytes ?? 0
    }

    /// The bytes of a stream's body that were framed; 0 for a stream that is not open.
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
        guard let stream = self.streams.removeValue(forKey: streamID) else { return nil }
        if stream.headWasSent { self.sentRequests -= 1 }
        return stream
    }

    /// A stream that is about to be opened.
    func makeStream(_ streamID: Int32) -> CodecStream {
        // Until the peer knows our settings it sends by those that hold before any.
        let window = self.configuration.streamWindowBytes
        let sendWindow = SendWindow(available: self.peer.initialWindowBytes)
        let receiveWindow = ReceiveWindow(
            size: self.settingsInFlight == 0 ? window : max(window, HTTP2Codec.firstWindowBytes)
        )
        guard let stream = self.takeEnded() else {
            return CodecStream(id: streamID, sendWindow: sendWindow, receiveWindow: receiveWindow)
        }
        stream.renew(id: streamID, sendWindow: sendWindow, receiveWindow: receiveWindow)
        return stream
    }

    /// A stream that is over and that no queue refers to any more.
    private func takeEnded() -> CodecStream? {
        guard let index = self.endedStreams.indices.last(where: { isKnownUniquelyReferenced(&self.endedStreams[$0]) })
        else { return nil }
        self.endedStreams.swapAt(index, self.endedStreams.count - 1)
        return self.endedStreams.removeLast()
    }

    /// A stream is over.
    func close(_ streamID: Int32, code: HTTP2ErrorCode) {
        guard let stream = self.removeStream(streamID) else { return }
        self.queuedBytes -= stream.queuedBytes
        if !stream.isEnded { stream.dropOutput() }
        if stream.unconsumedBytes > 0 && !self.configuration.creditsConnectionOnArrival {
            self.creditConnection(stream.unconsumedBytes)
        }
        let origin = stream.closeOrigin ?? (code == .refusedStream ? .neverProcessed : .local)
        // What still holds the stream must send nothing more on it.
        stream.closeOrigin = origin
        self.sweepQueues()
        if self.endedStreams.count < Self.mostEndedStreams { self.endedStreams.append(stream) }
        self.events.append(.streamClosed(streamID, code: code, origin: origin))
    }

    /// Lets go of ended streams in the queues when they are more than those that wait.
    ///
    /// A peer that reads nothing, or gives no credit, must not fill them with streams that it resets.
    private func sweepQueues() {
        let limit = 64 + 2 * self.streams.count
        if self.blockedSenders.count > limit { self.blockedSenders.removeAll { $0.closeOrigin != nil } }
        if self.senders.count > limit { self.senders.removeAll { $0.closeOrigin != nil } }
        if self.requests.count > limit { self.requests.removeAll { $0.closeOrigin != nil } }
    }

    // MARK: - Output

    /// Appends bytes of a known number to the output.
    func appendOutput(_ count: Int, _ write: (UnsafeMutableRawBufferPointer) -> Void) {
        if self.scratch.capacity == 0 {
            // As much as the last output took, so that a busy connection does not grow its buffer step by step.
            swap(&self.scratch, &self.scratchMemory)
            // Makes a new buffer where the socket still has the last one.
            self.scratch.clear(minimumCapacity: max(512, count, self.lastScratchBytes))
        }
        self.scratch.writeWithUnsafeMutableBytes(minimumWritableBytes: count) { room in
            write(UnsafeMutableRawBufferPointer(rebasing: room[..<count]))
            return count
        }
        self.producedBytes += count
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
        self.scratchMemory = self.scratch.storageCapacity <= Self.mostKeptBytes ? self.scratch : ByteBuffer()
        self.scratch = ByteBuffer()
    }

    // MARK: - Failure

    /// Turns an error of the peer into the connection's failure and queues a GOAWAY.
    private func raisePendingError() {
        guard let (code, error) = self.pendingConnectionError else { return }
        self.pendingConnectionError = nil
        guard self.failure == nil else { return }
        self.failure = error
        self.terminate(code: code)
    }

    static var outOfMemory: HTTP2CodecError {
        HTTP2CodecError(code: .library, message: "libnghttp2 has no memory for a connection")
    }
}

// The codec belongs to one event loop.
@available(*, unavailable)
extension HTTP2Codec: Sendable {}
