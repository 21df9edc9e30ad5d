// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Checkpoints
import CommandKit
import ExpertPooling
import Foundation
import GatewayServing
import SwitchModel
import SwitchyardTypes
import TensorKernels

/// What became of one flipped bit after another in a host's memory.
struct DamageResult: Sendable {
    /// Bits that were flipped.
    var draws = 0
    /// Those that changed no output of any call.
    var silent = 0
    /// Those whose host was caught.
    var caught = 0
    /// Those that were caught in the first call in which both answers were compared and differed.
    var caughtAtOnce = 0
    /// Wrong rows that were used of calls whose answers were compared.
    var wrongAuditedRows = 0
    /// Wrong rows that were used, in all.
    var wrongRows = 0
    /// Rows that were computed in all.
    var rows = 0
    /// Wrong rows that were used, by draw.
    var wrongByDraw: [Int] = []
    /// The longest time from the end of the first audited call with a wrong answer to the quarantine.
    var longestDelay = Duration.zero
    /// The longest time from the repair to the first call that the host serves again.
    var longestReturn = Duration.zero
}

/// Flips bits in the memory of one of two hosts, and looks what is used of its answers.
struct AuditDamage {
    let checkpoint: Checkpoint
    let shards: String
    let rows: Int
    let callLimit: Int

    private struct Oracle {
        let right: LocalExperts
        /// The same shard as the damaged host's, damaged alike.
        let wrong: LocalExperts
        let wrongFile: String

        func flip(_ bit: WeightBit) throws {
            guard let handle = FileHandle(forUpdatingAtPath: self.wrongFile) else {
                throw BenchError("\(self.wrongFile) cannot be written")
            }
            defer { try? handle.close() }
            try handle.seek(toOffset: UInt64(bit.offset))
            guard let byte = try handle.read(upToCount: 1)?.first else { return }
            try handle.seek(toOffset: UInt64(bit.offset))
            try handle.write(contentsOf: Data([byte ^ bit.mask]))
        }
    }

    /// Runs the draws with one fraction of audited calls.
    ///
    /// - Parameters:
    ///   - draws: Bits to flip.
    ///   - fraction: The fraction of calls that are audited.
    ///   - seed: Seed of all choices.
    ///   - progress: Told after each draw.
    /// - Returns: What became of them.
    /// - Throws: Errors of processes and files.
    func run(
        draws: Int,
        fraction: Double,
        seed: UInt64,
        progress: @escaping @Sendable (DamageResult) -> Void
    ) async throws -> DamageResult {
        let scratch = try ScratchFolder()
        defer { scratch.remove() }
        let copy = "\(scratch.path)/wrong"
        try FileManager.default.copyItem(atPath: self.shards, toPath: copy)
        let oracle = try Self.oracle(self.shards, wrong: copy)
        let weights = try ShardWeights("\(self.shards)/model.safetensors")
        return try await AuditBench.run(
            [AuditBench.Host(shard: self.shards), AuditBench.Host(shard: self.shards)],
            checkpoint: self.checkpoint,
            configure: { configuration in
                configuration.choice.auditFraction = fraction
                // One call a layer: of two, one could be compared while wrong rows come from the other.
                configuration.choice.replicaChoice = .twoChoices
                configuration.choice.encoder.deadline = .seconds(30)
                configuration.choice.decoder.deadline = .seconds(30)
                // Nothing but bits may take the damaged host out of service here.
                configuration.choice.slownessToEject = 0
                configuration.choice.hedgeFraction = 0
                configuration.choice.firstEjection = .milliseconds(5)
                configuration.choice.longestEjection = .milliseconds(20)
            },
            body: { bench in
                let memory = try DamagedMemory(
                    bench.processes[1].processIdentifier,
                    file: "\(self.shards)/model.safetensors"
                )
                var random = PoolRandom(seed: seed)
                var result = DamageResult()
                for _ in 0..<draws {
                    try await self.draw(
                        bench,
                        oracle,
                        weights.draw(&random),
                        memory,
                        &random,
                        isAudited: fraction > 0,
                        &result
                    )
                    progress(result)
                }
                return result
            }
        )
    }

    private static func oracle(_ right: String, wrong: String) throws -> Oracle {
        let pool = WorkPool(threads: 1)
        return Oracle(
            right: try LocalExperts(checkpoints: [try Checkpoint.open(right)], pool: pool),
            wrong: try LocalExperts(checkpoints: [try Checkpoint.open(wrong)], pool: pool),
            wrongFile: "\(wrong)/model.safetensors"
        )
    }

    /// How long a host may take to return.
    private static let returnPatience = Duration.seconds(120)

    private func draw(
        _ bench: AuditBench,
        _ oracle: Oracle,
        _ bit: WeightBit,
        _ memory: DamagedMemory,
        _ random: inout PoolRandom,
        isAudited: Bool,
        _ result: inout DamageResult
    ) async throws {
        let host = bench.processes[1].address
        func report() -> ReplicaReport? { bench.cluster.replicaReports.first { $0.id.address == host } }
        try memory.flip(bit)
        try oracle.flip(bit)
        result.draws += 1
        var wrongRows = 0
        var (isSilent, comparedBefore) = (true, false)
        let columns = bench.model.modelWidth
        for _ in 0..<self.callLimit {
            let request = bench.request(bit.layer, expert: bit.expert, rows: self.rows, &random)
            let right = try oracle.right.execute(request).bits(columns: columns)
            let changes = try oracle.wrong.execute(request).bits(columns: columns) != right
            let auditsBefore = bench.cluster.auditCounts["pool-0"]
            let used = try await onComputeThread { try bench.experts.execute(request) }.bits(columns: columns)
            let end = ContinuousClock.now
            result.rows += self.rows
            let wrongNow = used.count { right[$0.key] != $0.value }
            wrongRows += wrongNow
            if changes { isSilent = false }
            let audits = bench.cluster.auditCounts["pool-0"]
            let wasCompared = audits?[.agreed] != auditsBefore?[.agreed] || audits?[.caught] != auditsBefore?[.caught]
            if wasCompared { result.wrongAuditedRows += wrongNow }
            if report()?.state == .quarantined {
                result.caught += 1
                if !comparedBefore { result.caughtAtOnce += 1 }
                result.longestDelay = max(result.longestDelay, end.duration(to: .now))
                break
            }
            if changes, wasCompared { comparedBefore = true }
        }
        if isSilent { result.silent += 1 }
        result.wrongRows += wrongRows
        result.wrongByDraw.append(wrongRows)
        try memory.flip(bit)
        try oracle.flip(bit)
        guard isAudited else { return }
        let repair = ContinuousClock.now
        while report()?.state != .ready {
            guard repair.duration(to: .now) < Self.returnPatience else {
                throw ValidationError(
                    "\(host) is \(report().map { "\($0.state)" } ?? "gone") \(Self.returnPatience) after its memory was right"
                        + " again; its own output says why"
                )
            }
            let layer = bench.model.sparseLayers.randomElement(using: &random) ?? bit.layer
            let request = bench.request(layer, rows: self.rows, &random)
            _ = try await onComputeThread { try bench.experts.execute(request) }
        }
        result.longestReturn = max(result.longestReturn, repair.duration(to: .now))
    }
}

/// Runs blocking work off the cooperative threads.
func onComputeThread<Result: Sendable>(_ body: @escaping @Sendable () throws -> Result) async throws -> Result {
    try await withCheckedThrowingContinuation { continuation in
        DispatchQueue.global().async { continuation.resume(with: Swift.Result { try body() }) }
    }
}
