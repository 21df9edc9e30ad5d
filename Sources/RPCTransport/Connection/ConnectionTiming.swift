// SPDX-License-Identifier: Apache-2.0

/// When a connection or a call on it is ended, and when a connection is probed.
public struct ConnectionTiming: Sendable, Hashable {
    /// How long the peer may take to send its preface and settings and to acknowledge ours.
    public var handshakeTimeout: Duration
    /// How long a connection may be silent before it is probed with a ping; nil sends none.
    public var keepaliveInterval: Duration?
    /// How long the peer may take to answer such a ping, or to send anything else.
    public var keepaliveTimeout: Duration
    /// Whether a connection without calls is probed too; servers that count pings end such a connection.
    public var probesIdleConnections: Bool
    /// How long a connection may have no call before it is closed; nil keeps it.
    public var idleTimeout: Duration?
    /// How long a connection may last before it is drained, so that clients look for a server again; nil keeps it (server).
    ///
    /// Each connection's own limit is up to a tenth shorter or longer, so that they do not all end at once.
    public var maxAge: Duration?
    /// How long calls may take to finish once a connection has reached its age; nil means for ever (server).
    public var maxAgeGrace: Duration?
    /// How long the one message of a request may take to arrive, from its headers to its end (server); nil means for ever.
    ///
    /// In a stream of messages, how long one may take for its next 16 KiB, or for its end, once it has begun.
    public var requestTimeout: Duration?
    /// How long the peer may read none of the waiting output, on the socket or on a stream; nil means for ever.
    public var stallTimeout: Duration?
    /// The shortest time between a client's pings while the server sends nothing (server); nil counts none.
    ///
    /// Without open calls it is two hours, as gRPC specifies, unless ``allowsIdlePings``.
    public var minimumPingInterval: Duration?
    /// How many pings may come too early before the connection is ended with `too_many_pings` (server).
    public var pingStrikes: Int
    /// Whether a client without open calls may ping as often as one with calls (server).
    public var allowsIdlePings: Bool

    /// Ten seconds for the handshake, half a minute for a request, a minute without progress; pings as gRPC counts them.
    public static let defaults = ConnectionTiming()

    /// For a server of clients from anywhere: a client silent for five minutes is probed, one without a call for an
    /// hour is disconnected.
    ///
    /// So a vanished client's connection is freed.
    public static let clientPlane = ConnectionTiming(
        keepaliveInterval: .seconds(300),
        probesIdleConnections: true,
        idleTimeout: .seconds(3_600)
    )

    /// For connections between a gateway and its expert hosts: probed after two seconds of silence, with or without
    /// calls, and closed after two more.
    ///
    /// Short, since a new connection is up sooner than TCP's retransmissions, whose waits double, notice that a network
    /// has recovered.
    public static let dataPlane = ConnectionTiming(
        keepaliveInterval: .seconds(2),
        keepaliveTimeout: .seconds(2),
        probesIdleConnections: true,
        minimumPingInterval: .seconds(1),
        allowsIdlePings: true
    )

    /// Creates timing; see the properties for the meaning of each value.
    ///
    /// - Parameters:
    ///   - handshakeTimeout: Time for the peer's preface, settings and acknowledgement.
    ///   - keepaliveInterval: Silence before a ping.
    ///   - keepaliveTimeout: Time to answer a ping.
    ///   - probesIdleConnections: Whether connections without calls are probed.
    ///   - idleTimeout: Time without a call.
    ///   - maxAge: Time after which the connection is drained.
    ///   - maxAgeGrace: Time for calls in flight after that.
    ///   - requestTimeout: Time for a request's one message.
    ///   - stallTimeout: Time in which the peer reads nothing.
    ///   - minimumPingInterval: Time between a client's pings.
    ///   - pingStrikes: Pings that may come too early.
    ///   - allowsIdlePings: Whether clients without calls may ping.
    public init(
        handshakeTimeout: Duration = .seconds(10),
        keepaliveInterval: Duration? = nil,
        keepaliveTimeout: Duration = .seconds(20),
        probesIdleConnections: Bool = false,
        idleTimeout: Duration? = nil,
        maxAge: Duration? = nil,
        maxAgeGrace: Duration? = nil,
        requestTimeout: Duration? = .seconds(30),
        stallTimeout: Duration? = .seconds(60),
        minimumPingInterval: Duration? = .seconds(300),
        pingStrikes: Int = 2,
        allowsIdlePings: Bool = false
    ) {
        self.handshakeTimeout = handshakeTimeout
        self.keepaliveInterval = keepaliveInterval
        self.keepaliveTimeout = keepaliveTimeout
        self.probesIdleConnections = probesIdleConnections
        self.idleTimeout = idleTimeout
        self.maxAge = maxAge
        self.maxAgeGrace = maxAgeGrace
        self.requestTimeout = requestTimeout
        self.stallTimeout = stallTimeout
        self.minimumPingInterval = minimumPingInterval
        self.pingStrikes = pingStrikes
        self.allowsIdlePings = allowsIdlePings
    }

    /// How often requests and waiting output are checked; nil where neither has a limit.
    var sweepInterval: Duration? {
        let shortest = [self.requestTimeout, self.stallTimeout].compactMap { $0 }.min()
        return shortest.map { max($0 / 4, .milliseconds(5)) }
    }
}
