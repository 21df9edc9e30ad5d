// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import NIOPosix
internal import Synchronization

/// A TCP relay before an expert host that, on request, says GOAWAY in place of the first answer to a layer, and then nothing.
///
/// The first call of a connection, with which a gateway asks the host what it holds, is still answered. So a gateway that
/// connects again finds a healthy host, as often as it likes.
package final class GoAwayRelay: Sendable {
    /// `host:port`.
    package let address: String
    private let listener: any Channel
    private let mode: Mode

    private init(listener: any Channel, mode: Mode) {
        self.listener = listener
        self.mode = mode
        self.address = "127.0.0.1:\(listener.localAddress?.port ?? 0)"
    }

    /// From now on leaves connections silently after GOAWAY, or serves new ones as the host does.
    package func leave(_ isLeaving: Bool) { self.mode.isLeaving.withLock { $0 = isLeaving } }

    /// How many connections were left.
    package var left: Int { self.mode.left.withLock { $0 } }

    /// Runs a relay while a body runs.
    ///
    /// - Parameters:
    ///   - honest: `host:port` of the true host.
    ///   - body: Gets the relay, which at first forwards what it reads.
    /// - Returns: What the body returns.
    /// - Throws: What the body throws; errors of listening.
    package static func with<Result: Sendable>(
        before honest: String,
        _ body: (GoAwayRelay) async throws -> Result
    ) async throws -> Result {
        let upstream = try SocketAddressText(honest)
        let mode = Mode()
        let listener = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            .childChannelInitializer { front in Self.join(front, to: upstream.host, upstream.port, mode) }
            .bind(host: "127.0.0.1", port: 0)
            .get()
        let outcome: Swift.Result<Result, any Error>
        do {
            outcome = .success(try await body(GoAwayRelay(listener: listener, mode: mode)))
        } catch {
            outcome = .failure(error)
        }
        try? await listener.close()
        return try outcome.get()
    }

    private static func join(
        _ front: any Channel,
        to host: String,
        _ port: Int,
        _ mode: Mode
    ) -> EventLoopFuture<Void> {
        ClientBootstrap(group: front.eventLoop)
            .channelOption(.tcpOption(.tcp_nodelay), value: 1)
            .channelInitializer { back in
                back.eventLoop.makeCompletedFuture {
                    try back.pipeline.syncOperations.addHandler(FrameRelay(to: front, leaving: mode))
                }
            }
            .connect(host: host, port: port)
            .flatMap { back in
                front.eventLoop.makeCompletedFuture {
                    try front.pipeline.syncOperations.addHandler(FrameRelay(to: back, leaving: nil))
                }
            }
    }

    /// Whether connections are left now.
    fileprivate final class Mode: Sendable {
        let isLeaving = Mutex(false)
        let left = Mutex(0)
    }
}

/// Writes what is read on one connection to another one, frame by frame where it may stop doing so.
private final class FrameRelay: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    private let other: any Channel
    private let mode: GoAwayRelay.Mode?
    private var cutter = FrameCutter()
    private var isSilent = false

    init(to other: any Channel, leaving mode: GoAwayRelay.Mode?) {
        self.other = other
        self.mode = mode
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let bytes = self.unwrapInboundIn(data)
        guard let mode else {
            self.other.writeAndFlush(bytes, promise: nil)
            return
        }
        for frame in self.cutter.take(Array(bytes.readableBytesView)) where !self.isSilent {
            // Stream 1 carries the first call.
            if frame.stream > 1, mode.isLeaving.withLock({ $0 }) {
                self.isSilent = true
                mode.left.withLock { $0 += 1 }
                self.other.write(ByteBuffer(bytes: HostileFrames.politeGoAway), promise: nil)
            } else {
                self.other.write(ByteBuffer(bytes: frame.bytes), promise: nil)
            }
        }
        self.other.flush()
    }

    func channelInactive(context: ChannelHandlerContext) {
        self.other.close(promise: nil)
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}
