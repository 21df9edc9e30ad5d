// SPDX-License-Identifier: Apache-2.0

internal import ExpertPooling
internal import Logging
internal import NIOCore
internal import ServiceKit
internal import Synchronization

/// Keeps a pool's replicas in step with the addresses of a name.
///
/// A lookup that fails or finds nothing changes nothing: hosts that answer are worth more than a name server that does
/// not.
struct NameWatch: Sendable {
    let pool: String
    let host: String
    let port: Int
    let cluster: ExpertCluster

    /// Looks the name up again and again, until the task is cancelled.
    func run() async throws {
        var known: Set<ReplicaID> = []
        while !Task.isCancelled {
            let addresses = try await self.lookUp()
            let found = Set(addresses.map { ReplicaID(pool: self.pool, host: $0, port: self.port) })
            if found.isEmpty {
                self.cluster.logger.warning(
                    "a pool's name has no addresses; its last ones stay",
                    metadata: ["pool": "\(self.pool)", "name": "\(self.host)"]
                )
            } else {
                for id in found.subtracting(known) {
                    self.cluster.found(id)
                }
                for id in known.subtracting(found) {
                    self.cluster.lost(id)
                }
                known = found
            }
            try? await Task.sleep(for: self.cluster.configuration.lookupInterval)
        }
    }

    private func lookUp() async throws -> [String] {
        let result = Mutex<[String]>([])
        // The system's resolver blocks, for seconds where a name server is away.
        try await ComputeThread.run(name: "lookup") { [host, port] in
            result.withLock { $0 = NameLookup.addresses(of: host, port: port) }
        }
        return result.withLock { $0 }
    }
}
