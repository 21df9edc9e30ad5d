// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import CommandKit
import Foundation
import ServiceKit
import SwitchModel
import SwitchTraining
import TensorKernels
import TrainingData
import TrainingRuns

/// `switchyard evaluate`: measures a model on examples.
struct EvaluateCommand: AsyncParsableCommand, ThreadedCommand {
    static let configuration = CommandConfiguration(
        commandName: "evaluate",
        abstract: "Measure a model on examples: loss, token accuracy, and with --generate how close its answers are.",
        discussion: """
            Loss and token accuracy are those of the expected tokens, given the true ones before. With --generate the model
            answers each input as a gateway would, and the answers are compared with the targets: exact match, character and
            word error rate, ROUGE-L. A target's words are what its tokens decode to, without special tokens.

            EXAMPLES
              switchyard evaluate run/latest --data held-out.jsonl
              switchyard evaluate run/latest --data held-out.tsv --generate --examples 500 --json
              switchyard evaluate labml-run/latest --text held-out.txt --sequence 64
            """
    )

    @Argument(help: "The checkpoint to measure: a folder in Hugging Face layout, or a hub id in the local cache.")
    var model: String

    @OptionGroup(title: "Data") var data: TrainingDataOptions

    @Option(LossSettings.table.evalCapacity) var evalCapacity: String?

    @Option(help: "Examples at most; the first ones of the files.")
    var examples = 100_000

    @Option(help: "Target tokens that are computed at once.")
    var batchTokens = 4096

    @Flag(help: "Let the model answer each input, and compare the answers with the targets.")
    var generate = false

    @Option(help: "Beams of --generate. (default: the model's setting)")
    var beams: UInt32?

    @Option(help: "Write each answer of --generate beside its target to this file, as JSON lines.")
    var answers: String?

    @Option(help: "Compute threads. (default: all processors)")
    var threads: Int?

    @Flag(help: "Print the figures as JSON.")
    var json = false

    func validate() throws {
        guard self.examples >= 1 else { throw ValidationError("--examples is \(self.examples); it must be at least 1") }
        guard (1...10_000_000).contains(self.batchTokens) else {
            throw ValidationError("--batch-tokens is \(self.batchTokens); it must be from 1 to 10000000")
        }
        guard self.threads.map({ (1...1024).contains($0) }) ?? true else {
            throw ValidationError("--threads is \(self.threads ?? 0); it must be from 1 to 1024")
        }
        guard self.generate || (self.answers == nil && self.beams == nil) else {
            throw ValidationError("--answers and --beams need --generate")
        }
    }

    func run() async throws {
        let keys = Set(CommandSettings.evaluate.map(\.key))
        let settings = try await Settings(
            known: CommandSettings.evaluate,
            elsewhere: CommandSettings.all,
            flags: SettingFlags.given(by: self).filter { keys.contains($0.key) },
            environment: ProcessInfo.processInfo.environment,
            file: nil
        )
        guard try !self.generate || settings.value(TrainingDataSettings.table.text).isEmpty else {
            throw ValidationError(
                "--generate compares answers with targets, which a text has not; leave it out, or --text"
            )
        }
        let directory = try ModelSettings.directory(self.model)
        var evaluation = ModelEvaluation(
            model: directory,
            data: try TrainingDataSettings.table.files(settings),
            examples: try TrainingDataSettings.table.examples(settings)
        )
        evaluation.mostExamples = self.examples
        evaluation.batchTokens = self.batchTokens
        // Models without an encoder are served without drops, unless a cluster is told otherwise.
        evaluation.capacity =
            try !settings.value(TrainingDataSettings.table.text).isEmpty
            && !settings.isSet(LossSettings.table.evalCapacity)
            ? .unlimited : settings.value(LossSettings.table.evalCapacity)
        let bar = ProgressBar()
        let threads = self.threads ?? Processors.count
        let plan = evaluation
        let (loss, pairs) = try await StopSignals.interruptible {
            try plan.run(pool: WorkPool(threads: threads)) {
                bar.update("Computing losses", completed: $0, total: $1, isBytes: false)
            }
        }
        var figures = EvaluationFigures(loss)
        if self.generate {
            let answers = AnswerComparison(model: directory, threads: threads, beams: self.beams)
            figures.texts = try await answers.compare(
                pairs,
                maxNewTokens: plan.examples.maximumTargetTokens,
                to: self.answers
            )
        }
        Terminal.print(self.json ? try figures.json() : figures.text)
    }
}
