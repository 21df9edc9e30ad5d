// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import CommandKit
import Foundation
import ServiceKit
import SwitchModel
import SwitchyardTypes
import TensorKernels

/// A model in this process, its inputs, and the timed work.
final class ModelBench {
    /// The model without its experts.
    let transformer: SwitchTransformer
    private let experts: any ExpertExecutor
    /// Bytes of one weight in memory: the gateway's, and the experts'.
    let weightBytes: (model: Double, experts: Double)
    private let inputTokens: Int
    private let newTokens: Int
    private var encoded: [Int: [EncodedSequence]] = [:]

    /// Loads a model.
    ///
    /// - Parameters:
    ///   - name: A folder, or a hub id in the local cache.
    ///   - threads: Compute threads.
    ///   - inputTokens: Tokens of each input.
    ///   - newTokens: Tokens to decode for each sequence.
    ///   - storage: How to keep the weights of the model and of its experts.
    /// - Throws: What is wrong with the checkpoint.
    init(
        name: String,
        threads: Int,
        inputTokens: Int,
        newTokens: Int,
        storage: (model: WeightStorage, experts: WeightStorage) = (.checkpoint, .checkpoint)
    ) throws {
        let bar = ProgressBar()
        let checkpoint = try Checkpoint.open(try ModelSettings.directory(name))
        let pool = WorkPool(threads: threads)
        self.transformer = try SwitchTransformer(checkpoint: checkpoint, pool: pool, storage: storage.model) {
            bar.show($0)
        }
        self.experts = try LocalExperts(checkpoint: checkpoint, pool: pool, storage: storage.experts) { bar.show($0) }
        let stored = try checkpoint.tensor(.sharedEmbedding).dtype
        self.weightBytes = (Self.bytes(storage.model, stored), Self.bytes(storage.experts, stored))
        self.inputTokens = inputTokens
        self.newTokens = newTokens
    }

    /// Takes a model that is loaded.
    ///
    /// - Parameters:
    ///   - transformer: The model without its experts.
    ///   - experts: Its experts.
    ///   - weightBytes: Bytes of one weight in memory: the gateway's, and the experts'.
    ///   - inputTokens: Tokens of each input.
    ///   - newTokens: Tokens to decode for each sequence.
    init(
        transformer: SwitchTransformer,
        experts: any ExpertExecutor,
        weightBytes: (model: Double, experts: Double),
        inputTokens: Int,
        newTokens: Int
    ) {
        self.transformer = transformer
        self.experts = experts
        self.weightBytes = weightBytes
        self.inputTokens = inputTokens
        self.newTokens = newTokens
    }

    /// Bytes of one weight; the scales of int8 are left out, one for each output.
    private static func bytes(_ storage: WeightStorage, _ stored: DType) -> Double {
        switch storage {
        // Weights are kept as the checkpoint has them, float16 as float32.
        case .checkpoint: stored == .bfloat16 ? 2 : 4
        case .float32: 4
        case .bfloat16: 2
        case .int8: 1
        }
    }

    private func inputs(_ size: Int) -> [[Int32]] {
        BenchInputs.sequences(
            count: size,
            tokens: self.inputTokens,
            vocabulary: self.transformer.configuration.vocabularySize
        )
    }

    /// Encodes a batch once.
    ///
    /// - Parameter size: Sequences in the batch.
    /// - Returns: Tokens per second, of all sequences together.
    /// - Throws: What the model throws.
    func encode(_ size: Int) throws -> Double {
        let inputs = self.inputs(size)
        var record = RoutingRecord()
        let start = ContinuousClock.now
        let encoded = try self.transformer.encode(inputs, experts: self.experts, record: &record)
        let time = start.duration(to: .now).inSeconds
        self.encoded[size] = encoded
        return Double(size * self.inputTokens) / time
    }

    /// Decodes a batch: one untimed step, then one step for each new token, each sequence's best token being fed back.
    ///
    /// - Parameter size: Sequences in the batch.
    /// - Returns: Tokens per second, of all sequences together.
    /// - Throws: What the model throws.
    func decode(_ size: Int) throws -> Double {
        var batch = try self.batch(size)
        try self.step(&batch)
        let start = ContinuousClock.now
        for _ in 0..<self.newTokens { try self.step(&batch) }
        return Double(size * self.newTokens) / start.duration(to: .now).inSeconds
    }

    /// Takes targets through the decoder at once, as scores and decoder prefixes are: for each sequence as many tokens as its
    /// input has.
    ///
    /// - Parameter size: Sequences in the batch.
    /// - Returns: Tokens per second, of all sequences together.
    /// - Throws: What the model throws.
    func prefill(_ size: Int) throws -> Double {
        let rows = zip(try self.batch(size).rows, self.inputs(size)).map { DecoderInput(cache: $0.cache, tokens: $1) }
        var record = RoutingRecord()
        let start = ContinuousClock.now
        _ = try self.transformer.decode(rows, experts: self.experts, record: &record)
        return Double(size * self.inputTokens) / start.duration(to: .now).inSeconds
    }

    /// How many different experts a step's tokens go to, on average over sparse layers and steps.
    ///
    /// - Parameter size: Sequences in the batch.
    /// - Returns: From 1 to the number of experts; 0 for a model without sparse layers in its decoder.
    /// - Throws: What the model throws.
    func expertsTouched(_ size: Int) throws -> Double {
        var batch = try self.batch(size)
        for _ in 0..<min(8, self.newTokens) { try self.step(&batch, options: StepOptions(collectRouting: true)) }
        let counts = batch.record.layers.map { layer in Double(layer.expertCounts.count { $0 > 0 }) }
        return counts.isEmpty ? 0 : counts.reduce(0, +) / Double(counts.count)
    }

    /// Makes decoder steps, and counts what one allocates once the model is warm, on average.
    ///
    /// - Parameters:
    ///   - counter: Counts allocations; nil where nothing does.
    ///   - size: Sequences in the batch.
    ///   - warmUp: Steps before those that are counted.
    ///   - steps: Steps that are counted.
    /// - Returns: Allocations of one step of all sequences together; nil without a counter.
    /// - Throws: What the model throws.
    func allocations(_ counter: AllocationCounter?, batch size: Int, warmUp: Int, steps: Int) throws -> Double? {
        var batch = try self.batch(size)
        for _ in 0..<warmUp { try self.step(&batch) }
        guard let counter else {
            for _ in 0..<steps { try self.step(&batch) }
            return nil
        }
        let count = try counter.count {
            for _ in 0..<steps { try self.step(&batch) }
        }
        return Double(count) / Double(steps)
    }

    // MARK: - Steps

    private struct Batch {
        /// Each sequence's cache and next token.
        var rows: [DecoderInput]
        /// What happened to the tokens of all steps.
        var record = RoutingRecord()
    }

    private func batch(_ size: Int) throws -> Batch {
        if self.encoded[size] == nil { _ = try self.encode(size) }
        let start = Int32(self.transformer.configuration.decoderStartTokenID)
        return Batch(
            rows: (self.encoded[size] ?? []).map { DecoderInput(cache: DecoderCache($0), tokens: [start]) }
        )
    }

    /// Decodes a token of each sequence, by default as transformers' generate does without scores.
    private func step(_ batch: inout Batch, options: StepOptions = StepOptions(logits: .greatest)) throws {
        let logits = try self.transformer.decode(
            batch.rows,
            experts: self.experts,
            options: options,
            record: &batch.record
        )
        for row in batch.rows.indices {
            batch.rows[row].tokens[0] = Int32(logits.greatest(inRow: row) ?? 0)
        }
    }
}
