// SPDX-License-Identifier: Apache-2.0

/// When a connection is given up and when it is probed.
public struct ConnectionTiming: Sendable, Hashable {
    /// How long the peer may take to send its settings and to acknowledge ours.
    public var handshakeTimeout: Duration
    /// How long a connection may be silent before it is probed with a ping; nil sends none.
    public var keepaliveInterval: Duration?
    /// How long the peer may take to answer such a ping, or to send anything else.
    public var keepaliveTimeout: Duration
    /// How long a connection may have no call before it is closed; nil keeps it.
    public var idleTimeout: Duration?

    /// Ten seconds for the handshake; no pings; no idle limit.
    public static let defaults = ConnectionTiming()

    /// Creates timing; see the properties for the meaning of each value.
    ///
    /// - Parameters:
    ///   - handshakeTimeout: Time for the peer's settings and acknowledgement.
    ///   - keepaliveInterval: Silence before a ping.
    ///   - keepaliveTimeout: Time to answer a ping.
    ///   - idleTimeout: Time without a call.
    public init(
        handshakeTimeout: Duration = .seconds(10),
        keepaliveInterval: Duration? = nil,
        keepaliveTimeout: Duration = .seconds(20),
        idleTimeout: Duration? = nil
    ) {
        self.handshakeTimeout = handshakeTimeout
        self.keepaliveInterval = keepaliveInterval
        self.keepaliveTimeout = keepaliveTimeout
        self.idleTimeout = idleTimeout
    }
}
