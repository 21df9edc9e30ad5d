// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import LossyExperts
import SwitchModel
import SwitchyardTypes
import TensorKernels

/// Next-token accuracy of a model whose experts' answers are lost in many ways.
///
/// Teacher-forced: the decoder is fed the text's own tokens whatever it predicts, one token per step and several
/// sequences per batch, as a gateway does. Every way of losing answers sees the same examples in the same batches.
struct DropAblation {
    /// Where answers are lost.
    enum Place: String, Sendable, CaseIterable, Codable {
        case encoder
        case decoder
        case both

        var stacks: Set<Stack> {
            switch self {
            case .encoder: [.encoder]
            case .decoder: [.decoder]
            case .both: [.encoder, .decoder]
            }
        }
    }

    /// One way of losing answers, with what differs from run to run.
    struct Loss: Sendable {
        /// `rows`, `calls`, `stalls` or `missing`.
        var kind: String
        /// What is lost, for tables: `1 of 4 pools`; empty where the fraction is enough.
        var label: String
        /// The fraction of token rows to lose.
        var fraction: Double
        /// What each run loses, and its seed.
        var runs: [(loss: DroppingExperts.Loss, seed: UInt64)]
    }

    /// What happened at the target positions of one run.
    struct Tally: Sendable, Codable, Equatable {
        /// Target positions.
        var positions = 0
        /// Positions whose most probable token is the target.
        var correct = 0
        /// Positions whose most probable token is that of the undisturbed model.
        var agreeing = 0
        /// Sum of the targets' negative log-probabilities, in nats.
        var loss = 0.0
        /// Tokens times sparse layers in the stacks where answers are lost.
        var routed = 0
        /// How many of these got no expert output.
        var dropped = 0

        /// Correct positions, as a fraction.
        var accuracy: Double { Double(self.correct) / Double(max(1, self.positions)) }
        /// Positions that agree with the undisturbed model, as a fraction.
        var agreement: Double { Double(self.agreeing) / Double(max(1, self.positions)) }
        /// Mean negative log-probability of the targets, in nats.
        var crossEntropy: Double { self.loss / Double(max(1, self.positions)) }
        /// Lost rows, as a fraction.
        var droppedFraction: Double { Double(self.dropped) / Double(max(1, self.routed)) }
    }

    /// The runs of one way of losing answers in one place.
    struct Cell: Sendable {
        var kind: String
        var label: String
        var fraction: Double
        var place: Place
        var runs: [Tally]
    }

    /// Everything that was measured.
    struct Result: Sendable {
        var undisturbed: Tally
        var cells: [Cell]
        var examples: Int
        var inputTokens: Int
        /// Steps; the first of each batch encodes.
        var steps: Int
        var batches: Int
    }

    let model: SwitchTransformer
    let experts: any ExpertExecutor
    /// Sequences that are encoded at once and then decoded together.
    var batchSize = 8

    /// Measures.
    ///
    /// - Parameters:
    ///   - losses: Ways of losing answers.
    ///   - examples: Inputs and targets.
    ///   - progress: Called with the number of finished batches.
    /// - Returns: The undisturbed model's figures and those of each way in each place.
    /// - Throws: What the model throws.
    func run(
        losses: [Loss],
        examples: [SpanCorruption.Example],
        progress: (Int, Int) -> Void = { _, _ in }
    ) throws -> Result {
        var result = Result(
            undisturbed: Tally(),
            cells: losses.flatMap { loss in
                Place.allCases.map { place in
                    Cell(
                        kind: loss.kind,
                        label: loss.label,
                        fraction: loss.fraction,
                        place: place,
                        runs: loss.runs.map { _ in Tally() }
                    )
                }
            },
            examples: examples.count,
            inputTokens: examples.reduce(0) { $0 + $1.input.count },
            steps: 0,
            batches: 0
        )
        let starts = Array(stride(from: 0, to: examples.count, by: max(1, self.batchSize)))
        for (index, start) in starts.enumerated() {
            let batch = Array(examples[start..<min(start + max(1, self.batchSize), examples.count)])
            try self.run(batch, losses: losses, result: &result)
            progress(index + 1, starts.count)
        }
        return result
    }

    /// Runs every way of losing answers over one batch; the batch's first step has the number `result.steps`.
    private func run(_ batch: [SpanCorruption.Example], losses: [Loss], result: inout Result) throws {
        let firstStep = result.steps
        var ignored = RoutingRecord()
        let undisturbed = try self.encode(batch, self.experts, record: &ignored)
        let choices = try self.decode(
            batch,
            undisturbed,
            { _ in self.experts },
            reference: nil,
            tally: &result.undisturbed,
            record: &ignored
        )
        for (index, loss) in losses.enumerated() {
            for (number, run) in loss.runs.enumerated() {
                let lossy = DroppingExperts(
                    self.experts,
                    loss: run.loss,
                    expertCount: self.model.configuration.expertCount,
                    seed: run.seed
                )
                // The encoder's part is the same whether or not the decoder loses answers too.
                var encoding = RoutingRecord()
                let encoded = try self.encode(batch, lossy.at(step: firstStep), record: &encoding)
                for (offset, place) in Place.allCases.enumerated() {
                    let cell = index * Place.allCases.count + offset
                    var record = place == .decoder ? RoutingRecord() : encoding
                    var decoding = RoutingRecord()
                    _ = try self.decode(
                        batch,
                        place == .decoder ? undisturbed : encoded,
                        { place == .encoder ? self.experts : lossy.at(step: firstStep + 1 + $0) },
                        reference: choices,
                        tally: &result.cells[cell].runs[number],
                        record: &decoding
                    )
                    if place != .encoder {
                        record.add(decoding, sequences: 0..<batch.count, as: 0)
                    }
                    result.cells[cell].runs[number].routed += record.routedCount
                    result.cells[cell].runs[number].dropped += record.dropped(reason: .timeout)
                }
            }
        }
        result.batches += 1
        result.steps += 1 + (batch.map(\.target.count).max() ?? 0)
    }

    private func encode(
        _ batch: [SpanCorruption.Example],
        _ experts: any ExpertExecutor,
        record: inout RoutingRecord
    ) throws -> [EncodedSequence] {
        try self.model.encode(batch.map(\.input), experts: experts, record: &record)
    }

    /// Decodes the targets one token per step, with the experts of each position's step.
    ///
    /// - Returns: The most probable token at each position of each target.
    private func decode(
        _ batch: [SpanCorruption.Example],
        _ encoded: [EncodedSequence],
        _ experts: (Int) -> any ExpertExecutor,
        reference: [[Int32]]?,
        tally: inout Tally,
        record: inout RoutingRecord
    ) throws -> [[Int32]] {
        let caches = encoded.map { DecoderCache($0) }
        let start = Int32(self.model.configuration.decoderStartTokenID)
        var choices = [[Int32]](repeating: [], count: batch.count)
        for position in 0..<(batch.map(\.target.count).max() ?? 0) {
            let live = batch.indices.filter { position < batch[$0].target.count }
            let rows = live.map { index in
                DecoderInput(
                    cache: caches[index],
                    tokens: [position == 0 ? start : batch[index].target[position - 1]]
                )
            }
            let logits = try self.model.decode(rows, experts: experts(position), record: &record)
            for (row, index) in live.enumerated() {
                let target = batch[index].target[position]
                let (choice, loss) = Self.judge(logits.row(row), target: Int(target))
                choices[index].append(choice)
                tally.positions += 1
                tally.correct += choice == target ? 1 : 0
                tally.agreeing += choice == (reference?[index][position] ?? choice) ? 1 : 0
                tally.loss += loss
            }
        }
        return choices
    }

    /// The most probable token, the lowest where several are, and the target's negative log-probability.
    private static func judge(_ logits: UnsafeMutableBufferPointer<Float>, target: Int) -> (Int32, Double) {
        var best = 0
        for index in logits.indices where logits[index] > logits[best] {
            best = index
        }
        let highest = Double(logits[best])
        let sum = logits.reduce(0.0) { $0 + exp(Double($1) - highest) }
        return (Int32(best), log(sum) + highest - Double(logits[target]))
    }
}
