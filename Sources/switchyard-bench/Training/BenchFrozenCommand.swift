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
import SwitchTraining
import SwitchyardClient
import SwitchyardTypes
import Synchronization
import TrainingData
import TrainingRuns

/// `switchyard-bench frozen`: training around frozen experts and serving, alone and both at once, through the same hosts.
struct BenchFrozenCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "frozen",
        abstract: "Training with frozen experts beside serving, through the same expert hosts.",
        discussion: """
            A gateway and expert hosts run as processes, and a trainer in this one uses the same hosts. Each round has three parts, in an
            order that turns from round to round: steps of training alone, answers served alone, and both at once. A step of serving is
            the time from a token of an answer to the next one. The first round is discarded. Every answer is compared with the first
            one to the same input: its tokens and the bits of its score.

            EXAMPLES
              switchyard-bench frozen
              switchyard-bench frozen switch-base-8 --seconds 60 --rounds 3 --packed
            """
    )

    @Argument(help: "A folder in Hugging Face layout, or a hub id in the local cache.")
    var model: String = "deploy/models/switch-mini"

    @Option(help: "Number of pools, of one expert host each.")
    var pools: Int = 2

    @Option(help: "Compute threads of the trainer.")
    var threads: Int = 1

    @Option(help: "How far the trainer gives way to others on the same processors, as with `nice`.")
    var trainerNice: Int = 10

    @Option(help: "Compute threads of the gateway.")
    var gatewayThreads: Int = 1

    @Option(help: "Compute threads of each expert host.")
    var hostThreads: Int = 1

    @Option(help: "Examples of a step of training.")
    var batchExamples: Int = 48

    @Option(help: "Words of each example's input, and of its target.")
    var words: Int = 16

    @Option(help: "Requests served at once.")
    var streams: Int = 1

    @Option(help: "Tokens of each served input.")
    var inputTokens: Int = 32

    @Option(help: "Tokens of each served answer.")
    var newTokens: Int = 32

    @Option(help: "Milliseconds from an answer to the next request of its stream.")
    var pauseMilliseconds: Int = 0

    @Option(help: "Seconds of each part of a round, at least; training ends with a whole step.")
    var seconds: Double = 5

    @Option(help: "Rounds, after one that is discarded.")
    var rounds: Int = 5

    @OptionGroup(title: "Precision") var precision: ClusterPrecisionOptions

    @OptionGroup(title: "Output") var output: BenchOutputOptions

    func validate() throws {
        for (option, value, limit) in [
            ("--pools", self.pools, 64), ("--threads", self.threads, 1024),
            ("--gateway-threads", self.gatewayThreads, 1024), ("--host-threads", self.hostThreads, 1024),
            ("--batch-examples", self.batchExamples, 65_536), ("--words", self.words, 400),
            ("--streams", self.streams, 1024), ("--input-tokens", self.inputTokens, 65_536),
            ("--new-tokens", self.newTokens, 65_536), ("--rounds", self.rounds, 10_000),
        ] where !(1...limit).contains(value) {
            throw ValidationError("\(option) is \(value); set a value from 1 to \(limit)")
        }
        guard (0...19).contains(self.trainerNice) else {
            throw ValidationError("--trainer-nice is \(self.trainerNice); set a value from 0 to 19")
        }
        guard (0...60_000).contains(self.pauseMilliseconds), (0.05...86_400).contains(self.seconds) else {
            throw ValidationError("--pause-milliseconds must be from 0 to 60000, and --seconds from 0.05 to 86400")
        }
    }

    func run() async throws {
        let directory = try ModelSettings.directory(self.model)
        let checkpoint = try Checkpoint.open(directory)
        let workspace = try ShardWorkspace.prepare(
            model: self.model,
            pools: self.pools,
            folder: nil,
            packing: self.precision.packing
        )
        defer { workspace.discard() }
        var layout = LocalCluster.Layout(shards: workspace.folder, pools: workspace.pools)
        layout.gatewayThreads = self.gatewayThreads
        layout.hostThreads = self.hostThreads
        self.precision.apply(to: &layout)
        let options = self
        let names = workspace.pools
        let events: @Sendable (ChildEvent) -> Void = { event in
            if case .line(let name, let text) = event, text.contains("error") {
                Terminal.printError("[\(name)] \(text)")
            }
        }
        let report = try await LocalCluster.run(
            layout,
            executable: BenchPrograms.switchyard(),
            events: events
        ) { cluster in
            let hosts = cluster.hosts.running
            let pools = try names.map { pool in
                let addresses = hosts.filter { $0.name.hasPrefix("\(pool)/") }.map(\.address)
                return try PoolSpecification(parsing: "\(pool)=\(addresses.joined(separator: ","))")
            }
            return try await options.measure(checkpoint, directory, cluster.gatewayAddress, pools)
        }
        self.show(report)
        try report.write(to: self.output.json)
    }

    /// The run that is measured; nothing of it is kept.
    private func plan(_ directory: String, in folder: String) throws -> RunPlan {
        var plan = RunPlan(
            model: .checkpoint(directory),
            data: [try FrozenTrainer.data(in: folder, words: self.words)],
            output: "\(folder)/run",
            format: .tabSeparated(input: 1, target: 2)
        )
        plan.freezesExperts = true
        plan.training.expertDropout = 0
        plan.batch = BatchLimits(examples: self.batchExamples)
        plan.learningRate = 1e-6
        plan.steps = 1 << 30
        plan.stepsPerReport = 1 << 30
        plan.stepsPerSave = nil
        return plan
    }

    private func measure(
        _ checkpoint: Checkpoint,
        _ directory: String,
        _ gateway: String,
        _ pools: [PoolSpecification]
    ) async throws -> BenchReport {
        let scratch = try ScratchFolder()
        defer { scratch.remove() }
        let plan = try self.plan(directory, in: scratch.path)
        let logger = Logger(label: "experts") { _ in SwiftLogNoOpLogHandler() }
        let trainer = FrozenTrainer()
        return try await TrainingCluster.with(
            ExpertClusterConfiguration(pools: pools),
            of: checkpoint,
            patience: .init(),
            isStopping: { false },
            logger: logger,
            body: { experts in
                try await withThrowingTaskGroup(of: BenchReport?.self) { group in
                    group.addTask {
                        let failure = try await self.train(trainer, plan, experts)
                        if let failure { throw failure }
                        return nil
                    }
                    group.addTask {
                        defer { trainer.end() }
                        return try await GatewayClient.with(endpoint: Endpoint(parsing: gateway)) {
                            try await self.takeRounds(trainer, $0)
                        }
                    }
                    var report: BenchReport?
                    while let next = try await group.next() { report = next ?? report }
                    guard let report else { throw BenchError("the training run ended before the first round") }
                    return report
                }
            }
        )
    }

    /// Runs the trainer on a thread of its own.
    ///
    /// - Returns: What the run ended with of itself.
    private func train(
        _ trainer: FrozenTrainer,
        _ plan: RunPlan,
        _ experts: any TrainingExperts
    ) async throws -> (any Error)? {
        let failure = Failure()
        try await ComputeThread.run(name: "trainer") {
            Processors.beNice(self.trainerNice)
            do {
                try trainer.run(plan, threads: self.threads, experts: experts)
            } catch {
                failure.error.withLock { $0 = error }
            }
        }
        return failure.error.withLock { $0 }
    }

    /// What went wrong on another thread.
    private final class Failure: Sendable {
        let error = Mutex<(any Error)?>(nil)
    }

    private func takeRounds(_ trainer: FrozenTrainer, _ client: GatewayClient) async throws -> BenchReport {
        let load = ServedLoad(
            vocabulary: Int(try await client.describeModel().vocabularySize),
            inputTokens: self.inputTokens,
            newTokens: self.newTokens,
            streams: self.streams,
            pause: .milliseconds(self.pauseMilliseconds)
        )
        var report = BenchReport(
            title: "Training with frozen experts beside serving",
            sizeName: "streams",
            conditions:
                "\(self.pools) expert hosts of \(self.hostThreads) threads, a gateway of \(self.gatewayThreads), a trainer of "
                + "\(self.threads) with nice \(self.trainerNice); \(self.batchExamples) examples of \(self.words) words a step; \(self.streams) streams, "
                + "\(self.inputTokens) input tokens, \(self.newTokens) new tokens, pauses of \(self.pauseMilliseconds) ms; "
                + "\(self.precision.words); \(self.rounds) rounds of \(self.seconds) s a part"
        )
        try await onComputeThread { trainer.ready() }
        for round in 0...self.rounds {
            var found = Round()
            for part in 0..<3 {
                switch (part + round) % 3 {
                case 0: found.trained = try await self.train(trainer)
                case 1: found.served = try await self.serve(load, client)
                default: (found.trainedBeside, found.servedBeside) = try await self.both(trainer, load, client)
                }
            }
            guard load.differing == 0 else {
                throw BenchError(
                    "\(load.differing) answers differ from the first ones to the same inputs, of which "
                        + "\(found.servedBeside.dropped + found.served.dropped) rows were dropped in this round"
                )
            }
            // The first round touches everything once and is discarded.
            if round > 0 { found.add(to: &report, size: self.streams) }
        }
        return report
    }

    private func train(_ trainer: FrozenTrainer) async throws -> FrozenTrainer.Times {
        trainer.go()
        try await Task.sleep(for: .seconds(self.seconds))
        return try await onComputeThread { try trainer.hold() }
    }

    private func serve(_ load: ServedLoad, _ client: GatewayClient) async throws -> ServedLoad.Served {
        let end = ContinuousClock.now.advanced(by: .seconds(self.seconds))
        return try await load.run(client) { ContinuousClock.now >= end }
    }

    private func both(
        _ trainer: FrozenTrainer,
        _ load: ServedLoad,
        _ client: GatewayClient
    ) async throws -> (FrozenTrainer.Times, ServedLoad.Served) {
        let isOver = Flag()
        async let served = load.run(client) { isOver.value.load(ordering: .relaxed) }
        defer { isOver.value.store(true, ordering: .relaxed) }
        let trained = try await self.train(trainer)
        isOver.value.store(true, ordering: .relaxed)
        return (trained, try await served)
    }

    /// Something that has happened or not.
    private final class Flag: Sendable {
        let value = Atomic<Bool>(false)
    }

    private func show(_ report: BenchReport) {
        Terminal.print(report.conditions)
        Terminal.print(report.machine)
        var table = TextTable([("", .left), ("alone", .right), ("both", .right), ("ratio", .right)])
        for (title, work) in Round.rows {
            let figures = ["alone", "both", "ratio"].map { report.figure(work, self.streams, $0) }
            table.add(
                [title]
                    + figures.map { figure in
                        figure.map { "\(BenchReport.number($0.median)) (\(BenchReport.range($0.values)))" } ?? "-"
                    }
            )
        }
        self.output.print(table)
        Terminal.print(
            "Every answer had the tokens and the score, to the last bit, of the first one to the same input."
        )
    }
}

/// What one round found.
private struct Round {
    var trained = FrozenTrainer.Times()
    var trainedBeside = FrozenTrainer.Times()
    var served = ServedLoad.Served()
    var servedBeside = ServedLoad.Served()

    /// The table's rows: what they say, and the figures' names.
    static let rows = [
        ("step of training, ms", "training step"), ("waiting for outputs, ms of it", "training outputs"),
        ("waiting for gradients, ms of it", "training gradients"), ("step of serving, p50, ms", "serving p50"),
        ("step of serving, p90, ms", "serving p90"), ("step of serving, p99, ms", "serving p99"),
    ]

    func add(to report: inout BenchReport, size: Int) {
        let trained = [self.trained, self.trainedBeside]
        let served = [self.served, self.servedBeside]
        let figures: [(String, String, [Double])] = [
            ("training step", "ms", trained.map { 1000 * $0.perStep }),
            ("training outputs", "ms", trained.map { 1000 * $0.forwardSeconds / Double(max(1, $0.steps)) }),
            ("training gradients", "ms", trained.map { 1000 * $0.backwardSeconds / Double(max(1, $0.steps)) }),
            ("serving p50", "ms", served.map { $0.milliseconds(at: 0.5) }),
            ("serving p90", "ms", served.map { $0.milliseconds(at: 0.9) }),
            ("serving p99", "ms", served.map { $0.milliseconds(at: 0.99) }),
        ]
        for (work, unit, values) in figures {
            for (system, value) in zip(["alone", "both"], values) {
                let figure = BenchFigure(work: work, size: size, system: system, unit: unit, values: [])
                report.add(value, to: figure)
            }
            let ratio = BenchFigure(work: work, size: size, system: "ratio", unit: "x", values: [])
            if values[0] > 0 { report.add(values[1] / values[0], to: ratio) }
        }
    }
}
