// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import CommandKit
import ExpertPooling
import Foundation
import GatewayServing
import Logging
import SwitchModel
import SwitchyardTypes
import TensorKernels

/// Expert hosts of one pool as processes, and a gateway's part of a cluster in this one.
struct AuditBench: Sendable {
    /// One host.
    struct Host: Sendable {
        let shard: String
        /// The kernels that it must use; nil for the best.
        var kernels: String?
    }

    let model: ModelConfiguration
    let cluster: ExpertCluster
    let experts: RemoteExperts
    /// The hosts' processes, in their order.
    let processes: [ChildProcess]

    /// Runs hosts and connects to them.
    ///
    /// - Parameters:
    ///   - hosts: The hosts.
    ///   - checkpoint: The model, whole: the gateway's own opinion comes from it.
    ///   - configure: Changes how calls are made.
    ///   - body: Gets the cluster once all hosts are ready.
    /// - Returns: What the body returns.
    /// - Throws: What the body throws; ``ChildProcessError`` if a host does not start.
    static func run<Result: Sendable>(
        _ hosts: [Host],
        checkpoint: Checkpoint,
        configure: (inout ExpertClusterConfiguration) -> Void,
        body: @escaping @Sendable (AuditBench) async throws -> Result
    ) async throws -> Result {
        let scratch = try ScratchFolder()
        defer { scratch.remove() }
        let program = try BenchPrograms.switchyard()
        let children = hosts.enumerated()
            .map { index, host in
                let address = "\(scratch.path)/\(index).address"
                let kernels = host.kernels.map { ["SWITCHYARD_KERNELS=\($0)"] } ?? []
                return ChildSpecification(
                    name: "host-\(index)",
                    arguments: kernels + [
                        program, "expert-host", "--shard", host.shard, "--listen", "127.0.0.1:0", "--address-file",
                        address,
                        "--exit-with-standard-input", "--admin-listen", "off", "--threads", "1",
                        // Compared before the first bit is flipped, or else the comparison after the start may find the flip.
                        "--prefault",
                    ],
                    addressFile: address
                )
            }
        var configuration = ExpertClusterConfiguration(pools: [])
        configure(&configuration)
        let made = configuration
        return try await ChildProcesses.run(
            children,
            executable: "/usr/bin/env",
            onExit: .fail,
            startTimeout: .seconds(120),
            events: { _ in },
            body: { children in
                let processes = children.running.sorted { $0.name < $1.name }
                return try await Self.connect(processes, checkpoint, made, body: body)
            }
        )
    }

    private static func connect<Result: Sendable>(
        _ processes: [ChildProcess],
        _ checkpoint: Checkpoint,
        _ configuration: ExpertClusterConfiguration,
        body: @escaping @Sendable (AuditBench) async throws -> Result
    ) async throws -> Result {
        var configuration = configuration
        let addresses = processes.map(\.address).joined(separator: ",")
        configuration.pools = [try PoolSpecification(parsing: "pool-0=\(addresses)")]
        let cluster = ExpertCluster(
            configuration: configuration,
            model: checkpoint.configuration,
            fingerprint: checkpoint.fingerprint,
            placement: nil,
            checkpoint: checkpoint,
            logger: Logger(label: "audit") { _ in SwiftLogNoOpLogHandler() }
        )
        let bench = AuditBench(
            model: checkpoint.configuration,
            cluster: cluster,
            experts: RemoteExperts(cluster: cluster, fingerprint: checkpoint.fingerprint),
            processes: processes
        )
        return try await withThrowingTaskGroup(of: Result?.self) { group in
            group.addTask {
                try await cluster.run()
                return nil
            }
            group.addTask {
                await cluster.waitUntilComplete()
                while !cluster.replicaReports.allSatisfy({ $0.state == .ready }) {
                    try await Task.sleep(for: .milliseconds(5))
                }
                return try await body(bench)
            }
            defer { group.cancelAll() }
            while let result = try await group.next() {
                if let result { return result }
            }
            throw BenchError("the connections to the hosts ended")
        }
    }

    /// A layer's work with random rows, which go to random experts, but the first one to a given expert.
    ///
    /// - Parameters:
    ///   - layer: The layer.
    ///   - expert: The first row's expert; nil for a random one.
    ///   - rows: How many rows.
    ///   - random: Where rows and choices come from.
    /// - Returns: The work.
    func request(
        _ layer: SparseLayer,
        expert: Int? = nil,
        rows: Int,
        _ random: inout some RandomNumberGenerator
    ) -> ExpertLayerRequest {
        let hidden = FloatMatrix(uninitializedRows: rows, columns: self.model.modelWidth)
        for index in 0..<rows * hidden.columns { hidden.pointer[index] = Float.random(in: -2...2, using: &random) }
        var choices = (0..<rows).map { _ in Int32.random(in: 0..<Int32(self.model.expertCount), using: &random) }
        if let expert { choices[0] = Int32(expert) }
        let sequences = [Int32](repeating: 0, count: rows)
        let plan = DispatchPlan(
            choices: choices,
            probabilities: [Float](repeating: 1, count: rows),
            sequences: sequences,
            expertCount: self.model.expertCount,
            policy: .unlimited,
            checkpointCapacity: rows
        )
        return ExpertLayerRequest(layer: layer, plan: plan, hidden: hidden, sequences: sequences)
    }
}

extension ExpertOutputs {
    /// The outputs' bits by row of the plan; rows that were dropped are missing.
    ///
    /// - Parameter columns: Width of a row.
    /// - Returns: The rows.
    func bits(columns: Int) -> [Int: [UInt32]] {
        var rows: [Int: [UInt32]] = [:]
        for chunk in self.chunks {
            chunk.storage.withUnsafeBytes { bytes in
                for (index, row) in chunk.rows.enumerated() {
                    rows[row] = (0..<columns)
                        .map { bytes.loadUnaligned(fromByteOffset: 4 * (index * columns + $0), as: UInt32.self) }
                }
            }
        }
        return rows
    }
}
