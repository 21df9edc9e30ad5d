// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import CommandKit
import ExpertPooling
import Foundation
import GatewayServing
import SwitchModel
import SwitchyardTypes
import TensorKernels

/// Counts audits that find something where nothing is wrong: hosts with different kernels, types of weights and of rows.
struct AuditAlarms {
    /// The outcome for one type of weights and of rows.
    struct Result: Sendable {
        let weights: WeightStorage
        let rows: DType
        var audited: UInt64 = 0
        var alarms: UInt64 = 0
        var disputes: UInt64 = 0
    }

    let checkpoint: Checkpoint
    let shards: String
    /// Names of `SWITCHYARD_KERNELS`, one for each host.
    let kernels: [String]

    /// Audits every call until as many rows have been compared as asked for.
    ///
    /// - Parameters:
    ///   - weights: How the shard keeps weights.
    ///   - wire: The type of rows on the wire.
    ///   - target: Rows to compare.
    ///   - progress: Told now and then.
    /// - Returns: What was found.
    /// - Throws: Errors of processes and files.
    func run(
        weights: WeightStorage,
        wire: DType,
        rows target: UInt64,
        progress: @escaping @Sendable (Result) -> Void
    ) async throws -> Result {
        try await AuditBench.run(
            self.kernels.map { AuditBench.Host(shard: self.shards, kernels: $0) },
            checkpoint: self.checkpoint,
            configure: { configuration in
                configuration.choice.auditFraction = 1
                configuration.choice.encoder.deadline = .seconds(60)
                configuration.choice.decoder.deadline = .seconds(60)
                configuration.choice.slownessToEject = 0
                configuration.choice.hedgeFraction = 0
                // A slow kernel is waited for.
                configuration.choice.unknownHedgeDelay = .seconds(10)
                configuration.choice.shortestHedgeDelay = .seconds(10)
                configuration.wireType = wire
            },
            body: { bench in
                var random = PoolRandom(seed: 1)
                var result = Result(weights: weights, rows: wire)
                var calls = 0
                while result.audited < target {
                    guard let layer = bench.model.sparseLayers.randomElement(using: &random) else { break }
                    let rows = [1, 3, 8, 32, 200, 1000].randomElement(using: &random) ?? 8
                    let request = bench.request(layer, rows: rows, &random)
                    _ = try await onComputeThread { try bench.experts.execute(request) }
                    calls += 1
                    guard calls % 50 == 0 else { continue }
                    let counts = bench.cluster.auditCounts["pool-0"] ?? AuditCounts()
                    result.audited = counts.rows
                    result.alarms = counts[.caught]
                    result.disputes = counts[.disputed]
                    progress(result)
                }
                return result
            }
        )
    }
}
