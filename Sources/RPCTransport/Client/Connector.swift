// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import NIOPosix
internal import SwitchyardTypes

/// Connects sockets to one server, on one event loop.
struct Connector {
    let eventLoop: any EventLoop
    let target: (host: String, port: Int)
    let timeout: TimeAmount
    let reads: AdaptiveRecvByteBufferAllocator

    /// The server's Unix socket; nil for a server on a network.
    var socket: UnixAddress? { UnixAddress(host: self.target.host) }

    /// The server's address, for people.
    var name: String { self.socket?.description ?? "\(self.target.host):\(self.target.port)" }

    /// The name by which requests and certificates call the server.
    var serverName: String { self.socket == nil ? self.target.host : RPCChannel.nameOfUnixServers }

    /// Connects a socket.
    ///
    /// - Parameter prepare: Builds its pipeline.
    /// - Returns: The connected channel.
    func connect(prepare: @escaping @Sendable (any Channel) throws -> Void) -> EventLoopFuture<any Channel> {
        if let loop = self.eventLoop as? DrivenEventLoop {
            return Dial.begin(
                host: self.target.host,
                port: self.target.port,
                on: loop,
                timeout: self.timeout,
                options: SocketChannel.Options(reads: self.reads, waterMark: TransportLimits.waterMark),
                prepare: prepare
            )
        }
        let bootstrap = ClientBootstrap(group: self.eventLoop)
            .connectTimeout(self.timeout)
            .channelOption(.tcpOption(.tcp_nodelay), value: 1)
            .channelOption(.recvAllocator, value: self.reads)
            .channelOption(.writeBufferWaterMark, value: TransportLimits.waterMark)
            .channelInitializer { channel in channel.eventLoop.makeCompletedFuture { try prepare(channel) } }
        let attempt =
            if let socket = self.socket {
                bootstrap.connect(unixDomainSocketPath: socket.path)
            } else {
                bootstrap.connect(host: self.target.host, port: self.target.port)
            }
        return attempt.hop(to: self.eventLoop)
    }
}
