// SPDX-License-Identifier: Apache-2.0

public import RPCCore
internal import RPCTransport

/// How a client reaches a gateway and what it waits for.
public struct GatewayClientConfiguration: Sendable {
    /// How long a call may take if it does not say so itself; nothing means without end.
    public var timeout: Duration?

    /// How long a call waits for the first connection, and how long one attempt to connect may take.
    public var connectTimeout: Duration

    /// How many connections the client keeps.
    public var connections: Int

    /// The largest answer, in bytes; an `Encode` of a long input is large.
    public var maxResponseBytes: Int

    /// Key-value pairs that go with every call.
    public var metadata: Metadata

    /// Five minutes for a call, five seconds to connect, one connection, answers of up to 64 MiB.
    public static let defaults = GatewayClientConfiguration()

    /// Creates a configuration.
    ///
    /// - Parameters:
    ///   - timeout: How long a call may take if it does not say so itself.
    ///   - connectTimeout: How long a call waits for the first connection.
    ///   - connections: How many connections the client keeps.
    ///   - maxResponseBytes: The largest answer, in bytes.
    ///   - metadata: Key-value pairs that go with every call.
    public init(
        timeout: Duration? = .seconds(300),
        connectTimeout: Duration = .seconds(5),
        connections: Int = 1,
        maxResponseBytes: Int = 64 << 20,
        metadata: Metadata = Metadata()
    ) {
        self.timeout = timeout
        self.connectTimeout = connectTimeout
        self.connections = connections
        self.maxResponseBytes = maxResponseBytes
        self.metadata = metadata
    }

    /// What the transport makes of it.
    var channel: RPCChannelConfiguration {
        var limits = TransportLimits.defaults
        limits.maxReceiveMessageBytes = self.maxResponseBytes
        var reconnect = ReconnectPolicy.dataPlane
        reconnect.connectTimeout = self.connectTimeout
        return RPCChannelConfiguration(connections: self.connections, limits: limits, reconnect: reconnect)
    }
}
