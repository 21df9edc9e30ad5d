// SPDX-License-Identifier: Apache-2.0

import NIOCore
import NIOPosix
import Testing

/// A client that writes bytes by hand and looks at frames.
struct RawPeer {
    struct Frame: Sendable {
        var type: UInt8
        var flags: UInt8
        var streamID: UInt32
        var payload: ByteBuffer
    }

    let channel: any Channel
    private let frames: AsyncStream<Frame>

    static func connect(port: Int) async throws -> RawPeer {
        let (frames, continuation) = AsyncStream.makeStream(of: Frame.self)
        let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(FrameReader(continuation))
                }
            }
            .connect(host: "127.0.0.1", port: port)
            .get()
        return RawPeer(channel: channel, frames: frames)
    }

    private init(channel: any Channel, frames: AsyncStream<Frame>) {
        self.channel = channel
        self.frames = frames
    }

    func send(_ bytes: ByteBuffer) async throws { try await self.channel.writeAndFlush(bytes) }

    func close() async throws { try? await self.channel.close() }

    /// Waits for a frame; fails the test when the server closes first.
    @discardableResult
    func waitForFrame(type: UInt8) async throws -> Frame {
        for await frame in self.frames where frame.type == type { return frame }
        Issue.record("the server closed the connection without a frame of type \(type)")
        throw ChannelError.eof
    }

    /// Waits until the server closes; returns the code of its last GOAWAY.
    func goAwayCodeAtEnd() async -> UInt32? {
        var code: UInt32?
        for await frame in self.frames where frame.type == 7 {
            code = frame.payload.getInteger(at: frame.payload.readerIndex + 4)
        }
        return code
    }

    static func frame(type: UInt8, flags: UInt8 = 0, streamID: UInt32 = 0, payload: [UInt8] = []) -> ByteBuffer {
        var buffer = ByteBuffer()
        buffer.writeInteger(UInt8(payload.count >> 16))
        buffer.writeInteger(UInt16(payload.count & 0xffff))
        buffer.writeInteger(type)
        buffer.writeInteger(flags)
        buffer.writeInteger(streamID)
        buffer.writeBytes(payload)
        return buffer
    }

    /// The connection preface, empty settings, and the acknowledgement of the settings that a server sends first.
    static var preface: ByteBuffer {
        var buffer = ByteBuffer(string: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        buffer.writeImmutableBuffer(frame(type: 4))
        buffer.writeImmutableBuffer(frame(type: 4, flags: 1))
        return buffer
    }

    /// A request's header block as literals without indexing.
    static func headers(
        streamID: UInt32 = 1,
        method: String = "POST",
        path: String,
        contentType: String = "application/grpc",
        extra: [(String, String)] = [],
        endStream: Bool = false
    ) -> ByteBuffer {
        var payload: [UInt8] = []
        let fields =
            [
                (":method", method), (":scheme", "http"), (":path", path), (":authority", "a"), ("te", "trailers"),
                ("content-type", contentType),
            ] + extra
        for (name, value) in fields {
            payload.append(0)
            for text in [name, value] {
                precondition(text.utf8.count < 127)
                payload.append(UInt8(text.utf8.count))
                payload.append(contentsOf: text.utf8)
            }
        }
        return self.frame(type: 1, flags: endStream ? 5 : 4, streamID: streamID, payload: payload)
    }

    static func data(_ bytes: [UInt8], streamID: UInt32 = 1, endStream: Bool = false) -> ByteBuffer {
        self.frame(type: 0, flags: endStream ? 1 : 0, streamID: streamID, payload: bytes)
    }
}

/// Cuts what arrives into frames.
private final class FrameReader: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    private let frames: AsyncStream<RawPeer.Frame>.Continuation
    private var buffer = ByteBuffer()

    init(_ frames: AsyncStream<RawPeer.Frame>.Continuation) {
        self.frames = frames
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        self.buffer.writeImmutableBuffer(self.unwrapInboundIn(data))
        while let head = self.buffer.getInteger(at: self.buffer.readerIndex, as: UInt32.self) {
            let length = Int(head >> 8)
            guard self.buffer.readableBytes >= 9 + length else { return }
            self.buffer.moveReaderIndex(forwardBy: 4)
            let flags = self.buffer.readInteger(as: UInt8.self) ?? 0
            let streamID = self.buffer.readInteger(as: UInt32.self) ?? 0
            let payload = self.buffer.readSlice(length: length) ?? ByteBuffer()
            self.frames.yield(RawPeer.Frame(type: UInt8(head & 0xff), flags: flags, streamID: streamID, payload: payload))
        }
    }

    func channelInactive(context: ChannelHandlerContext) { self.frames.finish() }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}
