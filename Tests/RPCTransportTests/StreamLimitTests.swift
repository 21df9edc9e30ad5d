// SPDX-License-Identifier: Apache-2.0

import Logging
import NIOCore
import NIOPosix
import RPCCore
import RPCTransport
import Synchronization
import Testing

/// A server that lets no stream open, with the settings that the test sends.
private final class StingyServer: Sendable {
    let port: Int
    private let listener: any Channel
    private let connections = Mutex<[any Channel]>([])
    /// The limit of streams that each connection begins with.
    private let limit: Mutex<UInt32>

    var connectionCount: Int { self.connections.withLock { $0.count } }

    private init(_ listener: any Channel, limit: UInt32) {
        self.listener = listener
        self.port = listener.localAddress?.port ?? 0
        self.limit = Mutex(limit)
    }

    static func with(_ limit: UInt32, _ body: (StingyServer) async throws -> Void) async throws {
        let box = Mutex<StingyServer?>(nil)
        let listener = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let server = box.withLock { $0 }
                    let limit = server?.limit.withLock { $0 } ?? 0
                    server?.connections.withLock { $0.append(channel) }
                    try channel.pipeline.syncOperations.addHandler(StingyConnection(Self.settings(limit)))
                }
            }
            .bind(host: "127.0.0.1", port: 0)
            .get()
        let server = StingyServer(listener, limit: limit)
        box.withLock { $0 = server }
        do { try await body(server) } catch {
            try? await listener.close()
            throw error
        }
        try await listener.close()
    }

    /// SETTINGS with a limit of streams.
    static func settings(_ limit: UInt32) -> ByteBuffer {
        RawPeer.frame(type: 4, payload: [0, 3] + (0..<4).map { UInt8(truncatingIfNeeded: limit >> (24 - 8 * $0)) })
    }

    /// Changes the limit on all connections, and on those to come.
    func allow(_ limit: UInt32) {
        self.limit.withLock { $0 = limit }
        for channel in self.connections.withLock({ $0 }) { channel.writeAndFlush(Self.settings(limit), promise: nil) }
    }
}

/// Answers each request with the status `NOT_FOUND`, whatever the limit.
private final class StingyConnection: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private static let prefaceByteCount = 24

    private let settings: ByteBuffer
    private var buffer = ByteBuffer()
    private var hasPreface = false

    init(_ settings: ByteBuffer) {
        self.settings = settings
    }

    func channelActive(context: ChannelHandlerContext) {
        context.writeAndFlush(self.wrapOutboundOut(self.settings), promise: nil)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        self.buffer.writeImmutableBuffer(self.unwrapInboundIn(data))
        if !self.hasPreface {
            guard self.buffer.readableBytes >= Self.prefaceByteCount else { return }
            self.buffer.moveReaderIndex(forwardBy: Self.prefaceByteCount)
            self.hasPreface = true
        }
        while let head = self.buffer.getInteger(at: self.buffer.readerIndex, as: UInt32.self) {
            let length = Int(head >> 8)
            guard self.buffer.readableBytes >= 9 + length else { break }
            let flags = self.buffer.getInteger(at: self.buffer.readerIndex + 4, as: UInt8.self) ?? 0
            let streamID = self.buffer.getInteger(at: self.buffer.readerIndex + 5, as: UInt32.self) ?? 0
            self.buffer.moveReaderIndex(forwardBy: 9 + length)
            switch (UInt8(truncatingIfNeeded: head), flags & 1) {
            case (4, 0): self.write(RawPeer.frame(type: 4, flags: 1), context)
            case (0, 1): self.write(Self.answer(streamID), context)
            default: break
            }
        }
        context.flush()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

    private func write(_ bytes: ByteBuffer, _ context: ChannelHandlerContext) {
        context.write(self.wrapOutboundOut(bytes), promise: nil)
    }

    /// A response of trailers alone.
    private static func answer(_ streamID: UInt32) -> ByteBuffer {
        let type = [0x88, 0x0f, 0x10, 16] + Array("application/grpc".utf8)
        let status = [0, 11] + Array("grpc-status".utf8) + [1] + Array("5".utf8)
        return RawPeer.frame(type: 1, flags: 5, streamID: streamID, payload: type + status)
    }
}

@Suite("A server that allows no stream", .serialized)
struct StreamLimitTests {
    private func configuration(_ bound: Duration) -> RPCChannelConfiguration {
        .quick {
            $0.reconnect.connectTimeout = bound
            $0.waitsWhileConnecting = false
        }
    }

    /// Polls until a condition holds.
    private func reach(_ condition: () -> Bool) async throws {
        while !condition() { try await Task.sleep(for: .milliseconds(2)) }
    }

    @Test("on whose connection calls are allowed again is used again: none is lost for good", .timeLimit(.minutes(5)))
    func raised() async throws {
        try await StingyServer.with(100) { server in
            // The bound is far away: it is the settings that bring the server back.
            try await withChannel(port: server.port, self.configuration(.seconds(3600))) { channel in
                func code() async -> Status.Code? {
                    do {
                        _ = try await channel.unary(Methods.echo, Payload(pattern(3)), options: CallOptions())
                        return nil
                    } catch { return (error as? RPCError)?.code }
                }
                for _ in 0..<3 {
                    try await self.reach { channel.state == .ready }
                    #expect(channel.trouble == nil)
                    #expect(await code() == .notFound)
                    server.allow(0)
                    try await self.reach { channel.state == .transientFailure }
                    #expect(channel.trouble?.contains("SETTINGS_MAX_CONCURRENT_STREAMS is 0") == true)
                    // A call that can turn to another server does not wait.
                    #expect(await code() == .unavailable)
                    server.allow(1)
                }
                try await self.reach { channel.state == .ready }
                #expect(server.connectionCount == 1)
            }
        }
    }

    @Test(
        "is connected to again after a time, with growing waits, and used once it allows calls",
        .timeLimit(.minutes(5))
    )
    func replaced() async throws {
        try await StingyServer.with(0) { server in
            try await withChannel(port: server.port, self.configuration(.milliseconds(50))) { channel in
                try await self.reach { server.connectionCount >= 4 }
                #expect(channel.state != .ready)
                server.allow(1)
                let options = CallOptions(waitForReady: true)
                let error = await #expect(throws: RPCError.self) {
                    try await channel.unary(Methods.echo, Payload(pattern(3)), options: options)
                }
                #expect(error?.code == .notFound)
                #expect(channel.state == .ready)
            }
        }
    }

    @Test("calls that wait for a server wait until it allows them", .timeLimit(.minutes(5)))
    func waits() async throws {
        try await StingyServer.with(0) { server in
            try await withChannel(port: server.port, .quick { $0.reconnect.connectTimeout = .seconds(3600) }) {
                channel in
                try await self.reach { channel.trouble?.contains("allows no calls") == true }
                async let reply = #expect(throws: RPCError.self) {
                    try await channel.unary(Methods.echo, Payload(pattern(3)))
                }
                server.allow(2)
                let error = await reply
                #expect(error?.code == .notFound)
            }
        }
    }
}
