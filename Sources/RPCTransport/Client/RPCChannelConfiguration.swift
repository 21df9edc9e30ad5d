// SPDX-License-Identifier: Apache-2.0

public import NIOCore
public import RPCCore

/// How a channel connects and what its connections may hold.
public struct RPCChannelConfiguration: Sendable {
    /// How many connections the channel keeps, each on its own event loop while there are enough loops.
    public var connections: Int
    /// What one connection may hold.
    public var limits: TransportLimits
    /// How long the channel waits between attempts to connect.
    public var reconnect: ReconnectPolicy
    /// When a connection is closed or probed.
    public var timing: ConnectionTiming
    /// How many calls may wait on each connection: for it to be ready, or for the server to take more streams.
    public var maxWaitingCalls: Int
    /// Whether requests are compressed.
    public var compression: MessageCompression
    /// Records which responses came compressed, for tests.
    package var compressionLog: CompressionLog?
    /// Where the bytes of all connections are counted; nil counts none.
    public var traffic: TrafficCounts?
    /// Notes when the stages of calls happen, for benchmarks.
    package var stages: CallStages?
    /// Which failed calls are retried.
    public var retry: RetryPolicy
    /// Whether calls wait for the outcome of an attempt to connect, even those that do not wait for a server.
    ///
    /// False for a caller that can turn to another server.
    public var waitsWhileConnecting: Bool
    /// The event loops that carry the connections; nil takes the process's own.
    public var eventLoopGroup: (any EventLoopGroup)?
    /// Whether connections are encrypted.
    public var security: ClientSecurity

    /// One connection with the limits for peers from anywhere.
    public static let defaults = RPCChannelConfiguration()

    /// Creates a configuration.
    ///
    /// - Parameters:
    ///   - connections: How many connections the channel keeps.
    ///   - limits: What one connection may hold.
    ///   - reconnect: How long the channel waits between attempts to connect.
    ///   - timing: When a connection is closed or probed.
    ///   - maxWaitingCalls: How many calls may wait on each connection.
    ///   - compression: Whether requests are compressed.
    ///   - retry: Which failed calls are retried.
    ///   - waitsWhileConnecting: Whether calls wait for the outcome of an attempt to connect.
    ///   - eventLoopGroup: The event loops that carry the connections; nil takes the process's own.
    ///   - security: Whether connections are encrypted.
    public init(
        connections: Int = 1,
        limits: TransportLimits = .defaults,
        reconnect: ReconnectPolicy = .defaults,
        timing: ConnectionTiming = .defaults,
        maxWaitingCalls: Int = 10_000,
        compression: MessageCompression = .none,
        retry: RetryPolicy = .transparent,
        waitsWhileConnecting: Bool = true,
        eventLoopGroup: (any EventLoopGroup)? = nil,
        security: ClientSecurity = .plaintext
    ) {
        self.connections = connections
        self.limits = limits
        self.reconnect = reconnect
        self.timing = timing
        self.maxWaitingCalls = maxWaitingCalls
        self.compression = compression
        self.retry = retry
        self.waitsWhileConnecting = waitsWhileConnecting
        self.eventLoopGroup = eventLoopGroup
        self.security = security
    }
}
