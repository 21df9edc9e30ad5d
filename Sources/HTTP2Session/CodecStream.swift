// SPDX-License-Identifier: Apache-2.0

internal import NIOCore

/// What the codec keeps for one open stream: the body that waits to be sent and the bytes that wait for credit.
final class CodecStream {
    /// How the outgoing body ends.
    enum BodyEnd {
        /// More may come.
        case open
        /// The last byte carries END_STREAM.
        case endStream
        /// A trailer section follows the last byte.
        case trailers([HTTP2HeaderField])
        /// A kept trailer section follows the last byte.
        case storedTrailers(HTTP2StoredBlock)
    }

    /// A header block of this side that waits to be sent.
    enum Head {
        /// Fields that were validated.
        case fields([HTTP2HeaderField])
        /// A kept block and one more field after it.
        case stored(HTTP2StoredBlock, variable: HTTP2HeaderField?)
    }

    private(set) var id: Int32
    /// The first piece of the body that was not sent yet, and those after it: most bodies have one piece.
    private var front = CodecStream.empty
    private var rest = Line<ByteBuffer>()
    /// The bytes in the pieces that wait.
    private(set) var queuedBytes = 0
    /// The bytes that left the queue.
    private(set) var sentBytes = 0
    var bodyEnd = BodyEnd.open
    /// Whether this side's header block was submitted (always true for a client's stream).
    var headersSubmitted = false
    /// This side's header block, until it is sent.
    var head: Head?
    /// Whether the header block was sent; the peer knows a client's stream from then on.
    var headWasSent = false
    /// Whether the stream waits for its turn to send.
    var isQueued = false
    /// Whether the stream waits for the connection's window.
    var isBlocked = false
    /// Whether this side's END_STREAM was sent.
    var isEnded = false
    /// What this side may send.
    var sendWindow: SendWindow
    /// What the peer may send.
    var receiveWindow: ReceiveWindow
    /// How many bytes the peer's body must have, if its header block says so.
    var expectedBytes: Int?
    /// How many it has so far.
    var receivedBytes = 0
    /// Whether any header block of the peer arrived.
    var anyBlockSeen = false
    /// The mark at or below which the owner wants to know about the queue.
    var drainMark: Int?
    /// Bytes received and not given back to the peer's window yet.
    var unconsumedBytes = 0
    /// Whether the peer ended its side.
    var peerEnded = false
    /// Whether the peer's own first block arrived: the request, or the final response.
    var firstBlockSeen = false
    /// The code to reset the stream with once this side's END_STREAM has been sent.
    var resetAfterEnd: HTTP2ErrorCode?
    /// Why the stream closes, once that is known.
    var closeOrigin: StreamCloseOrigin?

    init(id: Int32, sendWindow: SendWindow, receiveWindow: ReceiveWindow) {
        self.id = id
        self.sendWindow = sendWindow
        self.receiveWindow = receiveWindow
    }

    /// Makes a stream that is over, and that nothing refers to any more, a new one.
    func renew(id: Int32, sendWindow: SendWindow, receiveWindow: ReceiveWindow) {
        self.dropOutput()
        self.id = id
        self.sentBytes = 0
        self.headersSubmitted = false
        self.headWasSent = false
        self.isQueued = false
        self.isBlocked = false
        self.isEnded = false
        self.sendWindow = sendWindow
        self.receiveWindow = receiveWindow
        self.expectedBytes = nil
        self.receivedBytes = 0
        self.anyBlockSeen = false
        self.drainMark = nil
        self.unconsumedBytes = 0
        self.peerEnded = false
        self.firstBlockSeen = false
        self.resetAfterEnd = nil
        self.closeOrigin = nil
    }

    /// Whether there is something to send, as far as the windows allow.
    var hasOutput: Bool {
        guard self.closeOrigin == nil, !self.isEnded else { return false }
        return self.head != nil || (self.headWasSent && (self.queuedBytes > 0 || self.bodyIsEnded))
    }

    /// Whether this side declared its body complete.
    var bodyIsEnded: Bool {
        if case .open = self.bodyEnd { return false }
        return true
    }

    /// Adds a piece to the end of the body.
    func append(_ piece: ByteBuffer) {
        guard piece.readableBytes > 0 else { return }
        if self.queuedBytes == 0 { self.front = piece } else { self.rest.append(piece) }
        self.queuedBytes += piece.readableBytes
    }

    /// Takes exactly `byteCount` bytes from the front and hands the pieces over in order.
    ///
    /// - Returns: Whether that many bytes were there. When not, nothing was taken.
    func take(_ byteCount: Int, _ body: (ByteBuffer) -> Void) -> Bool {
        guard byteCount <= self.queuedBytes else { return false }
        var missing = byteCount
        while missing > 0 {
            let available = self.front.readableBytes
            if available <= missing {
                body(self.front)
                self.front = self.rest.popFirst() ?? CodecStream.empty
                missing -= available
            } else {
                if let part = self.front.readSlice(length: missing) { body(part) }
                missing = 0
            }
        }
        self.queuedBytes -= byteCount
        self.sentBytes += byteCount
        return true
    }

    /// Lets go of what will never be sent: queues can hold a stream beyond its end.
    func dropOutput() {
        self.head = nil
        self.front = CodecStream.empty
        if !self.rest.isEmpty { self.rest = Line() }
        self.queuedBytes = 0
        self.bodyEnd = .open
    }

    private static let empty = ByteBuffer()
}
