// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import ExpertPooling
import ExpertServing
import GatewayServing
import Logging

/// Expert hosts within this process, and a cluster of them.
struct BenchHosts {
    /// The hosts, with the names of their pools.
    let hosts: [(name: String, host: ExpertHost)]

    /// Runs the hosts.
    ///
    /// - Parameter group: Where they run.
    /// - Returns: The pools, once all hosts listen.
    /// - Throws: The error for which a host does not listen.
    func run(in group: inout ThrowingTaskGroup<Void, any Error>) async throws -> [PoolSpecification] {
        for (_, host) in self.hosts { group.addTask { try await host.run() } }
        var pools: [PoolSpecification] = []
        for (name, host) in self.hosts {
            let address = try await host.boundAddress()
            let target = PoolTarget.address(host: address.host, port: address.port)
            pools.append(PoolSpecification(name: name, targets: [target]))
        }
        return pools
    }

    /// Runs a cluster.
    ///
    /// - Parameters:
    ///   - configuration: How its hosts are called.
    ///   - checkpoint: What they hold.
    ///   - logger: Gets its messages.
    ///   - group: Where it runs.
    /// - Returns: The experts, once all are there.
    static func experts(
        _ configuration: ExpertClusterConfiguration,
        of checkpoint: Checkpoint,
        logger: Logger,
        in group: inout ThrowingTaskGroup<Void, any Error>
    ) async -> RemoteExperts {
        let cluster = ExpertCluster(
            configuration: configuration,
            model: checkpoint.configuration,
            fingerprint: checkpoint.fingerprint,
            placement: nil,
            logger: logger
        )
        group.addTask { try await cluster.run() }
        await cluster.waitUntilComplete()
        return RemoteExperts(cluster: cluster, fingerprint: checkpoint.fingerprint)
    }
}
