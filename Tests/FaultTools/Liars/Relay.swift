// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import NIOPosix

/// Changes what an expert host sends on one connection.
protocol RelayFilter {
    /// Turns bytes that the host sent into what the gateway gets, which may be nothing.
    mutating func pass(_ bytes: ByteBuffer) -> ByteBuffer
}

/// A TCP relay before an expert host: the host's bytes go through a filter, the gateway's are handed on as they are.
enum Relay {
    /// Runs a relay while a body runs.
    ///
    /// - Parameters:
    ///   - honest: `host:port` of the true host.
    ///   - filter: Makes each connection's filter.
    ///   - body: Gets the relay's `host:port`.
    /// - Returns: What the body returns.
    /// - Throws: What the body throws; errors of listening.
    static func with<Result: Sendable>(
        before honest: String,
        filter: @escaping @Sendable () -> any RelayFilter,
        body: (_ address: String) async throws -> Result
    ) async throws -> Result {
        let upstream = try SocketAddressText(honest)
        let listener = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            .childChannelInitializer { front in Self.join(front, to: upstream.host, upstream.port, filter) }
            .bind(host: "127.0.0.1", port: 0)
            .get()
        let outcome: Swift.Result<Result, any Error>
        do {
            outcome = .success(try await body("127.0.0.1:\(listener.localAddress?.port ?? 0)"))
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
        _ filter: @escaping @Sendable () -> any RelayFilter
    ) -> EventLoopFuture<Void> {
        ClientBootstrap(group: front.eventLoop)
            .channelOption(.tcpOption(.tcp_nodelay), value: 1)
            .channelInitializer { back in
                back.eventLoop.makeCompletedFuture {
                    try back.pipeline.syncOperations.addHandler(HandOn(to: front, through: filter()))
                }
            }
            .connect(host: host, port: port)
            .flatMap { back in
                front.eventLoop.makeCompletedFuture {
                    try front.pipeline.syncOperations.addHandler(HandOn(to: back, through: nil))
                }
            }
    }
}

/// Writes what is read on one connection to another one.
private final class HandOn: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    private let other: any Channel
    private var filter: (any RelayFilter)?

    init(to other: any Channel, through filter: (any RelayFilter)?) {
        self.other = other
        self.filter = filter
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let bytes = self.unwrapInboundIn(data)
        self.other.writeAndFlush(self.filter?.pass(bytes) ?? bytes, promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) {
        self.other.close(promise: nil)
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}
