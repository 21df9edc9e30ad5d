// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import SwitchModel
import SwitchTraining
import SwitchyardTypes
import TensorKernels

/// How fast training steps are, and how much memory they take.
///
/// `training-speed MODEL BATCHES.json [--threads 2] [--optimizer none|adamw|adafactor] [--level scalar|avx2|avx512|neon]`: the file
/// holds one batch after the other, each a list of pairs of input and target. The first batch is computed once to begin with.
/// Then every line on the standard input is one round over all batches, which is answered with a line of JSON.
/// `torch_speed.py` writes the file, and runs PyTorch in turn with this.
@main
enum TrainingSpeed {
    static func main() throws {
        let options = try Options(CommandLine.arguments)
        let batches = try options.batches()
        let trainer = try Trainer(options)
        let first = try trainer.step(batches[0], number: 0)
        say([
            "ready": true,
            "kernels": "\(options.level.name) kernels",
            "threads": trainer.pool.threadCount,
            "loss": first,
        ])
        var number = 1
        while readLine() != nil {
            trainer.times = [:]
            let start = ContinuousClock.now
            var loss = 0.0
            for batch in batches {
                loss += try trainer.step(batch, number: number)
                number += 1
            }
            say([
                "seconds": (ContinuousClock.now - start).inSeconds,
                "loss": loss / Double(batches.count),
                "phases": trainer.times,
                "peakBytes": peakBytes(),
                "activationBytes": trainer.activationBytes,
            ])
        }
    }

    /// The most memory that this process had resident, in bytes.
    private static func peakBytes() -> Int {
        var usage = rusage()
        getrusage(RUSAGE_SELF.rawValue, &usage)
        return Int(usage.ru_maxrss) * 1024
    }

    private static func say(_ message: [String: Any]) {
        guard let data = try? JSONSerialization.data(withJSONObject: message, options: .sortedKeys) else { return }
        FileHandle.standardOutput.write(data + Data("\n".utf8))
    }
}

/// What the command line says.
struct Options {
    var model: String
    var batchFile: String
    var threads = 2
    var optimizer = "none"
    var level = KernelLevel.best

    init(_ arguments: [String]) throws {
        guard arguments.count >= 3, arguments.count % 2 == 1 else { throw Problem(Self.usage) }
        self.model = arguments[1]
        self.batchFile = arguments[2]
        for place in stride(from: 3, to: arguments.count, by: 2) {
            let value = arguments[place + 1]
            switch arguments[place] {
            case "--threads":
                guard let threads = Int(value), (1...256).contains(threads) else { throw Problem(Self.usage) }
                self.threads = threads
            case "--optimizer":
                guard ["none", "adamw", "adafactor"].contains(value) else { throw Problem(Self.usage) }
                self.optimizer = value
            case "--level":
                guard let level = KernelLevel.available.first(where: { "\($0)" == value }) else {
                    throw Problem("--level is \(value); this machine runs \(KernelLevel.available)")
                }
                self.level = level
            default: throw Problem(Self.usage)
            }
        }
    }

    static let usage = """
        usage: training-speed MODEL BATCHES.json [--threads 2] [--optimizer none|adamw|adafactor] \
        [--level scalar|avx2|avx512|neon]
        """

    func batches() throws -> [TrainingBatch] {
        let data = try Data(contentsOf: URL(fileURLWithPath: self.batchFile))
        let batches = try JSONDecoder().decode([[[[Int32]]]].self, from: data)
        guard !batches.isEmpty, batches.allSatisfy({ $0.allSatisfy { $0.count == 2 } }) else {
            throw Problem("\(self.batchFile) must hold at least one batch of pairs")
        }
        return batches.map { pairs in
            TrainingBatch(pairs.map { TrainingExample(input: $0[0], target: $0[1]) })
        }
    }
}

/// What ends the program, in words.
struct Problem: Error, CustomStringConvertible {
    var description: String

    init(_ description: String) {
        self.description = description
    }
}

/// Weights, gradients and an optimizer, as a run has them.
final class Trainer {
    let pool: WorkPool
    /// Seconds of each phase since this was emptied.
    var times: [String: Double] = [:]
    var activationBytes: Int { self.gradientStep.activationBytes }

    private let gradientStep: TrainingStep
    private let weights: ParameterBuffer
    private let gradients: Gradients
    private let optimizer: (any Optimizer)?

    init(_ options: Options) throws {
        let checkpoint = try Checkpoint.open(options.model)
        var settings = TrainingSettings()
        settings.capacity = .unlimited
        settings.jitter = 0.01
        self.pool = WorkPool(threads: options.threads)
        self.gradientStep = try TrainingStep(
            checkpoint.configuration,
            settings: settings,
            pool: self.pool,
            level: options.level
        )
        let layout = self.gradientStep.layout
        self.weights = try ParameterBuffer.load(checkpoint, layout: layout)
        self.gradients = Gradients(layout: layout)
        switch options.optimizer {
        case "adamw": self.optimizer = try AdamW(layout: layout)
        case "adafactor":
            var settings = Adafactor.Settings()
            settings.relativeStep = false
            self.optimizer = try Adafactor(layout: layout, settings: settings)
        default: self.optimizer = nil
        }
    }

    /// One step: gradients, clipping, update.
    ///
    /// - Returns: The cross-entropy.
    func step(_ batch: TrainingBatch, number: Int) throws -> Double {
        let report = try self.gradientStep.gradients(
            batch,
            weights: self.weights,
            into: self.gradients,
            step: number
        )
        let times = self.gradientStep.times
        let start = ContinuousClock.now
        self.optimizer?
            .step(
                weights: self.weights,
                gradients: self.gradients,
                learningRate: 1e-4,
                gradientScale: GradientNorm.clipFactor(norm: report.gradientNorm, limit: 1),
                pool: self.pool
            )
        for (name, seconds) in [
            ("forward", times.forward), ("head", times.head), ("backward", times.backward), ("finish", times.finish),
            ("optimizer", (ContinuousClock.now - start).inSeconds),
        ] {
            self.times[name, default: 0] += seconds
        }
        return report.crossEntropy
    }
}

extension Duration {
    var inSeconds: Double {
        let (seconds, attoseconds) = self.components
        return Double(seconds) + Double(attoseconds) * 1e-18
    }
}
