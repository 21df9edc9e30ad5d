// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Checkpoints
import CommandKit
import Foundation
import ServiceKit
import SwitchTraining

/// `switchyard upcycle`: makes a Switch Transformer of a dense T5.
struct UpcycleCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "upcycle",
        abstract: "Make a Switch Transformer of a dense T5, to train it further.",
        discussion: """
            Feed-forward networks of every second block are copied to the experts, routers are drawn, and all else is kept
            (arXiv 2212.05055). Writes a folder in Hugging Face layout with tokenizer and generation settings.

            The router's probability multiplies an expert's output, and is about 1/N in the beginning. With
            --scale compensated the experts' outputs are N times the dense network's, so that the model answers about as the
            dense one; with --scale plain they are exact copies, and the model has to learn its way back.

            EXAMPLES
              switchyard upcycle google-t5/t5-small --experts 8 --out t5-small-8
              switchyard upcycle t5-base --experts 16 --sparse-step 1 --scale plain --out t5-base-16
            """
    )

    @Argument(help: "The folder of a dense T5 in Hugging Face layout, or a hub id in the local cache.")
    var model: String

    @Option(help: ArgumentHelp("Folder to write; must be empty or not exist.", valueName: "dir"))
    var out: String

    @Option(help: "Experts of each sparse layer.")
    var experts = 8

    @Option(help: "Distance between sparse blocks in both stacks; 1 makes every block sparse.")
    var sparseStep = 2

    @Option(help: "Tokens of one sequence that one expert takes (expert_capacity).")
    var capacity = 64

    @Option(help: "compensated or plain: whether experts make up for the router's probability.")
    var scale = "compensated"

    @Option(help: "Standard deviation of the routers' weights.")
    var routerDeviation = Upcycling.routerDeviation

    @Option(help: "Seed of the routers' weights.")
    var seed: UInt64 = 0

    func validate() throws {
        guard Upcycling.Scale(rawValue: self.scale) != nil else {
            let allowed = Upcycling.Scale.allCases.map(\.rawValue).joined(separator: " or ")
            throw ValidationError("--scale is \(self.scale); it must be \(allowed)")
        }
        guard self.routerDeviation >= 0, self.routerDeviation <= 10 else {
            throw ValidationError("--router-deviation is \(self.routerDeviation); it must be from 0 to 10")
        }
    }

    func run() async throws {
        var settings = Upcycling(expertCount: self.experts)
        settings.encoderSparseStep = self.sparseStep
        settings.decoderSparseStep = self.sparseStep
        settings.expertCapacity = self.capacity
        settings.scale = Upcycling.Scale(rawValue: self.scale) ?? .compensated
        let draws = WeightDraws(seed: self.seed)
        let deviation = self.routerDeviation
        let bar = ProgressBar()
        let configuration = try settings.write(
            model: try ModelSettings.directory(self.model),
            output: self.out,
            router: { name, count in draws.normal(count: count, name: name, deviation: deviation) },
            progress: { bar.show($0) }
        )
        Terminal.print(
            "\(self.out): \(configuration.sparseLayers.count) sparse layers of \(configuration.expertCount) experts, "
                + "\(configuration.parameterCount) parameters"
        )
        if configuration.gatedFeedForward {
            Terminal.printError(
                "The feed-forward networks are gated, which this program runs and transformers' Switch Transformers do not."
            )
        }
        Terminal.print("Next:  switchyard inspect \(self.out)")
    }
}
