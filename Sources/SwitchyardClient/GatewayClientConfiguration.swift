// SPDX-License-Identifier: Apache-2.0

internal import Logging
public import RPCCore
internal import RPCTransport

/// How a client reaches a gateway, and its timeouts.
public struct GatewayClientConfiguration: Sendable {
    /// How long a call may take unless it sets its own timeout; nil is unlimited.
    public var timeout: Duration?

    /// How long a call waits for the first connection, and how long one attempt to connect may take.
    public var connectTimeout: Duration

    /// How many connections the client keeps.
    public var connections: Int

    /// The largest answer, in bytes; an `Encode` of a long input is large.
    public var maxResponseBytes: Int

    /// Key-value pairs sent with every call.
    public var metadata: Metadata

    /// Whether the connection is encrypted.
    public var security: GatewaySecurity

    /// The token sent with every call, if the gateway requires one.
    public var token: BearerToken?

    /// Five minutes for a call, five seconds to connect, one connection, answers of up to 64 MiB, plaintext only to
    /// this machine, no token.
    public static let defaults = GatewayClientConfiguration()

    /// Creates a configuration.
    ///
    /// - Parameters:
    ///   - timeout: How long a call may take unless it sets its own timeout.
    ///   - connectTimeout: How long a call waits for the first connection.
    ///   - connections: How many connections the client keeps.
    ///   - maxResponseBytes: The largest answer, in bytes.
    ///   - metadata: Key-value pairs sent with every call.
    ///   - security: Whether the connection is encrypted.
    ///   - token: The token sent with every call.
    public init(
        timeout: Duration? = .seconds(300),
        connectTimeout: Duration = .seconds(5),
        connections: Int = 1,
        maxResponseBytes: Int = 64 << 20,
        metadata: Metadata = Metadata(),
        security: GatewaySecurity = .plaintextOnLoopback,
        token: BearerToken? = nil
    ) {
        self.timeout = timeout
        self.connectTimeout = connectTimeout
        self.connections = connections
        self.maxResponseBytes = maxResponseBytes
        self.metadata = metadata
        self.security = security
        self.token = token
    }

    /// The pairs sent with every call, including the token.
    var callMetadata: Metadata {
        get throws(GatewayError) {
            guard let token = self.token else { return self.metadata }
            var metadata = self.metadata
            metadata.removeAll(forKey: "authorization")
            do throws(MetadataError) {
                try metadata.add("Bearer \(token.secret)", forKey: "authorization")
            } catch {
                throw GatewayError(.internal, "the token cannot be sent as metadata", cause: nil)
            }
            return metadata
        }
    }

    /// The transport's configuration.
    func channel(logger: Logger) -> RPCChannelConfiguration {
        var limits = TransportLimits.defaults
        limits.maxReceiveMessageBytes = self.maxResponseBytes
        var reconnect = ReconnectPolicy.dataPlane
        reconnect.connectTimeout = self.connectTimeout
        var security = ClientSecurity.plaintext
        if case .tls(let options) = self.security { security = .tls(ClientTLS(options, logger: logger)) }
        return RPCChannelConfiguration(
            connections: self.connections,
            limits: limits,
            reconnect: reconnect,
            security: security
        )
    }
}
