// SPDX-License-Identifier: Apache-2.0

internal import HummingbirdCore
internal import HummingbirdHTTP2
internal import Logging
internal import NIOCore
internal import RPCTransport

/// Sets a connection up: a place for it, TLS, HTTP/1.1 or HTTP/2, and guards against clients that do not read.
struct DoorChannel: ServerChildChannel {
    /// A connection whose protocol may not be known yet.
    struct Value: ServerChildChannelValue {
        let opened: EventLoopFuture<Opened>
        let connection: DoorConnection
        var channel: any Channel { self.connection.channel }
    }

    /// A connection whose protocol is known.
    enum Opened: Sendable {
        case http1(HTTP1Channel.Value)
        case http2(HTTP2Channel.Value)
    }

    private let configuration: DoorConfiguration
    private let connections: DoorConnections
    private let counts: DoorCounts
    private let http1: HTTP1Channel
    private let http2: HTTP2Channel

    init(
        _ configuration: DoorConfiguration,
        _ connections: DoorConnections,
        _ counts: DoorCounts,
        responder: @escaping HTTPChannelHandler.Responder
    ) {
        let patience = configuration.patience
        self.configuration = configuration
        self.connections = connections
        self.counts = counts
        self.http1 = HTTP1Channel(
            responder: responder,
            configuration: .init(
                additionalChannelHandlers: [LeavingHandler()],
                idleTimeout: TimeAmount(patience.idle),
                httpDecoderConfiguration: .init(
                    maxHeaderFieldSize: 16 << 10,
                    maxHeaderListSize: 32 << 10,
                    maxHeaderFieldCount: 100
                )
            )
        )
        self.http2 = HTTP2Channel(
            responder: responder,
            configuration: .init(
                idleTimeout: patience.idle,
                gracefulCloseTimeout: configuration.drainTimeout,
                streamConfiguration: .init(
                    additionalChannelHandlers: [
                        WriteStallHandler(patience: patience.reading), DoorStreamHandler(connections: connections),
                    ],
                    idleTimeout: TimeAmount(patience.idle)
                )
            )
        )
    }

    func setup(channel: any Channel, logger: Logger) -> EventLoopFuture<Value> {
        guard let connection = self.connections.arrived(channel) else {
            return channel.eventLoop.makeFailedFuture(ChannelError.ioOnClosedChannel)
        }
        let opened = channel.eventLoop.makePromise(of: Opened.self)
        return channel.eventLoop
            .makeCompletedFuture {
                try? channel.syncOptions?.setOption(.tcpOption(.tcp_nodelay), value: 1)
                let pipeline = channel.pipeline.syncOperations
                try pipeline.addHandler(WriteStallHandler(patience: self.configuration.patience.reading))
                var tls: ServerTLS?
                if case .tls(let security) = self.configuration.security {
                    tls = security
                    try security.addWebHandler(to: pipeline)
                }
                try pipeline.addHandlers(TrafficHandler(counts: self.counts), FlushJoiner())
                let opening = OpeningHandler(
                    isSecure: tls != nil,
                    patience: self.configuration.patience.opening,
                    accept: { [tls] in
                        switch tls?.admitted(in: channel.pipeline.syncOperations) {
                        case .success(let identity)?: connection.identity = identity
                        case .failure(let error)?:
                            logger.warning(
                                "an HTTP connection was refused",
                                metadata: ["peer": "\(connection.host)", "reason": "\(error)"]
                            )
                            self.counts.refused()
                            return false
                        case nil: break
                        }
                        return true
                    },
                    begin: { found in
                        switch found {
                        case .http1:
                            self.http1.setup(channel: channel, logger: logger).map { Opened.http1($0) }
                                .cascade(to: opened)
                        case .http2:
                            self.http2.setup(channel: channel, logger: logger).map { Opened.http2($0) }
                                .cascade(to: opened)
                        }
                    },
                    fail: { opened.fail(ChannelError.ioOnClosedChannel) }
                )
                try pipeline.addHandler(opening)
                return Value(opened: opened.futureResult, connection: connection)
            }
            .flatMapErrorThrowing { (error: any Error) -> Value in
                opened.fail(error)
                throw error
            }
    }

    func handle(value: Value, logger: Logger) async {
        do {
            switch try await value.opened.get() {
            case .http1(let channel): await self.serve(channel, value.connection, logger)
            case .http2(let channel): await self.http2.handle(value: channel, logger: logger)
            }
        } catch {
            // It closed, or was refused, before it said anything.
            logger.trace("an HTTP connection ended early", metadata: ["reason": "\(error)"])
            value.channel.close(promise: nil)
        }
    }

    /// Runs a connection of HTTP/1.1, whose task is cancelled once the client has left, and with it the request that it answers.
    ///
    /// One task for each connection tells that, and none for each request.
    private func serve(_ channel: HTTP1Channel.Value, _ connection: DoorConnection, _ logger: Logger) async {
        await withDiscardingTaskGroup { group in
            group.addTask { await self.http1.handle(value: channel, logger: logger) }
            await connection.waitUntilClosed()
            group.cancelAll()
        }
    }
}
