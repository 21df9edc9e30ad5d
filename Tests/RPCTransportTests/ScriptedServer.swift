// SPDX-License-Identifier: Apache-2.0

import HTTP2Session
import NIOCore
import NIOPosix
import Synchronization

/// A server that does to each request what the test says: for what a proper server never does.
final class ScriptedServer: Sendable {
    /// Gets the codec, the request's stream and its number over all connections, from 0; called at the request's headers.
    typealias Script = @Sendable (HTTP2Codec, Int32, Int) throws -> Void

    let port: Int
    private let listener: any Channel
    private let requests = Mutex<[HTTP2HeaderBlock]>([])

    /// The header blocks of all requests.
    var seen: [HTTP2HeaderBlock] { self.requests.withLock { $0 } }

    private init(_ listener: any Channel) {
        self.listener = listener
        self.port = listener.localAddress?.port ?? 0
    }

    static func with<Result>(_ script: @escaping Script, _ body: (ScriptedServer) async throws -> Result) async throws
        -> Result
    {
        let box = Mutex<ScriptedServer?>(nil)
        let listener = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let handler = try ScriptedConnection(script) { block in
                        box.withLock { $0 }?.requests
                            .withLock { requests in
                                requests.append(block)
                                return requests.count - 1
                            } ?? 0
                    }
                    try channel.pipeline.syncOperations.addHandler(handler)
                }
            }
            .bind(host: "127.0.0.1", port: 0)
            .get()
        let server = ScriptedServer(listener)
        box.withLock { $0 = server }
        do {
            let result = try await body(server)
            try await listener.close()
            return result
        } catch {
            try? await listener.close()
            throw error
        }
    }
}

/// One connection of a scripted server.
final class ScriptedConnection: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private let codec: HTTP2Codec
    private let script: ScriptedServer.Script
    private let record: @Sendable (HTTP2HeaderBlock) -> Int

    init(_ script: @escaping ScriptedServer.Script, record: @escaping @Sendable (HTTP2HeaderBlock) -> Int) throws {
        self.codec = try HTTP2Codec(role: .server, now: .now)
        self.script = script
        self.record = record
    }

    func channelActive(context: ChannelHandlerContext) { self.flush(context) }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        do {
            try self.codec.receive(self.unwrapInboundIn(data), now: .now)
            for event in self.codec.takeEvents() {
                switch event {
                case .headers(let block): try self.script(self.codec, block.streamID, self.record(block))
                case .data(let streamID, let bytes):
                    self.codec.consume(streamID: streamID, byteCount: bytes.readableBytes)
                default: break
                }
            }
            self.flush(context)
        } catch {
            context.close(promise: nil)
        }
    }

    private func flush(_ context: ChannelHandlerContext) {
        for buffer in self.codec.takeOutput() { context.write(self.wrapOutboundOut(buffer), promise: nil) }
        context.flush()
        if self.codec.isFinished { context.close(promise: nil) }
    }
}
