// SPDX-License-Identifier: Apache-2.0

public import NIOCore

/// Where a server listens and what its connections may hold.
public struct RPCServerConfiguration: Sendable {
    /// The address to listen at.
    public var host: String
    /// The port to listen at; 0 takes a free one.
    public var port: Int
    /// The event loops that carry the connections; nil takes the process's own.
    public var eventLoopGroup: (any EventLoopGroup)?
    /// What one connection may hold.
    public var limits: TransportLimits
    /// When a connection is given up or probed.
    public var timing: ConnectionTiming
    /// How long calls under way may take to finish when the server drains.
    public var drainGrace: Duration
    /// Whether responses are compressed, for callers that accept it.
    public var compression: MessageCompression
    /// What plain HTTP requests are answered with, for suites that test HTTP/2 and know no gRPC; nil refuses them.
    package var conformanceBody: ByteBuffer?

    /// Creates a configuration.
    ///
    /// - Parameters:
    ///   - host: The address to listen at.
    ///   - port: The port to listen at; 0 takes a free one.
    ///   - eventLoopGroup: The event loops that carry the connections; nil takes the process's own.
    ///   - limits: What one connection may hold.
    ///   - timing: When a connection is given up or probed.
    ///   - drainGrace: How long calls under way may take to finish when the server drains.
    ///   - compression: Whether responses are compressed, for callers that accept it.
    public init(
        host: String = "127.0.0.1",
        port: Int = 0,
        eventLoopGroup: (any EventLoopGroup)? = nil,
        limits: TransportLimits = .defaults,
        timing: ConnectionTiming = .defaults,
        drainGrace: Duration = .seconds(30),
        compression: MessageCompression = .none
    ) {
        self.host = host
        self.port = port
        self.eventLoopGroup = eventLoopGroup
        self.limits = limits
        self.timing = timing
        self.drainGrace = drainGrace
        self.compression = compression
    }
}
