// SPDX-License-Identifier: Apache-2.0

internal import ExpertPooling
internal import Foundation
internal import Logging
internal import NIOCore
internal import RPCTransport
internal import ServiceKit
internal import SwitchyardTypes
internal import Synchronization

/// Something that finds a pool's current replicas.
protocol TargetFinder: Sendable {
    /// The finder as it was configured.
    var description: String { get }

    /// Time from one lookup to the next.
    func interval(_ configuration: ExpertClusterConfiguration) -> Duration

    /// Looks up the addresses.
    ///
    /// - Returns: The addresses.
    /// - Throws: Why the lookup failed; the last known addresses stay.
    func find() async throws -> [(host: String, port: Int)]
}

/// Why a finder could not find a pool's replicas.
struct TargetsUnknown: Error, CustomStringConvertible {
    let description: String
}

/// Keeps a pool's replicas in step with a finder.
///
/// A lookup that fails or finds nothing changes nothing: hosts that answer matter more than a name server that does
/// not. An empty file, however, means that the pool has no replicas.
struct TargetWatch: Sendable {
    /// The shortest time from one lookup to the next, however many connections are lost.
    static let shortestInterval = Duration.milliseconds(500)

    let pool: String
    let finder: any TargetFinder
    let cluster: ExpertCluster

    /// Keeps looking until the task is cancelled: on a timer, and when a connection of the pool is lost.
    ///
    /// - Throws: `ComputeThread.StartError` if there is no thread to look up names on.
    func run() async throws {
        let (wakes, source) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
        self.cluster.state.withLock { $0.finders[self.pool, default: []].append(source) }
        try await withThrowingDiscardingTaskGroup { group in
            group.addTask {
                while !Task.isCancelled {
                    try? await Task.sleep(for: self.finder.interval(self.cluster.configuration))
                    source.yield()
                }
            }
            var known: Set<ReplicaID> = []
            var lastFailure: String?
            try await self.look(&known, &lastFailure)
            for await _ in wakes {
                try await self.look(&known, &lastFailure)
                try? await Task.sleep(for: min(Self.shortestInterval, self.finder.interval(self.cluster.configuration)))
            }
            group.cancelAll()
        }
    }

    private func look(_ known: inout Set<ReplicaID>, _ lastFailure: inout String?) async throws {
        let addresses: [(host: String, port: Int)]
        do {
            addresses = try await self.finder.find()
            lastFailure = nil
        } catch let error as TargetsUnknown {
            if lastFailure != error.description {
                self.cluster.logger.warning(
                    "cannot look up a pool's replicas; keeping the last known ones",
                    metadata: ["pool": "\(self.pool)", "target": "\(self.finder.description)", "reason": "\(error)"]
                )
            }
            lastFailure = error.description
            return
        }
        let found = Set(addresses.map { ReplicaID(pool: self.pool, host: $0.host, port: $0.port) })
        for id in found.subtracting(known) {
            self.cluster.found(id)
        }
        for id in known.subtracting(found) {
            self.cluster.lost(id)
        }
        known = found
    }
}

/// A name whose every address is a replica.
struct NameFinder: TargetFinder {
    let host: String
    let port: Int

    var description: String { "dns:///\(self.host):\(self.port)" }

    func interval(_ configuration: ExpertClusterConfiguration) -> Duration { configuration.lookupInterval }

    func find() async throws -> [(host: String, port: Int)] {
        let result = Mutex<[String]>([])
        // The system's resolver blocks, for seconds if a name server does not answer.
        try await ComputeThread.run(name: "lookup") { [host, port] in
            result.withLock { $0 = NameLookup.addresses(of: host, port: port) }
        }
        let addresses = result.withLock { $0 }
        guard !addresses.isEmpty else {
            throw TargetsUnknown(description: "the name has no addresses")
        }
        return addresses.map { ($0, self.port) }
    }
}

/// A file with one replica per line.
struct FileFinder: TargetFinder {
    /// The most bytes that a file may have.
    static let sizeLimit = 1 << 20

    let path: String
    /// Whether hosts off this machine may be listed.
    let mayLeaveThisMachine: Bool

    var description: String { "file://\(self.path)" }

    func interval(_ configuration: ExpertClusterConfiguration) -> Duration { configuration.fileInterval }

    func find() async throws -> [(host: String, port: Int)] {
        let text: String
        do {
            let size = try FileManager.default.attributesOfItem(atPath: self.path)[.size] as? Int ?? 0
            guard size <= Self.sizeLimit else {
                throw TargetsUnknown(description: "the file has \(size) bytes, over the limit of \(Self.sizeLimit)")
            }
            text = try String(contentsOfFile: self.path, encoding: .utf8)
        } catch let error as TargetsUnknown {
            throw error
        } catch {
            throw TargetsUnknown(description: "the file cannot be read: \(error.localizedDescription)")
        }
        let addresses: [(host: String, port: Int)]
        do {
            addresses = try TargetList.parse(text)
        } catch {
            throw TargetsUnknown(description: error.description)
        }
        if !self.mayLeaveThisMachine, let far = addresses.first(where: { !LoopbackHost.contains($0.host) }) {
            throw TargetsUnknown(
                description:
                    "\(far.host):\(far.port) would be reached in plaintext over a network: set --experts-tls-ca, or "
                    + "allow it with --plaintext"
            )
        }
        return addresses
    }
}
