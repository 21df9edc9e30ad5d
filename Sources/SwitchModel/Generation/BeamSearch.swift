// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import TensorKernels

/// Beam search as in transformers 5.23.
///
/// The algorithm is that of `_beam_search`
/// (https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/generation/utils.py) for one input:
/// each step takes the best `(1 + end tokens) * beams` continuations of all beams; those among the best `beams` that end are kept as
/// finished when their score, normalized by length, is among the best `beams` of such; the best `beams` that do not
/// end go on. Lengths do not count the start token.
///
/// Deviations, none of which changes a result unless scores are tied or not finite:
/// - Before the first step there is one row, not `beams` equal ones of which all but one are suppressed.
/// - Of equal scores the one with the lower beam, then the lower id, comes first; transformers leaves that undefined.
/// - Continuations with a score of minus infinity are never taken.
/// - A beam can be finished from outside, see ``finish(row:)``.
///
/// With ``GenerationParameters/sampling`` a step draws as many continuations, none twice, in proportion to the
/// exponentials of the sequences' scores; the first `beams` drawn may end. The draws are those of ``Philox``.
struct BeamSearch {
    /// A sequence in progress.
    private struct Beam {
        var tokens: [Int32] = []

        /// The last step's row that it continues.
        var parent = 0

        /// The sum of the log probabilities after processing.
        var score: Float = 0

        /// The model's own log probabilities.
        var logprobs: [Float] = []

        /// See ``GeneratedSequence/rows``.
        var rows: [Int] = []
    }

    private let parameters: GenerationParameters
    private let vocabulary: GenerationVocabulary
    private let processing: ScoreProcessing
    private let filter: SamplingFilter

    /// The sequences in progress, best first; the next step's rows.
    private var running = [Beam()]

    /// The best finished sequences, best first; at most as many as beams.
    private var finished: [GeneratedSequence] = []

    /// How many tokens each running sequence has.
    private var length = 0

    /// See ``GenerationSession/isFinished``.
    private(set) var isFinished = false

    /// See ``GenerationSession/parents``.
    private(set) var parents: [Int] = []

    /// Log probabilities after processing, kept so that the memory is allocated once.
    private var scratch: [Float] = []

    init(parameters: GenerationParameters, vocabulary: GenerationVocabulary, processing: ScoreProcessing) {
        self.parameters = parameters
        self.vocabulary = vocabulary
        self.processing = processing
        self.filter = SamplingFilter(parameters: parameters, vocabulary: vocabulary)
    }

    var nextTokens: [Int32] {
        self.isFinished ? [] : self.running.map { $0.tokens.last ?? self.vocabulary.startTokenID }
    }

    var results: [GeneratedSequence] {
        self.isFinished ? Array(self.finished.prefix(self.parameters.returnedSequences)) : []
    }

    mutating func advance(logits: FloatMatrix, firstRow: Int) -> GenerationSession.Advance {
        var advance = GenerationSession.Advance()
        let width = self.vocabulary.continuationsPerBeam * self.parameters.beamCount
        var selection = TopSelection(capacity: self.parameters.sampling ? 1 : width)
        var pool = Pool()
        var shifts: [Float] = []
        for row in self.running.indices {
            let scores = ScoreRow(scores: UnsafeBufferPointer(logits.row(firstRow + row)))
            if let best = scores.best() {
                shifts.append(scores.logSumOfExponentials(greatest: best.score))
                if self.parameters.sampling {
                    self.collect(scores, row: row, shift: shifts[row], in: &pool)
                } else {
                    self.offer(scores, row: row, shift: shifts[row], to: &selection)
                }
            } else {
                shifts.append(0)
                advance.unusableRows.append(row)
            }
        }

        let entries = self.parameters.sampling ? self.draw(width, from: pool) : selection.descending
        self.length += 1
        self.take(entries, logits: logits, firstRow: firstRow, shifts: shifts)
        advance.parents = self.parents
        return advance
    }

    /// Ends and continues sequences by a step's continuations, the best or the first drawn in front.
    private mutating func take(
        _ entries: [TopSelection.Entry],
        logits: FloatMatrix,
        firstRow: Int,
        shifts: [Float]
    ) {
        let atMaximum = self.length >= self.parameters.maxNewTokens
        var next: [Beam] = []
        var ended: [GeneratedSequence] = []
        for (rank, entry) in entries.enumerated() {
            let row = entry.index / self.vocabulary.size
            let id = Int32(entry.index % self.vocabulary.size)
            let isEnd = self.vocabulary.isEnd(id)
            // The ranks below only ensure that enough sequences continue.
            guard !(isEnd || atMaximum) || rank < self.parameters.beamCount else { continue }
            guard self.parameters.sampling || next.count < self.parameters.beamCount || isEnd || atMaximum else {
                continue
            }
            var beam = self.running[row]
            beam.parent = row
            beam.tokens.append(id)
            beam.rows.append(row)
            beam.score = entry.score
            beam.logprobs.append(ScoreRow.clamped(logits.row(firstRow + row)[Int(id)]) - shifts[row])
            if isEnd || atMaximum {
                ended.append(self.finishedSequence(beam, reason: isEnd ? .endOfSequence : .length))
            } else {
                next.append(beam)
            }
        }
        if self.parameters.sampling {
            // The order of the draws decides what may end, but the best of those drawn go on.
            next.sort { $0.score > $1.score }
            next.removeLast(max(0, next.count - self.parameters.beamCount))
        }
        self.parents.removeAll(keepingCapacity: true)
        self.parents.append(contentsOf: next.lazy.map(\.parent))
        self.keepBest(ended)
        self.concludeIfDone(next: next)
    }

    /// Ends a running sequence, which then competes with the other finished ones.
    ///
    /// transformers would end it within the step, so that another continuation would take its place; here one beam
    /// fewer continues.
    ///
    /// - Parameter row: The next step's row.
    mutating func finish(row: Int) {
        self.keepBest([self.finishedSequence(self.running[row], reason: .stop)])
        var next = self.running
        next.remove(at: row)
        if row < self.parents.count { self.parents.remove(at: row) }
        self.concludeIfDone(next: next)
    }

    private mutating func offer(_ scores: ScoreRow, row: Int, shift: Float, to selection: inout TopSelection) {
        let beam = self.running[row]
        let firstIndex = row * self.vocabulary.size
        guard self.parameters.renormalizesLogits || self.processing.isActive(length: beam.tokens.count) else {
            scores.offer(to: &selection, firstIndex: firstIndex, shift: shift, base: beam.score)
            return
        }
        self.processing.apply(to: &self.scratch, original: scores, shift: shift, tokens: beam.tokens)
        self.scratch.withUnsafeBufferPointer {
            let row = ScoreRow(scores: $0)
            let best = self.parameters.renormalizesLogits ? row.best() : nil
            let norm = best.map { row.logSumOfExponentials(greatest: $0.score) } ?? 0
            row.offer(to: &selection, firstIndex: firstIndex, shift: norm, base: beam.score)
        }
    }

    /// The continuations that a step draws from.
    private struct Pool {
        /// Tokens and the scores of the sequences that they would make.
        var candidates: [SamplingFilter.Candidate] = []

        /// The row of each.
        var rows: [Int] = []
    }

    private mutating func collect(_ scores: ScoreRow, row: Int, shift: Float, in pool: inout Pool) {
        let beam = self.running[row]
        self.processing.apply(to: &self.scratch, original: scores, shift: shift, tokens: beam.tokens)
        let candidates = self.scratch.withUnsafeBufferPointer { self.filter.candidates(ScoreRow(scores: $0)) }
        let norm = self.parameters.renormalizesLogits ? SamplingFilter.logSumOfExponentials(candidates) : 0
        for candidate in candidates {
            let score = beam.score + (candidate.score - norm)
            pool.candidates.append(SamplingFilter.Candidate(id: candidate.id, score: score))
            pool.rows.append(row)
        }
    }

    private func draw(_ count: Int, from pool: Pool) -> [TopSelection.Entry] {
        let drawn = SamplingFilter.draw(count, of: pool.candidates) {
            Philox.uniform(seed: self.parameters.seed, sequence: UInt64($0), step: UInt64(self.length))
        }
        return drawn.map {
            let candidate = pool.candidates[$0]
            return TopSelection.Entry(
                score: candidate.score,
                index: pool.rows[$0] * self.vocabulary.size + Int(candidate.id)
            )
        }
    }

    private func finishedSequence(_ beam: Beam, reason: FinishReason) -> GeneratedSequence {
        let score =
            beam.tokens.isEmpty
            ? 0 : beam.score / lengthDivisor(beam.tokens.count, penalty: self.parameters.lengthPenalty)
        return GeneratedSequence(
            tokenIDs: beam.tokens,
            finishReason: reason,
            score: score.isNaN ? -.infinity : score,
            logprobs: beam.logprobs,
            topLogprobs: [],
            rows: beam.rows
        )
    }

    /// Merges newly finished sequences with those from before; of equal scores, the older comes first.
    private mutating func keepBest(_ ended: [GeneratedSequence]) {
        for sequence in ended {
            let place = self.finished.firstIndex { $0.score < sequence.score } ?? self.finished.count
            self.finished.insert(sequence, at: place)
        }
        self.finished = Array(self.finished.prefix(self.parameters.beamCount))
    }

    /// Continues with the given sequences, or ends the search.
    private mutating func concludeIfDone(next: [Beam]) {
        if let best = next.first, self.canImprove(on: best) {
            self.running = next
            return
        }
        if self.finished.isEmpty {
            // Only NaN scores lead here; something must still be returned.
            self.keepBest((next.isEmpty ? self.running : next).map { self.finishedSequence($0, reason: .length) })
        }
        self.isFinished = true
        self.running = []
        self.parents = []
    }

    /// Whether continuing could change the result, as ``GenerationParameters/earlyStopping`` says.
    private func canImprove(on best: Beam) -> Bool {
        guard self.finished.count == self.parameters.beamCount, let worst = self.finished.last else { return true }
        let length: Int
        switch self.parameters.earlyStopping {
        case .always:
            return false
        case .never where self.parameters.lengthPenalty > 0:
            length = self.parameters.maxNewTokens
        case .never, .heuristic:
            length = self.length
        }
        return best.score / lengthDivisor(length, penalty: self.parameters.lengthPenalty) > worst.score
    }
}
