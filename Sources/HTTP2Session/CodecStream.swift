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

    let id: Int32
    /// Pieces of the body that were not handed to the library yet; `firstPiece` is the index of the first.
    private var pieces: [ByteBuffer] = []
    private var firstPiece = 0
    /// The bytes in the pieces that wait.
    private(set) var queuedBytes = 0
    /// The bytes that left the queue.
    private(set) var sentBytes = 0
    var bodyEnd = BodyEnd.open
    /// Whether this side's header block was submitted (always true for a client's stream).
    var headersSubmitted = false
    /// Whether the library stopped asking for the body until it is resumed.
    var isDeferred = false
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

    init(id: Int32) {
        self.id = id
    }

    /// Whether this side declared its body complete.
    var bodyIsEnded: Bool {
        if case .open = self.bodyEnd { return false }
        return true
    }

    /// Adds a piece to the end of the body.
    func append(_ piece: ByteBuffer) {
        guard piece.readableBytes > 0 else { return }
        self.queuedBytes += piece.readableBytes
        self.pieces.append(piece)
    }

    /// Takes exactly `byteCount` bytes from the front and hands the pieces over in order.
    ///
    /// - Returns: Whether that many bytes were there. When not, nothing was taken.
    func take(_ byteCount: Int, _ body: (ByteBuffer) -> Void) -> Bool {
        guard byteCount <= self.queuedBytes else { return false }
        var missing = byteCount
        while missing > 0 {
            let available = self.pieces[self.firstPiece].readableBytes
            if available <= missing {
                body(self.pieces[self.firstPiece])
                self.pieces[self.firstPiece] = CodecStream.empty
                self.firstPiece += 1
                missing -= available
            } else {
                if let part = self.pieces[self.firstPiece].readSlice(length: missing) { body(part) }
                missing = 0
            }
        }
        if self.firstPiece == self.pieces.count {
            self.pieces.removeAll(keepingCapacity: true)
            self.firstPiece = 0
        } else if self.firstPiece > 64 && self.firstPiece * 2 > self.pieces.count {
            self.pieces.removeFirst(self.firstPiece)
            self.firstPiece = 0
        }
        self.queuedBytes -= byteCount
        self.sentBytes += byteCount
        return true
    }

    private static let empty = ByteBuffer()
}
