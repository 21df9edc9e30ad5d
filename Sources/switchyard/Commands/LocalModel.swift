// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import CommandKit
import ServiceKit
import SwitchModel
import SwitchyardProtos
import SwitchyardTypes
import TensorKernels
import Tokenization

/// A whole model in this process: what `generate --local` asks.
struct LocalModel {
    private let transformer: SwitchTransformer
    private let experts: LocalExperts
    private let tokenizer: Tokenizer

    /// Loads a model.
    ///
    /// - Parameters:
    ///   - name: A folder, or a hub id in the local cache.
    ///   - threads: Compute threads; all processors when nil.
    ///   - precision: How to keep the weights.
    /// - Throws: What is wrong with the checkpoint or the tokenizer.
    init(name: String, threads: Int?, precision: LocalPrecisionOptions) throws {
        let directory = try ModelSettings.directory(name)
        let bar = ProgressBar()
        let checkpoint = try Checkpoint.open(directory)
        let pool = WorkPool(threads: max(1, threads ?? Processors.count))
        self.transformer = try SwitchTransformer(checkpoint: checkpoint, pool: pool, storage: precision.model) {
            progress in bar.show(progress)
        }
        self.experts = try LocalExperts(checkpoint: checkpoint, pool: pool, storage: precision.experts) { progress in
            bar.show(progress)
        }
        self.tokenizer = try Tokenizer(directory: directory)
    }

    /// Generates as the gateway would.
    ///
    /// - Parameters:
    ///   - text: The input.
    ///   - options: How to generate.
    /// - Returns: The answer as the gateway's message.
    /// - Throws: Where the parameters are out of their limits.
    func generate(_ text: String, _ options: GenerationOptions) throws -> GenerateResponse {
        let input = self.tokenizer.encode(text)
        let generator = LocalGenerator(model: self.transformer, experts: self.experts)
        var record = RoutingRecord()
        let start = ContinuousClock.now
        let sequences = try generator.generate(input, parameters: try options.parameters(), record: &record)
        let time = start.duration(to: .now)

        var usage = Usage()
        usage.inputTokens = UInt32(input.count)
        usage.outputTokens = UInt32(sequences.reduce(0) { $0 + $1.tokenIDs.count })
        usage.routedTokens = UInt64(record.routedCount)
        usage.decodeMicroseconds = UInt64(time.inMicroseconds)
        usage.dropped = record.drops.sorted { $0.key.layer < $1.key.layer }
            .map { drop, count in
                DroppedTokens(
                    stack: drop.layer.stack == .encoder ? .encoder : .decoder,
                    layer: UInt32(drop.layer.block),
                    reason: .capacity,
                    tokens: UInt64(count)
                )
            }
        return GenerateResponse(
            generations: sequences.map { sequence in
                Generation(
                    text: self.tokenizer.decode(sequence.tokenIDs),
                    tokenIDs: sequence.tokenIDs.map { UInt32($0) },
                    finishReason: sequence.finishReason == .endOfSequence ? .endOfSequence : .length,
                    score: sequence.score
                )
            },
            usage: usage
        )
    }
}
