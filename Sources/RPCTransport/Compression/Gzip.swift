// SPDX-License-Identifier: Apache-2.0

internal import CZlib
internal import NIOCore
internal import RPCCore

/// The encoding `gzip` of messages: zlib's deflate in RFC 1952's format.
///
/// One message at a time and without a state between them, as gRPC specifies.
enum Gzip {
    /// The name in `grpc-encoding`.
    static let name = "gzip"
    /// Fast rather than small: the network between the two ends is usually not the slowest part.
    private static let level: Int32 = 1
    private static let firstChunkBytes = 16 << 10

    /// Inflates a message.
    ///
    /// - Parameters:
    ///   - bytes: The message as it came.
    ///   - limitBytes: The largest message to produce.
    /// - Returns: The message.
    /// - Throws: `RESOURCE_EXHAUSTED` as soon as the limit is passed, `INTERNAL` for bytes that are not gzip, that end
    ///   too early, or that go on after their end.
    static func decompressed(_ bytes: ByteBuffer, limitBytes: Int) throws(RPCError) -> ByteBuffer {
        var stream = z_stream()
        guard switchyard_gunzip_begin(&stream) == Z_OK else { throw RPCError(.internal, "zlib has no memory") }
        defer { inflateEnd(&stream) }
        var output = ByteBufferAllocator()
            .buffer(capacity: min(limitBytes, max(Self.firstChunkBytes, 4 * bytes.readableBytes)))
        let code = bytes.withUnsafeReadableBytes { input -> Int32 in
            stream.next_in = UnsafeMutablePointer(
                mutating: input.baseAddress?.assumingMemoryBound(to: UInt8.self)
            )
            stream.avail_in = UInt32(clamping: input.count)
            while true {
                // One byte more than allowed: only then does a message over the limit show.
                let room = min(limitBytes + 1 - output.readableBytes, max(Self.firstChunkBytes, output.readableBytes))
                var code = Z_OK
                output.writeWithUnsafeMutableBytes(minimumWritableBytes: room) { space in
                    stream.next_out = space.baseAddress?.assumingMemoryBound(to: UInt8.self)
                    stream.avail_out = UInt32(clamping: min(space.count, room))
                    let before = stream.avail_out
                    code = inflate(&stream, Z_NO_FLUSH)
                    return Int(before - stream.avail_out)
                }
                if code != Z_OK || output.readableBytes > limitBytes { return code }
                if stream.avail_in == 0 && stream.avail_out > 0 { return Z_BUF_ERROR }
            }
        }
        guard output.readableBytes <= limitBytes else {
            throw RPCError(
                .resourceExhausted,
                "a compressed message of \(bytes.readableBytes) bytes has more than the limit of \(limitBytes) "
                    + "decompressed; send less or raise the limit"
            )
        }
        switch code {
        case Z_STREAM_END where stream.avail_in == 0:
            return output
        case Z_STREAM_END:
            throw RPCError(.internal, "a gzip message has \(stream.avail_in) bytes after its end")
        case Z_BUF_ERROR:
            throw RPCError(.internal, "a gzip message of \(bytes.readableBytes) bytes ends too early")
        default:
            let detail = stream.msg.map { String(cString: $0) } ?? "error \(code)"
            throw RPCError(.internal, "a message marked as gzip cannot be decompressed: \(detail)")
        }
    }

    /// Deflates a message.
    ///
    /// - Parameter payload: The message.
    /// - Returns: The compressed bytes; nil where zlib has no memory, or where they would not be smaller.
    static func compressed(_ payload: Payload) -> ByteBuffer? {
        var stream = z_stream()
        guard switchyard_gzip_begin(&stream, Self.level) == Z_OK else { return nil }
        defer { deflateEnd(&stream) }
        let count = payload.byteCount
        // Less room than the message itself: a message that does not shrink is sent as it is.
        guard count > 1, count <= Int(UInt32.max) else { return nil }
        var output = ByteBufferAllocator().buffer(capacity: count - 1)
        var code = Z_OK
        output.writeWithUnsafeMutableBytes(minimumWritableBytes: count - 1) { space in
            stream.next_out = space.baseAddress?.assumingMemoryBound(to: UInt8.self)
            stream.avail_out = UInt32(count - 1)
            for segment in payload.pieces {
                segment.withUnsafeReadableBytes { input in
                    stream.next_in = UnsafeMutablePointer(
                        mutating: input.baseAddress?.assumingMemoryBound(to: UInt8.self)
                    )
                    stream.avail_in = UInt32(input.count)
                    code = deflate(&stream, Z_NO_FLUSH)
                }
                // Leftover input means that the output is full.
                guard code == Z_OK, stream.avail_in == 0 else { return 0 }
            }
            stream.avail_in = 0
            code = deflate(&stream, Z_FINISH)
            return code == Z_STREAM_END ? count - 1 - Int(stream.avail_out) : 0
        }
        return code == Z_STREAM_END ? output : nil
    }
}
