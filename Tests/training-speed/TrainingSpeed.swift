// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import SwitchModel
import SwitchTraining
import SwitchyardTypes
import TensorKernels

/// How fast gradients are computed.
///
/// `training-speed MODEL BATCHES.json [threads]`: the file holds one batch after the other, each a list of pairs of input and
/// target. `torch_speed.py` writes it, and runs PyTorch in turn with this.
@main
enum TrainingSpeed {
    static func main() throws {
        let arguments = CommandLine.arguments
        guard arguments.count >= 3 else {
            print("usage: training-speed MODEL BATCHES.json [threads]")
            exit(2)
        }
        let data = try Data(contentsOf: URL(fileURLWithPath: arguments[2]))
        let batches = try JSONDecoder().decode([[[[Int32]]]].self, from: data)
            .map { pairs in
                TrainingBatch(pairs.map { TrainingExample(input: $0[0], target: $0[1]) })
            }
        let checkpoint = try Checkpoint.open(arguments[1])
        let pool = WorkPool(threads: arguments.count > 3 ? Int(arguments[3]) ?? 2 : 2)
        var settings = TrainingSettings()
        settings.capacity = .unlimited
        settings.jitter = 0.01
        let step = try TrainingStep(checkpoint.configuration, settings: settings, pool: pool)
        let weights = try ParameterBuffer.load(checkpoint, layout: step.layout)
        let gradients = Gradients(layout: step.layout)
        _ = try step.gradients(batches[0], weights: weights, into: gradients, step: 0)
        var tokens = 0
        var loss = 0.0
        let start = ContinuousClock.now
        for (number, batch) in batches.enumerated() {
            loss += try step.gradients(batch, weights: weights, into: gradients, step: number).crossEntropy
            tokens += batch.inputTokens + batch.targetTokens
        }
        let elapsed = ContinuousClock.now - start
        let seconds = Double(elapsed.components.seconds) + Double(elapsed.components.attoseconds) * 1e-18
        print(
            String(
                format: "ours  %.1f steps/s  %.0f tokens/s  loss %.6f  activations %.1f MB",
                Double(batches.count) / seconds,
                Double(tokens) / seconds,
                loss / Double(batches.count),
                Double(step.activationBytes) / 1e6
            )
        )
    }
}
