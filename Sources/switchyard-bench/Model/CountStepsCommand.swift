// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Checkpoints
import CommandKit
import ExpertPooling
import ExpertServing
import Foundation
import GatewayServing
import Logging
import NIOPosix
import RPCTransport
import SwitchModel
import SwitchyardTypes
import TensorKernels

/// `switchyard-bench count-steps`: decoder steps whose work is counted from outside, or by a preloaded library.
struct CountStepsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "count-steps",
        abstract: "Make decoder steps within this process, for tools that count instructions and allocations.",
        discussion: """
            With --hosts the experts are on hosts: threads of this process behind sockets, so that one count covers both ends of
            each call. Nothing is hedged or audited, and waiting threads sleep at once, so that the counts are the same each time. Two runs that differ in --steps
            alone differ by what the steps between them cost: run both under `valgrind --tool=callgrind`. With the library of
            Tests/Allocations/count_allocations.c preloaded, the allocations of a warm step are printed.

            EXAMPLE
              clang -O1 -shared -fPIC Tests/Allocations/count_allocations.c -o libcount.so
              LD_PRELOAD=./libcount.so switchyard-bench count-steps deploy/models/switch-mini --hosts 2
            """
    )

    @Argument(help: "A folder in Hugging Face layout, or a hub id in the local cache.")
    var model: String

    @Option(help: "Batch size; may be given several times. (default: 1, 8 and 32)")
    var batch: [Int] = []

    @Option(help: "Expert hosts, each with an equal part of the experts; none keeps the experts in the engine.")
    var hosts: Int = 0

    @Option(help: "Compute threads of the engine.")
    var threads: Int = 1

    @Option(help: "Tokens of each input.")
    var inputTokens: Int = 8

    @Option(help: "Steps that are not counted.")
    var warmUp: Int = 8

    @Option(help: "Steps that are counted.")
    var steps: Int = 48

    func validate() throws {
        for (option, value, limit) in [
            ("--hosts", self.hosts, 0...64), ("--threads", self.threads, 1...1024),
            ("--input-tokens", self.inputTokens, 1...65_536), ("--warm-up", self.warmUp, 1...65_536),
            ("--steps", self.steps, 1...65_536),
        ] + self.batch.map({ ("--batch", $0, 1...4096) }) where !limit.contains(value) {
            throw ValidationError("\(option) is \(value); set a value from \(limit.lowerBound) to \(limit.upperBound)")
        }
    }

    func run() async throws {
        let checkpoint = try Checkpoint.open(try ModelSettings.directory(self.model))
        let pool = WorkPool(threads: self.threads)
        guard self.hosts > 0 else {
            try self.count(checkpoint, pool, try LocalExperts(checkpoint: checkpoint, pool: pool))
            return
        }
        let options = self
        try await self.withExperts(on: self.hosts, of: checkpoint) { experts in
            try await BlockingWork.run { try options.count(checkpoint, pool, experts) }
        }
    }

    /// Counts at each batch size.
    private func count(_ checkpoint: Checkpoint, _ pool: WorkPool, _ experts: any ExpertExecutor) throws {
        let bench = ModelBench(
            transformer: try SwitchTransformer(checkpoint: checkpoint, pool: pool),
            experts: experts,
            weightBytes: (4, 4),
            inputTokens: self.inputTokens,
            newTokens: self.steps
        )
        for size in self.batch.isEmpty ? [1, 8, 32] : self.batch {
            let count = try bench.allocations(AllocationCounter(), batch: size, warmUp: self.warmUp, steps: self.steps)
            let steps = count.map { String(format: "%.1f allocations per decoder step", $0) } ?? "\(self.steps) steps"
            Terminal.print("batch \(size): \(steps)\(self.hosts > 0 ? ", engine and hosts together" : "")")
        }
    }

    /// Lends the experts of hosts in this process.
    private func withExperts(
        on hostCount: Int,
        of checkpoint: Checkpoint,
        _ body: (RemoteExperts) async throws -> Void
    ) async throws {
        let folder = try BenchFolder()
        defer { folder.remove() }
        let shards = "\(folder.path)/shards"
        let placement = try CheckpointSharder.shard(model: checkpoint.directory, output: shards, pools: hostCount)
        let logger = Logger(label: "bench") { _ in SwiftLogNoOpLogHandler() }
        let hosts = try placement.pools.map { part in
            var configuration = ExpertHostConfiguration(shardDirectories: ["\(shards)/\(part.directory)"])
            configuration.port = 0
            configuration.threads = 1
            configuration.drainTimeout = .seconds(1)
            return (name: part.name, host: try ExpertHost(configuration: configuration, logger: logger))
        }
        try await withThrowingTaskGroup(of: Void.self) { group in
            defer { group.cancelAll() }
            let pools = try await BenchHosts(hosts: hosts).run(in: &group)
            var configuration = ExpertClusterConfiguration(pools: pools)
            // A thread that looks for answers before it sleeps does so for as long as the machine's other work lets it.
            configuration.spin = .zero
            configuration.choice.hedgeFraction = 0
            configuration.choice.auditFraction = 0
            configuration.channel.eventLoopGroup = MultiThreadedEventLoopGroup(numberOfThreads: 1)
            try await body(await BenchHosts.experts(configuration, of: checkpoint, logger: logger, in: &group))
        }
    }
}
