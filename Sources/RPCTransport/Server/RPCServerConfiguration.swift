// SPDX-License-Identifier: Apache-2.0

public import NIOCore
public import RPCCore

/// Where a server listens and what its connections may hold.
public struct RPCServerConfiguration: Sendable {
    /// The address to listen on; a Unix socket (`UnixAddress.host`) has no port.
    public var host: String
    /// The port to listen on; 0 takes a free one.
    public var port: Int
    /// The port, bound in advance; the server releases it once it listens.
    public var reservation: PortReservation?
    /// The event loops that carry the connections; nil takes the process's own.
    public var eventLoopGroup: (any EventLoopGroup)?
    /// What one connection may hold.
    public var limits: TransportLimits
    /// When a connection is closed or probed.
    public var timing: ConnectionTiming
    /// How long calls in flight may take to finish when the server drains.
    public var drainGrace: Duration
    /// Whether responses are compressed, for callers that accept it.
    public var compression: MessageCompression
    /// Whether handlers can ask which requests were compressed, for tests.
    package var recordsCompression = false
    /// Notes when the stages of calls happen, for benchmarks.
    package var stages: CallStages?
    /// What plain HTTP requests are answered with, for suites that test HTTP/2 and know no gRPC; nil refuses them.
    package var conformanceBody: ByteBuffer?
    /// Whether connections are encrypted.
    public var security: ServerSecurity
    /// Decides, on the event loop and without blocking, whether a call may be made; returns the error that refuses it.
    ///
    /// It runs before anything else of the call is examined, even whether the method exists; nil admits every call.
    public var authorize: (@Sendable (ServerContext) -> RPCError?)?
    /// Decides, on the event loop and without blocking, whether there is room for a call; returns the error that refuses it.
    ///
    /// It runs when the headers of a call have come that may be made, before anything of its message is kept, decompressed
    /// or read, so that a refusal costs little. Clients refused with `RESOURCE_EXHAUSTED` again and again are read from
    /// less often. Nil admits every call.
    public var admit: (@Sendable (ServerContext) -> RPCError?)?

    /// The services of probes, which are answered in the places kept for them.
    public var probeServices: Set<String> = []

    /// Creates a configuration.
    ///
    /// - Parameters:
    ///   - host: The address to listen on.
    ///   - port: The port to listen on; 0 takes a free one.
    ///   - eventLoopGroup: The event loops that carry the connections; nil takes the process's own.
    ///   - limits: What one connection may hold.
    ///   - timing: When a connection is closed or probed.
    ///   - drainGrace: How long calls in flight may take to finish when the server drains.
    ///   - compression: Whether responses are compressed, for callers that accept it.
    ///   - security: Whether connections are encrypted.
    ///   - authorize: Decides whether a call may be made.
    public init(
        host: String = "127.0.0.1",
        port: Int = 0,
        eventLoopGroup: (any EventLoopGroup)? = nil,
        limits: TransportLimits = .defaults,
        timing: ConnectionTiming = .defaults,
        drainGrace: Duration = .seconds(30),
        compression: MessageCompression = .none,
        security: ServerSecurity = .plaintext,
        authorize: (@Sendable (ServerContext) -> RPCError?)? = nil
    ) {
        self.host = host
        self.port = port
        self.eventLoopGroup = eventLoopGroup
        self.limits = limits
        self.timing = timing
        self.drainGrace = drainGrace
        self.compression = compression
        self.security = security
        self.authorize = authorize
    }
}
