// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import TensorKernels

#if canImport(Glibc)
private import Glibc
#elseif canImport(Musl)
private import Musl
#elseif canImport(Darwin)
private import Darwin
#endif

/// Group beam search, also called diverse beam search (https://arxiv.org/abs/1610.02424), as in transformers 4.55.
///
/// The algorithm is that of `_group_beam_search` and `BeamSearchScorer`
/// (https://github.com/huggingface/transformers/blob/v4.55.4/src/transformers/generation/utils.py and beam_search.py) for one
/// input; later releases fetch the same code from another repository. Each group is a beam search of its own with
/// `beams / groups` beams. All groups take a step together, one after another: a group's scores are lowered by
/// ``GenerationParameters/diversityPenalty`` for each beam of an earlier group that has chosen the token in this step. A group
/// that has ended counts as choosing the padding token with all its beams, as there. A sequence ends with the first end
/// token, whichever was chosen, as there.
///
/// Deviations, none of which changes a result unless scores are tied or not finite:
/// - Before the first step there is one row for all beams.
/// - Of equal scores the one with the lower beam, then the lower id, comes first; transformers leaves that undefined.
/// - Continuations with a score of minus infinity are never taken.
/// - A group that has ended has no rows.
struct GroupBeamSearch {
    /// A sequence in progress.
    private struct Beam {
        var tokens: [Int32] = []

        /// The next step's row; several beams share the first step's.
        var row = 0

        /// The sum of the log probabilities after processing.
        var score: Float

        /// The model's own log probabilities.
        var logprobs: [Float] = []

        /// See ``GeneratedSequence/rows``.
        var rows: [Int] = []
    }

    /// One group: its sequences in progress, and the best of those that have ended.
    private struct Group {
        var beams: [Beam]
        var finished: [(score: Double, sequence: GeneratedSequence)] = []
        /// A sequence must be better to be kept once there are enough.
        var worstScore = 1e9
        var isDone = false

        /// Keeps a sequence if it is among the best, as `BeamHypotheses.add`.
        mutating func keep(_ sequence: GeneratedSequence, score: Double, most: Int) {
            guard self.finished.count < most || score > self.worstScore else { return }
            self.finished.append((score, sequence))
            guard self.finished.count > most else {
                self.worstScore = min(score, self.worstScore)
                return
            }
            // The first of equal ones goes.
            let order = self.finished.indices.sorted {
                (self.finished[$0].score, $0) < (self.finished[$1].score, $1)
            }
            self.worstScore = self.finished[order[1]].score
            self.finished.remove(at: order[0])
        }
    }

    /// A step's scores, and what has been computed of them.
    private struct Step {
        let logits: FloatMatrix
        let firstRow: Int
        /// Of each row what turns its scores into log probabilities; nil where none is a number.
        let shifts: [Float?]
        /// How many beams of the groups so far have chosen each token.
        var chosen: [Int32: Int] = [:]

        func scores(_ row: Int) -> ScoreRow {
            ScoreRow(scores: UnsafeBufferPointer(self.logits.row(self.firstRow + row)))
        }
    }

    private let parameters: GenerationParameters
    private let vocabulary: GenerationVocabulary
    private let processing: ScoreProcessing
    private let groupSize: Int
    private var groups: [Group]

    /// How many tokens each sequence in progress has.
    private var length = 0

    /// See ``GenerationSession/parents``.
    private(set) var parents: [Int] = []

    /// Log probabilities after processing, kept so that the memory is allocated once.
    private var scratch: [Float] = []

    init(parameters: GenerationParameters, vocabulary: GenerationVocabulary, processing: ScoreProcessing) {
        self.parameters = parameters
        self.vocabulary = vocabulary
        self.processing = processing
        self.groupSize = parameters.beamCount / parameters.beamGroups
        // All beams have the same scores in the first step, so only one of each group may count, as in transformers.
        let beams = (0..<self.groupSize).map { Beam(score: $0 == 0 ? 0 : -1e9) }
        self.groups = Array(repeating: Group(beams: beams), count: parameters.beamGroups)
    }

    /// See ``GenerationSession/isFinished``.
    var isFinished: Bool { self.groups.allSatisfy(\.isDone) }

    var nextTokens: [Int32] {
        guard self.length > 0 else { return [self.vocabulary.startTokenID] }
        return self.running.map { $0.tokens.last ?? self.vocabulary.startTokenID }
    }

    var results: [GeneratedSequence] {
        guard self.isFinished else { return [] }
        let all = self.groups.flatMap(\.finished).enumerated()
            // Of equal scores the later one comes first, as in transformers.
            .sorted { ($0.element.score, $0.offset) > ($1.element.score, $1.offset) }
        return all.prefix(self.parameters.returnedSequences).map(\.element.sequence)
    }

    /// The sequences that have a row in the next step, in the rows' order.
    private var running: [Beam] { self.groups.lazy.filter { !$0.isDone }.flatMap(\.beams) }

    mutating func advance(logits: FloatMatrix, firstRow: Int) -> GenerationSession.Advance {
        var advance = GenerationSession.Advance()
        let shifts = (0..<self.nextTokens.count)
            .map { row -> Float? in
                let scores = ScoreRow(scores: UnsafeBufferPointer(logits.row(firstRow + row)))
                return scores.best().map { scores.logSumOfExponentials(greatest: $0.score) }
            }
        advance.unusableRows = shifts.indices.filter { shifts[$0] == nil }
        var step = Step(logits: logits, firstRow: firstRow, shifts: shifts)
        for index in self.groups.indices {
            if self.groups[index].isDone {
                let padding = self.vocabulary.paddingTokenID
                step.chosen[padding, default: 0] += self.groupSize
            } else {
                self.take(self.continuations(of: self.groups[index], step), step, group: index)
                for beam in self.groups[index].beams {
                    if let token = beam.tokens.last { step.chosen[token, default: 0] += 1 }
                }
            }
        }
        self.length += 1
        if self.length >= self.parameters.maxNewTokens {
            for index in self.groups.indices where !self.groups[index].isDone { self.endAll(index) }
        }
        self.arrangeRows()
        advance.parents = self.parents
        return advance
    }

    /// Ends a sequence in progress, which then competes with the other finished ones of its group.
    ///
    /// - Parameter row: The next step's row.
    mutating func finish(row: Int) {
        for index in self.groups.indices where !self.groups[index].isDone {
            guard let place = self.groups[index].beams.firstIndex(where: { $0.row == row }) else { continue }
            let beam = self.groups[index].beams.remove(at: place)
            self.end(beam, reason: .stop, group: index)
            self.groups[index].isDone = self.groups[index].beams.isEmpty
            break
        }
        let kept = self.running.map { self.parents[$0.row] }
        self.arrangeRows()
        self.parents = kept
    }

    // MARK: - Inside

    /// Finds a group's best continuations, best first.
    private mutating func continuations(of group: Group, _ step: Step) -> [TopSelection.Entry] {
        var selection = TopSelection(capacity: self.vocabulary.continuationsPerBeam * self.groupSize)
        let diversity = step.chosen.mapValues { self.parameters.diversityPenalty * Float($0) }
        let isActive =
            self.parameters.renormalizesLogits || !diversity.isEmpty || self.processing.isActive(length: self.length)
        for (place, beam) in group.beams.enumerated() {
            guard let shift = step.shifts[beam.row] else { continue }
            let scores = step.scores(beam.row)
            let firstIndex = place * self.vocabulary.size
            guard isActive else {
                scores.offer(to: &selection, firstIndex: firstIndex, shift: shift, base: beam.score)
                continue
            }
            self.processing.apply(
                to: &self.scratch,
                original: scores,
                shift: shift,
                tokens: beam.tokens,
                diversity: diversity
            )
            self.scratch.withUnsafeBufferPointer {
                let row = ScoreRow(scores: $0)
                let best = self.parameters.renormalizesLogits ? row.best() : nil
                let norm = best.map { row.logSumOfExponentials(greatest: $0.score) } ?? 0
                row.offer(to: &selection, firstIndex: firstIndex, shift: norm, base: beam.score)
            }
        }
        return selection.descending
    }

    /// Ends and continues a group's sequences, as `BeamSearchScorer.process`.
    private mutating func take(_ entries: [TopSelection.Entry], _ step: Step, group index: Int) {
        var next: [Beam] = []
        for (rank, entry) in entries.enumerated() {
            guard next.count < self.groupSize else { break }
            let id = Int32(entry.index % self.vocabulary.size)
            var beam = self.groups[index].beams[entry.index / self.vocabulary.size]
            let logit = step.logits.row(step.firstRow + beam.row)[Int(id)]
            beam.logprobs.append(ScoreRow.clamped(logit) - (step.shifts[beam.row] ?? 0))
            beam.rows.append(beam.row)
            beam.score = entry.score
            guard self.vocabulary.isEnd(id) else {
                beam.tokens.append(id)
                next.append(beam)
                continue
            }
            // The ranks below only ensure that enough sequences continue.
            guard rank < self.groupSize else { continue }
            beam.tokens.append(self.vocabulary.endTokenIDs.first ?? id)
            self.end(beam, reason: .endOfSequence, group: index)
        }
        guard let best = entries.first else {
            // Only scores that are not finite lead here; something must still be returned.
            self.endAll(index)
            return
        }
        self.groups[index].beams = next
        // Where the end is forced, nothing goes on.
        self.groups[index].isDone = next.isEmpty || !self.canImprove(self.groups[index], best: Double(best.score))
    }

    /// Ends all of a group's sequences where they are.
    private mutating func endAll(_ index: Int) {
        for beam in self.groups[index].beams { self.end(beam, reason: .length, group: index) }
        self.groups[index].isDone = true
    }

    private mutating func end(_ beam: Beam, reason: FinishReason, group index: Int) {
        let score = beam.tokens.isEmpty ? 0 : Double(beam.score) / self.divisor(beam.tokens.count)
        let sequence = GeneratedSequence(
            tokenIDs: beam.tokens,
            finishReason: reason,
            score: score.isNaN ? -.infinity : Float(score),
            logprobs: beam.logprobs,
            topLogprobs: [],
            rows: beam.rows
        )
        self.groups[index].keep(sequence, score: score.isNaN ? -.infinity : score, most: self.groupSize)
    }

    /// A length to the power of the length penalty, in the double precision of transformers' code for this search.
    private func divisor(_ length: Int) -> Double { pow(Double(length), Double(self.parameters.lengthPenalty)) }

    /// Whether continuing could change a group's result, as `BeamHypotheses.is_done`.
    private func canImprove(_ group: Group, best: Double) -> Bool {
        guard group.finished.count >= self.groupSize else { return true }
        let length: Int
        switch self.parameters.earlyStopping {
        case .always:
            return false
        case .never where self.parameters.lengthPenalty > 0:
            length = self.parameters.maxNewTokens
        case .never, .heuristic:
            length = self.length + 1
        }
        return group.worstScore < best / self.divisor(length)
    }

    /// Gives each sequence in progress its row of the next step.
    private mutating func arrangeRows() {
        self.parents.removeAll(keepingCapacity: true)
        for index in self.groups.indices where !self.groups[index].isDone {
            for place in self.groups[index].beams.indices {
                let row = self.parents.count
                self.parents.append(self.groups[index].beams[place].row)
                self.groups[index].beams[place].row = row
            }
        }
    }
}
