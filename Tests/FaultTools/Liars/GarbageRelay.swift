// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import NIOPosix
internal import Synchronization

/// A TCP relay before an expert host that, on request, sends random bytes in place of the host's.
///
/// Calls in flight then break in the middle of a connection; later connections get random bytes from the start.
package final class GarbageRelay: Sendable {
    /// `host:port`.
    package let address: String
    private let listener: any Channel
    private let mode: GarbageMode

    private init(listener: any Channel, mode: GarbageMode) {
        self.listener = listener
        self.mode = mode
        self.address = "127.0.0.1:\(listener.localAddress?.port ?? 0)"
    }

    /// From now on sends random bytes, or the host's own again.
    package func speakGarbage(_ isGarbage: Bool) { self.mode.isGarbage.withLock { $0 = isGarbage } }

    /// How many random bytes were sent.
    package var drawn: Int { self.mode.drawn.withLock { $0 } }

    /// Runs a relay while a body runs.
    ///
    /// - Parameters:
    ///   - honest: `host:port` of the true host.
    ///   - body: Gets the relay, which at first forwards what it reads.
    /// - Returns: What the body returns.
    /// - Throws: What the body throws; errors of listening.
    package static func with<Result: Sendable>(
        before honest: String,
        _ body: (GarbageRelay) async throws -> Result
    ) async throws -> Result {
        let upstream = try SocketAddressText(honest)
        let mode = GarbageMode()
        let listener = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            .childChannelInitializer { front in Self.join(front, to: upstream.host, upstream.port, mode) }
            .bind(host: "127.0.0.1", port: 0)
            .get()
        let outcome: Swift.Result<Result, any Error>
        do {
            outcome = .success(try await body(GarbageRelay(listener: listener, mode: mode)))
        } catch {
            outcome = .failure(error)
        }
        try? await listener.close()
        return try outcome.get()
    }

    /// Connects to the host and joins both connections; what arrives before that waits in the socket.
    private static func join(
        _ front: any Channel,
        to host: String,
        _ port: Int,
        _ mode: GarbageMode
    ) -> EventLoopFuture<Void> {
        ClientBootstrap(group: front.eventLoop)
            .channelOption(.tcpOption(.tcp_nodelay), value: 1)
            .channelInitializer { back in
                back.eventLoop.makeCompletedFuture {
                    try back.pipeline.syncOperations.addHandler(HandOn(to: front, distorting: mode))
                }
            }
            .connect(host: host, port: port)
            .flatMap { back in
                front.eventLoop.makeCompletedFuture {
                    try front.pipeline.syncOperations.addHandler(HandOn(to: back, distorting: nil))
                }
            }
    }
}

/// Whether relays send garbage now.
private final class GarbageMode: Sendable {
    let isGarbage = Mutex(false)
    let drawn = Mutex(0)
}

/// Writes what is read on one connection to another one.
private final class HandOn: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    private let other: any Channel
    private let mode: GarbageMode?
    private var generator = SystemRandomNumberGenerator()

    init(to other: any Channel, distorting mode: GarbageMode?) {
        self.other = other
        self.mode = mode
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let bytes = self.unwrapInboundIn(data)
        guard let mode, mode.isGarbage.withLock({ $0 }) else {
            self.other.writeAndFlush(bytes, promise: nil)
            return
        }
        let count = bytes.readableBytes
        mode.drawn.withLock { $0 += count }
        let drawn = (0..<count).map { _ in UInt8.random(in: .min ... .max, using: &self.generator) }
        self.other.writeAndFlush(ByteBuffer(bytes: drawn), promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) {
        self.other.close(promise: nil)
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}
