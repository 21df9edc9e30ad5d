// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Checkpoints
import CommandKit
import Figures
import Foundation
import LossyExperts
import ServiceKit
import SwitchModel
import SwitchyardTypes
import TensorKernels
import Tokenization

/// `switchyard-bench drops`: what a dropped token costs.
struct BenchDropsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "drops",
        abstract: "Next-token accuracy against the fraction of dropped tokens, in the encoder and in the decoder.",
        discussion: """
            The model fills gaps in its text, the decoder being fed the text's own tokens, while experts' answers are lost:
            single token rows, late calls, stalled hosts, dead hosts. No clock is read: the same options print the same
            figures on every machine.

            EXAMPLE
              switchyard-bench drops --positions 4000 --seeds 8 --svg drops.svg
            """
    )

    @Option(help: "A folder in Hugging Face layout, or a hub id in the local cache.")
    var model: String = "deploy/models/switch-mini"

    @Option(help: ArgumentHelp("The text; the model's scenes.txt when not given.", valueName: "file"))
    var text: String?

    @Option(help: "Which part of the text: known, or held-out (what the miniature's training left out).")
    var part: String = SpanCorruption.Part.known.rawValue

    @Option(help: "Decides which examples are made and which answers are lost.")
    var seed: UInt64 = 1

    @Option(help: "Runs of each loss, each with its own seed.")
    var seeds: Int = 8

    @Option(help: "Minimum number of target tokens.")
    var positions: Int = 4000

    @Option(
        help: ArgumentHelp(
            "Fraction of lost rows; may be given several times. (default: 0, 0.001, 0.01, 0.05, 0.2 and 1)",
            valueName: "fraction"
        )
    )
    var fraction: [Double] = []

    @Option(help: "Pools that hold the experts, an equal part each.")
    var pools: Int = 4

    @Option(help: "Consecutive steps that a stalled host misses.")
    var stallSteps: Int = 8

    @Option(help: "Sequences that run together.")
    var batch: Int = 8

    @Option(help: "Compute threads; all processors when not given.")
    var threads: Int?

    @Option(help: ArgumentHelp("Write every run's figures here.", valueName: "file"))
    var json: String?

    @Option(help: ArgumentHelp("Draw the accuracy here.", valueName: "file"))
    var svg: String?

    @Flag(help: "Print the tables as Markdown.")
    var markdown = false

    func validate() throws {
        guard (1...1_000_000).contains(self.positions) else {
            throw ValidationError("positions is \(self.positions); choose 1 through 1000000")
        }
        guard (1...1000).contains(self.seeds) else {
            throw ValidationError("seeds is \(self.seeds); choose 1 through 1000")
        }
        guard (1...1000).contains(self.batch), (1...1_000_000).contains(self.stallSteps), self.pools >= 1 else {
            throw ValidationError("batch, stall-steps and pools must be at least 1")
        }
        if let wrong = self.fraction.first(where: { !(0...1).contains($0) }) {
            throw ValidationError("fraction is \(wrong); choose 0 through 1")
        }
        guard SpanCorruption.Part(rawValue: self.part) != nil else {
            throw ValidationError("part is \"\(self.part)\"; choose known or held-out")
        }
    }

    func run() async throws {
        let directory = try ModelSettings.directory(self.model)
        let checkpoint = try Checkpoint.open(directory)
        let pool = WorkPool(threads: max(1, self.threads ?? Processors.count))
        let bar = ProgressBar()
        let transformer = try SwitchTransformer(checkpoint: checkpoint, pool: pool)
        let experts = try LocalExperts(checkpoint: checkpoint, pool: pool)
        let expertCount = transformer.configuration.expertCount
        guard self.pools <= expertCount else {
            throw Settings.Failure(
                "pools is \(self.pools); choose 1 through \(expertCount), the model's number of experts"
            )
        }
        let examples = try self.examples(directory: directory)
        let losses = Self.losses(
            fractions: self.fraction.isEmpty ? [0, 0.001, 0.01, 0.05, 0.2, 1] : self.fraction,
            seeds: (0..<UInt64(self.seeds)).map { self.seed &+ $0 },
            pools: self.pools,
            stallSteps: self.stallSteps,
            expertCount: expertCount
        )
        let ablation = DropAblation(model: transformer, experts: experts, batchSize: self.batch)
        let result = try ablation.run(losses: losses, examples: examples) { done, all in
            bar.update("Measuring batches", completed: done, total: all, isBytes: false)
        }
        let report = DropReport(
            result: result,
            subject: "\(URL(fileURLWithPath: directory).lastPathComponent), \(self.part) text, "
                + "\(result.undisturbed.positions) next tokens, \(self.seeds) runs each"
        )
        self.print(report)
        if let json {
            try report.json().write(to: URL(fileURLWithPath: json), options: .atomic)
        }
        if let svg {
            try report.figure.write(to: svg)
        }
    }

    private func examples(directory: String) throws -> [SpanCorruption.Example] {
        let path = self.text ?? directory + "/scenes.txt"
        let text: String
        do {
            text = try String(contentsOf: URL(fileURLWithPath: path), encoding: .utf8)
        } catch {
            throw Settings.Failure(
                "\(path) cannot be read as text (\(error.localizedDescription)); name another with --text"
            )
        }
        let part = SpanCorruption.Part(rawValue: self.part) ?? .known
        let task = try SpanCorruption(text: text, tokenizer: try Tokenizer(directory: directory), part: part)
        return task.examples(positions: self.positions, seed: self.seed)
    }

    /// Every way of losing answers.
    ///
    /// Where nothing or everything is lost, and for dead hosts, seeds make no difference.
    static func losses(
        fractions: [Double],
        seeds: [UInt64],
        pools: Int,
        stallSteps: Int,
        expertCount: Int
    ) -> [DropAblation.Loss] {
        var losses: [DropAblation.Loss] = []
        for fraction in fractions {
            let runs = fraction > 0 && fraction < 1 ? seeds : Array(seeds.prefix(1))
            losses.append(
                .init(kind: "rows", label: "", fraction: fraction, runs: runs.map { (.rows(fraction: fraction), $0) })
            )
        }
        for fraction in fractions where fraction > 0 && fraction < 1 {
            let loss = DroppingExperts.Loss.calls(fraction: fraction, pools: pools)
            losses.append(.init(kind: "calls", label: "", fraction: fraction, runs: seeds.map { (loss, $0) }))
        }
        for fraction in fractions where fraction > 0 && fraction < 1 {
            let loss = DroppingExperts.Loss.stalls(fraction: fraction, pools: pools, steps: stallSteps)
            losses.append(.init(kind: "stalls", label: "", fraction: fraction, runs: seeds.map { (loss, $0) }))
        }
        for (parts, name) in [(expertCount, "experts"), (pools, "pools")] where parts > 1 {
            let runs = (0..<parts)
                .map { part in
                    let dead = (0..<expertCount).filter { $0 * parts / expertCount == part }
                    return (loss: DroppingExperts.Loss.missing(Set(dead)), seed: UInt64(0))
                }
            losses.append(
                .init(kind: "missing", label: "1 of \(parts) \(name)", fraction: 1 / Double(parts), runs: runs)
            )
        }
        return losses
    }

    private func print(_ report: DropReport) {
        let result = report.result
        Terminal.print(report.subject)
        Terminal.print(
            "\(result.examples) examples, \(result.inputTokens) input tokens; \(result.batches) steps that encode and "
                + "\(result.steps - result.batches) that decode, of up to \(self.batch) sequences; \(self.pools) pools; "
                + "stalls of \(self.stallSteps) steps"
        )
        let nothing = result.undisturbed
        Terminal.print(
            "nothing lost: \(DropReport.accuracy([nothing])) % right, cross-entropy "
                + DropReport.crossEntropy([nothing]) + " nats"
        )
        let tables: [(String, TextTable)] = [
            ("next tokens right, % (mean of the runs, lowest to highest)", report.table(DropReport.accuracy)),
            ("next tokens as with nothing lost, %", report.table(DropReport.agreement)),
            ("cross-entropy, nats", report.table(DropReport.crossEntropy)),
            ("right tokens lost for each token dropped in a layer", report.table(report.price)),
        ]
        for (title, table) in tables {
            Terminal.print("\n\(title)\n" + (self.markdown ? "\n" + table.markdown : table.text))
        }
    }
}
