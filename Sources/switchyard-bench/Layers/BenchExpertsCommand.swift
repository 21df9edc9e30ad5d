// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Checkpoints
import CommandKit
import ExpertPooling
import Foundation
import GatewayServing
import Logging
import ServiceKit
import SwitchModel
import SwitchyardTypes
import Synchronization
import TensorKernels

/// `switchyard-bench experts`: one sparse layer whose experts are in other processes.
struct BenchExpertsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "experts",
        abstract: "One remote sparse layer on expert hosts of this machine, against the same layer in this process.",
        discussion: """
            Router, dispatch, one call to each host, combine, as the gateway does for a layer; the tokens are new at each
            call. Without --model the experts are random and of switch-base-8's size. Both places give the same bits, which
            is checked. Remote and local runs take turns; medians over the runs of each run's p50 and p99.

            EXAMPLES
              switchyard-bench experts --markdown
              switchyard-bench experts --model deploy/models/switch-mini --hosts 4 --tokens 8
            """
    )

    @Option(help: "A folder in Hugging Face layout, or a hub id in the local cache; random experts without it.")
    var model: String?

    @Option(help: "Random experts: their number.")
    var experts: Int = 8

    @Option(help: "Random experts: elements of a token.")
    var width: Int = 768

    @Option(help: "Random experts: elements between the two matrices.")
    var inner: Int = 3072

    @Option(help: "Expert hosts, each with an equal part of the experts.")
    var hosts: Int = 2

    @Option(help: "Compute threads of each expert host.")
    var hostThreads: Int = 1

    @Option(help: "Compute threads of this process; as many as all hosts together when not given.")
    var threads: Int?

    @Option(help: "Tokens of a call; may be given several times. (default: 1, 8 and 64)")
    var tokens: [Int] = []

    @Option(help: "Calls of each run.")
    var calls: Int = 100

    @Option(help: "Runs of each row, taking turns with the others.")
    var runs: Int = 5

    @Flag(
        help: ArgumentHelp(
            "Measure on request from standard input, for `switchyard-bench compare`.",
            visibility: .hidden
        )
    )
    var turns = false

    @OptionGroup(title: "Output") var output: BenchOutputOptions

    func validate() throws {
        let checks: [(String, Int, ClosedRange<Int>)] =
            [
                ("--experts", self.experts, 1...65_536), ("--width", self.width, 1...65_536),
                ("--inner", self.inner, 1...65_536), ("--hosts", self.hosts, 1...64),
                ("--host-threads", self.hostThreads, 1...1024), ("--threads", self.threads ?? 1, 1...1024),
                ("--calls", self.calls, 1...1_000_000), ("--runs", self.runs, 1...10_000),
            ] + self.tokens.map { ("--tokens", $0, 1...ExpertLayerBench.tokenLimit) }
        for (option, value, limit) in checks where !limit.contains(value) {
            throw ValidationError("\(option) is \(value); set a value from \(limit.lowerBound) to \(limit.upperBound)")
        }
    }

    /// The sizes of calls to measure.
    private var sizes: [Int] { self.tokens.isEmpty ? [1, 8, 64] : self.tokens }

    func run() async throws {
        let folder = try BenchFolder()
        defer { folder.remove() }
        let model: String
        if let given = self.model {
            model = try ModelSettings.directory(given)
        } else {
            model = "\(folder.path)/model"
            try SyntheticCheckpoint.oneSparseLayer(experts: self.experts, width: self.width, inner: self.inner)
                .write(to: model)
        }
        let shards = "\(folder.path)/shards"
        let placement = try CheckpointSharder.shard(model: model, output: shards, pools: self.hosts)
        let checkpoint = try Checkpoint.open(model)
        let pool = WorkPool(threads: self.threads ?? self.hosts * self.hostThreads)
        let local = try LocalExperts(checkpoint: checkpoint, pool: pool)
        let bench = try ExpertLayerBench(checkpoint: checkpoint, pool: pool, tokens: self.sizes.max() ?? 1)
        let specifications = placement.pools.map { part in
            ChildSpecification(
                name: part.name,
                arguments: [
                    "expert-host", "--shard", "\(shards)/\(part.directory)", "--listen", "127.0.0.1:0",
                    "--admin-listen", "off",
                    "--threads", "\(self.hostThreads)", "--address-file", "\(folder.path)/\(part.name).address",
                    "--exit-with-standard-input",
                ],
                addressFile: "\(folder.path)/\(part.name).address"
            )
        }
        let events: @Sendable (ChildEvent) -> Void = { event in
            if case .line(let name, let text) = event, text.contains("error") {
                Terminal.printError("[\(name)] \(text)")
            }
        }
        let options = self
        try await ChildProcesses.run(
            specifications,
            executable: try BenchPrograms.switchyard(),
            onExit: .fail,
            startTimeout: .seconds(120),
            events: events
        ) { children in
            let cluster = try options.cluster(children.running, checkpoint: checkpoint)
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask { try await cluster.run() }
                defer { group.cancelAll() }
                await cluster.waitUntilComplete()
                let remote = RemoteExperts(cluster: cluster, fingerprint: checkpoint.fingerprint)
                try await options.measure(bench, remote: remote, local: local, model: checkpoint.configuration)
            }
        }
    }

    private func cluster(_ hosts: [ChildProcess], checkpoint: Checkpoint) throws -> ExpertCluster {
        let pools = try hosts.map { PoolSpecification(name: $0.name, targets: [try PoolTarget(parsing: $0.address)]) }
        return ExpertCluster(
            configuration: ExpertClusterConfiguration(pools: pools),
            model: checkpoint.configuration,
            fingerprint: checkpoint.fingerprint,
            placement: nil,
            logger: Logger(label: "bench") { _ in SwiftLogNoOpLogHandler() }
        )
    }

    private func measure(
        _ bench: ExpertLayerBench,
        remote: RemoteExperts,
        local: LocalExperts,
        model: ModelConfiguration
    ) async throws {
        try await self.checkEquality(bench, remote: remote, local: local)
        if self.turns {
            try await TurnServer(cases: self.sizes.map { TurnCase(work: "remote layer", size: $0) })
                .serve { one in
                    let times = try await self.times(bench, tokens: one.size, experts: remote)
                    return TurnResult(
                        value: times.at(0.5).inSeconds * 1000,
                        unit: "ms",
                        details: ["p99_ms": times.at(0.99).inSeconds * 1000]
                    )
                }
            return
        }
        var report = BenchReport(
            title: "One sparse layer",
            sizeName: "tokens",
            conditions:
                "\(model.expertCount) experts of \(model.modelWidth)-\(model.feedForwardWidth)-\(model.modelWidth), "
                + "\(self.hosts) hosts of \(self.hostThreads) threads, medians of \(self.runs) runs of \(self.calls) calls"
        )
        let places: [(String, any ExpertExecutor)] = [
            ("\(self.hosts) hosts", remote), ("in this process", local),
        ]
        for run in 0...self.runs {
            for size in self.sizes {
                for (name, experts) in places {
                    let times = try await self.times(bench, tokens: size, experts: experts)
                    // The first round is discarded: it touches memory and wakes processors.
                    guard run > 0 else { continue }
                    for (work, fraction) in [("p50", 0.5), ("p99", 0.99)] {
                        report.add(
                            times.at(fraction).inSeconds * 1000,
                            to: BenchFigure(work: work, size: size, system: name, unit: "ms", values: [])
                        )
                    }
                }
            }
        }
        Terminal.print(report.conditions)
        Terminal.print(report.machine)
        self.output.print(report.table(baseline: places[1].0))
        try report.write(to: self.output.json)
    }

    /// One run: all its calls, one after another, on a thread that may block.
    private func times(_ bench: ExpertLayerBench, tokens: Int, experts: any ExpertExecutor) async throws -> Percentiles
    {
        let calls = self.calls
        return try await BlockingWork.run {
            Percentiles(try (0..<calls).map { try bench.run(tokens: tokens, call: $0, experts: experts).time })
        }
    }

    /// Remote experts must give the bits of local ones, or the figures would be of something else.
    private func checkEquality(_ bench: ExpertLayerBench, remote: RemoteExperts, local: LocalExperts) async throws {
        let tokens = self.sizes.max() ?? 1
        let isEqual = try await BlockingWork.run {
            let there = try bench.run(tokens: tokens, call: 0, experts: remote).output
            let here = try bench.run(tokens: tokens, call: 0, experts: local).output
            return (0..<(here.rows * here.columns)).allSatisfy { there.pointer[$0] == here.pointer[$0] }
        }
        guard isEqual else {
            throw BenchError("the hosts' outputs differ from those of this process; run the tests before measuring")
        }
    }
}

/// Work that blocks its thread, on its own thread like the gateway's engine.
enum BlockingWork {
    /// Runs work and suspends until it is done.
    ///
    /// - Parameter body: The work.
    /// - Returns: What the work returned.
    /// - Throws: What the work threw, and `ComputeThread.StartError`.
    static func run<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
        let result = Mutex<Result<Value, any Error>?>(nil)
        try await ComputeThread.run(name: "bench") {
            let value = Result { try body() }
            result.withLock { $0 = value }
        }
        guard let value = result.withLock({ $0 }) else { throw BenchError("a thread ended without a result") }
        return try value.get()
    }
}
