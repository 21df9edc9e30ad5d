// SPDX-License-Identifier: Apache-2.0

public import NIOCore
internal import RPCCore

/// One message as ordered pieces, written to the socket without being joined.
public struct Payload: Sendable, Hashable {
    /// The pieces in order; empty ones are allowed.
    public var segments: [ByteBuffer]

    /// Whether the message may be compressed where the connection's configuration says so.
    ///
    /// False for secrets that could be guessed from their compressed length.
    public var mayBeCompressed = true

    /// Creates a message of several pieces.
    ///
    /// - Parameter segments: The pieces in order.
    public init(segments: [ByteBuffer]) {
        self.segments = segments
    }

    /// Creates a message of one piece.
    ///
    /// - Parameter buffer: The message.
    public init(_ buffer: ByteBuffer) {
        self.segments = [buffer]
    }

    /// Creates a message from bytes, which are copied once.
    ///
    /// - Parameter bytes: The message.
    public init(bytes: [UInt8]) {
        self.segments = [ByteBuffer(bytes: bytes)]
    }

    /// The message's length in bytes, without the prefix that frames it.
    public var byteCount: Int {
        self.segments.count == 1 ? self.segments[0].readableBytes : self.segments.reduce(0) { $0 + $1.readableBytes }
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
            for segment in self.segments { front.writeImmutableBuffer(segment) }
            return [front]
        }
        var pieces: [ByteBuffer] = []
        pieces.reserveCapacity(1 + self.segments.count)
        pieces.append(front)
        pieces.append(contentsOf: self.segments)
        return pieces
    }

    /// The message in one piece after its prefix, where it is small enough to be joined.
    func joined() -> ByteBuffer? {
        let count = self.byteCount
        guard count <= Self.joinedBytes else { return nil }
        var bytes = ByteBufferAllocator().buffer(capacity: MessagePrefix.byteCount + count)
        bytes.writeMultipleIntegers(UInt8(0), UInt32(truncatingIfNeeded: count))
        for segment in self.segments { bytes.writeImmutableBuffer(segment) }
        return bytes
    }

    /// Messages up to this size are copied after their prefix: cheaper than another entry in a gathering write.
    private static let joinedBytes = 1_024
}
