// SPDX-License-Identifier: Apache-2.0

internal import HTTP2Session
public import NIOCore
internal import RPCCore
internal import SwitchyardTypes

/// One message as ordered pieces, written to the socket without being joined.
public struct Payload: Sendable, Hashable {
    /// The pieces in order.
    private(set) var pieces: ShortList<ByteBuffer>

    /// The pieces in order; empty ones are allowed.
    public var segments: [ByteBuffer] {
        get { Array(self.pieces) }
        set { self.pieces = ShortList(contentsOf: newValue) }
    }

    /// Whether the message may be compressed where the connection's configuration says so.
    ///
    /// False for secrets that could be guessed from their compressed length.
    public var mayBeCompressed = true

    /// Creates a message of several pieces.
    ///
    /// - Parameter segments: The pieces in order.
    public init(segments: [ByteBuffer]) {
        self.pieces = ShortList(contentsOf: segments)
    }

    /// Creates a message of one piece.
    ///
    /// - Parameter buffer: The message.
    public init(_ buffer: ByteBuffer) {
        self.pieces = ShortList(buffer)
    }

    /// Creates a message from bytes, which are copied once.
    ///
    /// - Parameter bytes: The message.
    public init(bytes: [UInt8]) {
        self.pieces = ShortList(ByteBuffer(bytes: bytes))
    }

    /// The message's length in bytes, without the prefix that frames it.
    public var byteCount: Int {
        // Nearly all have one piece, and builds without optimisation allocate for a loop over it.
        if self.pieces.endIndex == 1 { return self.pieces[0].readableBytes }
        return self.pieces.reduce(0) { $0 + $1.readableBytes }
    }

    /// The pieces after the five bytes that frame a message: whether it is compressed, and its length.
    ///
    /// Small pieces at the front share the prefix's buffer.
    func framed(isCompressed: Bool = false) -> [ByteBuffer] {
        let count = self.byteCount
        var front = ByteBufferAllocator().buffer(capacity: count <= Self.joinedBytes ? 5 + count : 5)
        front.writeInteger(UInt8(isCompressed ? 1 : 0))
        front.writeInteger(UInt32(truncatingIfNeeded: count))
        if count <= Self.joinedBytes {
            for piece in self.pieces { front.writeImmutableBuffer(piece) }
            return [front]
        }
        var pieces: [ByteBuffer] = []
        pieces.reserveCapacity(1 + self.pieces.count)
        pieces.append(front)
        pieces.append(contentsOf: self.pieces)
        return pieces
    }

    /// Hands over the pieces to write, without compression: the prefix and the message, in one piece if it is small.
    ///
    /// - Parameters:
    ///   - memory: The connection's, from which the first piece is taken.
    ///   - body: Called with each piece, and whether it is the last.
    /// - Throws: What the body throws.
    func forEachFramed<Failure: Error>(
        _ memory: inout FramingMemory,
        _ body: (ByteBuffer, _ isLast: Bool) throws(Failure) -> Void
    ) throws(Failure) {
        let count = self.byteCount
        let isJoined = count <= Self.joinedBytes
        var front = memory.take(isJoined ? MessagePrefix.byteCount + count : MessagePrefix.byteCount)
        front.writeMultipleIntegers(UInt8(0), UInt32(truncatingIfNeeded: count))
        if isJoined { for piece in self.pieces { front.writeImmutableBuffer(piece) } }
        memory.keep(front)
        try body(front, isJoined)
        guard !isJoined else { return }
        for index in self.pieces.indices { try body(self.pieces[index], index == self.pieces.count - 1) }
    }

    /// Messages up to this size are copied after their prefix: cheaper than another entry in a gathering write.
    static let joinedBytes = 1_024
}

/// The memory in which a connection frames messages.
struct FramingMemory {
    private var prefixes = BufferShelf(count: 2, limitBytes: 16)
    private var joined = BufferShelf(limitBytes: 2 * Payload.joinedBytes)

    /// An empty buffer for a prefix, or for a small message after it.
    mutating func take(_ byteCount: Int) -> ByteBuffer {
        byteCount > MessagePrefix.byteCount
            ? self.joined.take(capacity: byteCount) : self.prefixes.take(capacity: byteCount)
    }

    /// Keeps such a buffer for the next message.
    mutating func keep(_ buffer: ByteBuffer) {
        if buffer.readableBytes > MessagePrefix.byteCount {
            self.joined.keep(buffer)
        } else {
            self.prefixes.keep(buffer)
        }
    }
}

extension HTTP2Codec {
    /// Queues one message of a body.
    ///
    /// - Parameters:
    ///   - payload: The message.
    ///   - compression: Whether and how it is compressed.
    ///   - memory: The connection's, for messages as they are.
    ///   - streamID: The stream.
    ///   - endStream: Whether the body ends with it.
    /// - Throws: ``HTTP2CodecError`` when the stream takes no body.
    func submit(
        _ payload: Payload,
        _ compression: MessageCompression,
        _ memory: inout FramingMemory,
        streamID: Int32,
        endStream: Bool = false
    ) throws(HTTP2CodecError) {
        guard case .none = compression else {
            try self.submitData(streamID: streamID, compression.framed(payload), endStream: endStream)
            return
        }
        try payload.forEachFramed(&memory) { piece, isLast throws(HTTP2CodecError) in
            try self.submitData(streamID: streamID, piece, endStream: endStream && isLast)
        }
    }
}
