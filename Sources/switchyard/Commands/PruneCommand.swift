// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Checkpoints
import CommandKit
import Foundation
import ServiceKit
import SwitchyardClient
import SwitchyardProtos
import SwitchyardTypes
import TensorKernels
import TrainingData
import TrainingRuns

/// `switchyard prune`: removes the least used experts of a model.
struct PruneCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "prune",
        abstract: "Write a smaller Switch Transformer, without the experts that are used least.",
        discussion: """
            Loads are measured on --data, or read from a run's metrics.jsonl (--loads), or asked of a gateway that serves the
            model (--endpoint). In each sparse layer the experts with the greatest loads stay; routers are cut to them, so
            other tokens go to the most likely of those that stay. `switchyard evaluate` says what that costs.

            EXAMPLES
              switchyard prune run/latest --keep 0.5 --data held-out.tsv --out half
              switchyard prune run/latest --keep 0.25 --loads run/metrics.jsonl --out quarter
              switchyard prune google/switch-base-8 --keep 0.5 --endpoint 127.0.0.1:7400 --out half
              switchyard evaluate half --data held-out.tsv
            """
    )

    @Argument(help: "The checkpoint: a folder in Hugging Face layout, or a hub id in the local cache.")
    var model: String

    @Option(help: ArgumentHelp("Folder to write; must be empty or not exist.", valueName: "dir"))
    var out: String

    @Option(help: ArgumentHelp("Share of each layer's experts that stay, above 0 and at most 1.", valueName: "share"))
    var keep = 0.5

    @Option(
        help: ArgumentHelp(
            "Tokens of one sequence that one expert takes (expert_capacity). (default: the same for all experts together)",
            valueName: "tokens"
        )
    )
    var capacity: Int?

    @Option(help: ArgumentHelp("Loads: the last line of a run's metrics.jsonl that has some.", valueName: "file"))
    var loads: String?

    @Option(help: "Examples at most that loads are measured on; the first ones of the files.")
    var examples = 100_000

    @Option(help: "Compute threads for measuring. (default: all processors)")
    var threads: Int?

    @OptionGroup(title: "Loads: data") var data: TrainingDataOptions
    @OptionGroup(title: "Loads: a gateway") var client: ClientOptions

    func validate() throws {
        guard self.keep > 0, self.keep <= 1 else {
            throw ValidationError("--keep is \(self.keep); it must be above 0 and at most 1")
        }
        guard self.examples >= 1 else { throw ValidationError("--examples is \(self.examples); it must be at least 1") }
        guard self.threads.map({ (1...1024).contains($0) }) ?? true else {
            throw ValidationError("--threads is \(self.threads ?? 0); it must be from 1 to 1024")
        }
        let sources = [self.loads != nil, !self.data.data.isEmpty, self.client.endpoint != nil].count { $0 }
        guard sources == 1 else {
            throw ValidationError("loads come from one of --data, --loads and --endpoint; give one of them")
        }
    }

    func run() async throws {
        let directory = try ModelSettings.directory(self.model)
        let configuration = try ModelConfiguration.load(directory: directory)
        var pruning = ExpertPruning(
            kept: ExpertPruning.count(self.keep, of: configuration.expertCount),
            loads: try await self.measuredLoads(directory)
        )
        pruning.expertCapacity = self.capacity
        let experts = try pruning.experts(of: configuration, directory: directory)
        let bar = ProgressBar()
        let smaller = try pruning.write(model: directory, output: self.out) { bar.show($0) }
        for (layer, kept) in experts.sorted(by: { $0.key < $1.key }) {
            let share = String(format: "%.1f", 100 * pruning.share(layer, of: kept))
            Terminal.print("\(layer): \(share) % of its tokens keep their expert; experts \(Self.list(kept)) stay")
        }
        Terminal.print(
            "\(self.out): \(smaller.expertCount) of \(configuration.expertCount) experts in a layer, "
                + "\(smaller.parameterCount) of \(configuration.parameterCount) parameters, capacity \(smaller.expertCapacity)"
        )
        Terminal.print("Next:  switchyard evaluate \(self.out) --data FILE")
    }

    private static func list(_ numbers: [Int]) -> String {
        let shown = numbers.prefix(16).map(String.init).joined(separator: ", ")
        return numbers.count > 16 ? "\(shown), ..." : shown
    }

    // MARK: - Loads

    private func measuredLoads(_ directory: String) async throws -> [SparseLayer: [Double]] {
        if let loads { return try Self.loads(in: loads) }
        guard self.client.endpoint == nil else { return try await self.servedLoads(directory) }
        let keys = Set(CommandSettings.evaluate.map(\.key))
        let settings = try await Settings(
            known: CommandSettings.evaluate,
            elsewhere: CommandSettings.all,
            flags: SettingFlags.given(by: self).filter { keys.contains($0.key) },
            environment: ProcessInfo.processInfo.environment,
            file: nil
        )
        var evaluation = ModelEvaluation(
            model: directory,
            data: try TrainingDataSettings.table.files(settings),
            examples: try TrainingDataSettings.table.examples(settings)
        )
        evaluation.mostExamples = self.examples
        evaluation.capacity = try settings.value(LossSettings.table.evalCapacity)
        let plan = evaluation
        let threads = self.threads ?? Processors.count
        let bar = ProgressBar()
        let report = try await StopSignals.interruptible {
            try plan.run(pool: WorkPool(threads: threads)) {
                bar.update("Measuring loads", completed: $0, total: $1, isBytes: false)
            }
            .0
        }
        return Self.loads(of: report)
    }

    private static func loads(in file: String) throws -> [SparseLayer: [Double]] {
        let text: String
        do {
            text = try String(contentsOfFile: file, encoding: .utf8)
        } catch {
            throw RunError("\(file) cannot be read; name a run's metrics.jsonl")
        }
        let report = text.split(separator: "\n").reversed().lazy
            .compactMap { RunReport(line: String($0)) }
            .first { !$0.layers.isEmpty }
        guard let report else {
            throw RunError(
                "\(file) has no line with the loads of sparse layers; name the metrics.jsonl of this model's run"
            )
        }
        return Self.loads(of: report)
    }

    private static func loads(of report: RunReport) -> [SparseLayer: [Double]] {
        var result: [SparseLayer: [Double]] = [:]
        for layer in report.layers {
            let parts = layer.layer.split(separator: " ")
            guard parts.count == 2, let block = Int(parts[1]),
                let stack = Stack.allCases.first(where: { "\($0)" == parts[0] })
            else { continue }
            result[SparseLayer(stack: stack, block: block)] = layer.shares
        }
        return result
    }

    private func servedLoads(_ directory: String) async throws -> [SparseLayer: [Double]] {
        let fingerprint = try Checkpoint.open(directory).fingerprint
        var result: [SparseLayer: [Double]] = [:]
        try await self.client.withClient { gateway in
            let cluster = try await gateway.describeCluster()
            guard cluster.modelFingerprint == fingerprint else {
                throw RunError(
                    "the gateway at \(gateway.endpoint) serves another model than \(directory); name the checkpoint that it"
                        + " serves"
                )
            }
            for load in cluster.expertLoad {
                guard let stack = load.stack.stack else { continue }
                result[SparseLayer(stack: stack, block: Int(load.layer))] = load.rows.map { Double($0) }
            }
        }
        return result
    }
}
