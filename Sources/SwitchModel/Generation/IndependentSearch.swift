// SPDX-License-Identifier: Apache-2.0

import TensorKernels

/// Greedy search and sampling: independent sequences.
///
/// All sequences start from the same token, so the first step has one row, however many there are.
struct IndependentSearch {
    /// A sequence in progress, or finished.
    private struct Sequence {
        var tokens: [Int32] = []
        var logprobs: [Float] = []
        var topLogprobs: [[TokenLogprob]] = []
        var finishReason: FinishReason?
        var rows: [Int] = []
    }

    private let parameters: GenerationParameters
    private let vocabulary: GenerationVocabulary
    private let processing: ScoreProcessing
    private let filter: SamplingFilter
    private var sequences: [Sequence]

    /// For each row of the next step the sequences that it continues: all of them before the first step.
    private var rows: [[Int]]

    /// See ``GenerationSession/parents``.
    private(set) var parents: [Int] = []

    /// Scores after processing, kept so that the memory is allocated once.
    private var scratch: [Float] = []

    init(parameters: GenerationParameters, vocabulary: GenerationVocabulary, processing: ScoreProcessing) {
        self.parameters = parameters
        self.vocabulary = vocabulary
        self.processing = processing
        self.filter = SamplingFilter(parameters: parameters, vocabulary: vocabulary)
        self.sequences = Array(repeating: Sequence(), count: parameters.returnedSequences)
        self.rows = [Array(0..<parameters.returnedSequences)]
    }

    var nextTokens: [Int32] {
        self.rows.map { self.sequences[$0[0]].tokens.last ?? self.vocabulary.startTokenID }
    }

    var isFinished: Bool { self.rows.isEmpty }

    var results: [GeneratedSequence] {
        self.sequences.compactMap { sequence in
            guard let reason = sequence.finishReason else { return nil }
            let total = sequence.logprobs.reduce(0, +)
            let length = sequence.tokens.count
            return GeneratedSequence(
                tokenIDs: sequence.tokens,
                finishReason: reason,
                score: length == 0 ? 0 : total / lengthDivisor(length, penalty: self.parameters.lengthPenalty),
                logprobs: sequence.logprobs,
                topLogprobs: sequence.topLogprobs,
                rows: sequence.rows
            )
        }
    }

    /// Whether the next step needs only the greatest of each row's scores.
    ///
    /// A row can exclude one token, so a least length with several end tokens needs all scores.
    var needsOnlyGreatest: Bool {
        self.parameters.skipsScores && !self.parameters.sampling && self.processing.keepsTokenScores
            && (self.parameters.minNewTokens == 0 || self.vocabulary.endTokenIDs.count <= 1)
    }

    /// For each row of the next step a token that it must not choose.
    var excludedTokens: [Int32?] {
        self.rows.map { row in
            self.processing.mayEnd(length: self.sequences[row[0]].tokens.count)
                ? nil : self.vocabulary.endTokenIDs.first
        }
    }

    mutating func advance(logits: FloatMatrix, firstRow: Int) -> GenerationSession.Advance {
        var advance = GenerationSession.Advance()
        var nextRows: [[Int]] = []
        self.parents.removeAll(keepingCapacity: true)
        for (row, members) in self.rows.enumerated() {
            let scores = ScoreRow(scores: UnsafeBufferPointer(logits.row(firstRow + row)))
            let best = scores.best()
            if best == nil { advance.unusableRows.append(row) }
            // Scores that were left out cannot be summed.
            let scored = !self.parameters.skipsScores
            let shift = scored ? best.map { scores.logSumOfExponentials(greatest: $0.score) } ?? 0 : 0
            let top = self.topLogprobs(scores, shift: shift)
            for index in members {
                let id = self.choose(scores, best: best?.id, for: index)
                let logprob = scored ? id.map { ScoreRow.clamped(scores.scores[Int($0)]) - shift } ?? -.infinity : 0
                self.sequences[index].rows.append(row)
                let chosen = id ?? self.vocabulary.endTokenIDs.first ?? 0
                let isFinished = self.append(chosen, isUsable: id != nil, logprob: logprob, top: top, to: index)
                let nextRow = isFinished ? nil : nextRows.count
                if !isFinished {
                    nextRows.append([index])
                    self.parents.append(row)
                }
                advance.emitted.append(
                    EmittedToken(
                        sequence: index,
                        row: nextRow,
                        id: chosen,
                        logprob: logprob,
                        topLogprobs: top
                    )
                )
            }
        }
        self.rows = nextRows
        advance.parents = self.parents
        return advance
    }

    mutating func finish(row: Int, reason: FinishReason) {
        for index in self.rows[row] { self.sequences[index].finishReason = reason }
        self.rows.remove(at: row)
        if row < self.parents.count { self.parents.remove(at: row) }
    }

    /// Chooses a token, or nil when no score is a number that can be chosen.
    private mutating func choose(_ scores: ScoreRow, best: Int?, for index: Int) -> Int32? {
        let tokens = self.sequences[index].tokens
        // The minimum length changes only the end token's score, so the best of the others is still the best.
        let isUnchanged =
            !self.parameters.sampling && self.processing.keepsTokenScores
            && best.map { self.vocabulary.isEnd(Int32($0)) } != true
        guard !isUnchanged, self.processing.isActive(length: tokens.count) else {
            return self.parameters.sampling
                ? self.draw(scores, for: index, length: tokens.count) : best.map(Int32.init)
        }
        self.processing.apply(to: &self.scratch, original: scores, tokens: tokens)
        return self.scratch.withUnsafeBufferPointer { scratch in
            let processed = ScoreRow(scores: scratch)
            guard !self.parameters.sampling else { return self.draw(processed, for: index, length: tokens.count) }
            // Where the rules leave nothing of a usable row, transformers takes the first of equal scores.
            return processed.best().map { Int32($0.id) } ?? best.map { _ in 0 }
        }
    }

    private func draw(_ scores: ScoreRow, for index: Int, length: Int) -> Int32? {
        let uniform = Philox.uniform(seed: self.parameters.seed, sequence: UInt64(index), step: UInt64(length))
        return SamplingFilter.draw(self.filter.candidates(scores), uniform: uniform)
    }

    /// Appends a token and says whether the sequence ends with it.
    private mutating func append(
        _ id: Int32,
        isUsable: Bool,
        logprob: Float,
        top: [TokenLogprob],
        to index: Int
    ) -> Bool {
        self.sequences[index].tokens.append(id)
        self.sequences[index].logprobs.append(logprob)
        if self.parameters.topLogprobs > 0 { self.sequences[index].topLogprobs.append(top) }
        if !isUsable || self.vocabulary.isEnd(id) {
            self.sequences[index].finishReason = .endOfSequence
        } else if self.sequences[index].tokens.count >= self.parameters.maxNewTokens {
            self.sequences[index].finishReason = .length
        }
        return self.sequences[index].finishReason != nil
    }

    private func topLogprobs(_ scores: ScoreRow, shift: Float) -> [TokenLogprob] {
        guard self.parameters.topLogprobs > 0 else { return [] }
        var selection = TopSelection(capacity: self.parameters.topLogprobs)
        scores.offer(to: &selection)
        return selection.descending.map { TokenLogprob(id: Int32($0.index), logprob: $0.score - shift) }
    }
}
