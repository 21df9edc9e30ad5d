// SPDX-License-Identifier: Apache-2.0

public import ExpertPooling
internal import RPCCore
public import RPCTransport

/// Which expert hosts there are and how to reach them.
public struct ExpertClusterConfiguration: Sendable {
    /// The pools and where their replicas are.
    public var pools: [PoolSpecification]

    /// How replicas are chosen and when they are left alone.
    public var choice = ExpertPoolsConfiguration.defaults

    /// How each replica is connected to.
    public var channel = RPCChannelConfiguration(
        limits: .dataPlane,
        reconnect: .dataPlane,
        timing: .dataPlane,
        // The pool decides what is tried again, and on which replica.
        retry: .none,
        waitsWhileConnecting: false
    )

    /// How long a host may take to describe itself.
    public var describeTimeout = Duration.seconds(2)

    /// How often names whose every address is a replica are looked up again.
    public var lookupInterval = Duration.seconds(5)

    /// Creates a configuration for some pools; everything else has its default.
    ///
    /// - Parameter pools: The pools and where their replicas are.
    public init(pools: [PoolSpecification]) {
        self.pools = pools
    }
}
