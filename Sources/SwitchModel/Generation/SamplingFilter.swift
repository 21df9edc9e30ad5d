// SPDX-License-Identifier: Apache-2.0

/// The tokens that one is drawn from, and how probably: temperature, then top-k, then top-p, then the cutoffs of min-p,
/// typical, epsilon and eta sampling, as in transformers.
///
/// Tokens tied with the last of the top k stay, as they do in `TopKLogitsWarper`. Of tokens with the same score at the
/// edge of top-p, the lowest ids stay; transformers leaves that to its sort.
struct SamplingFilter {
    /// A token that can be drawn.
    struct Candidate: Equatable {
        /// The token's id.
        var id: Int32

        /// Its score, divided by the temperature.
        var score: Float
    }

    /// See ``GenerationParameters/temperature``.
    let temperature: Float

    /// See ``GenerationParameters/topK``.
    let topK: Int

    /// See ``GenerationParameters/topP``.
    let topP: Float

    /// See ``GenerationParameters/minP``.
    var minP: Float?

    /// See ``GenerationParameters/typicalP``.
    var typicalP: Float = 1

    /// See ``GenerationParameters/epsilonCutoff``.
    var epsilonCutoff: Float = 0

    /// See ``GenerationParameters/etaCutoff``.
    var etaCutoff: Float = 0

    /// Each of the limits keeps this many tokens at least, where there are that many; 1 or more.
    var leastCount = 1

    /// The tokens that can be drawn.
    ///
    /// - Parameter row: The scores of the whole vocabulary.
    /// - Returns: The tokens, by ascending id; none when no score is above minus infinity.
    func candidates(_ row: ScoreRow) -> [Candidate] {
        let candidates = self.topKCandidates(row)
        let likely = self.topP < 1 ? self.topPCandidates(candidates) : candidates
        return self.hasCutoffs ? self.cut(likely) : likely
    }

    private func topKCandidates(_ row: ScoreRow) -> [Candidate] {
        var least = -Float.infinity
        let count = max(self.topK, self.leastCount)
        if self.topK > 0, count < row.scores.count {
            var selection = TopSelection(capacity: count)
            row.offer(to: &selection)
            // Dividing keeps the order, so the k-th greatest score is the same one before and after.
            least = selection.threshold / self.temperature
        }
        var candidates: [Candidate] = []
        candidates.reserveCapacity(self.topK > 0 ? min(count, row.scores.count) : row.scores.count)
        row.forEach(atLeast: least, dividedBy: self.temperature) { id, score in
            candidates.append(Candidate(id: Int32(id), score: score))
        }
        return candidates
    }

    private func topPCandidates(_ candidates: [Candidate]) -> [Candidate] {
        let weights = Self.weights(candidates)
        let total = weights.reduce(0) { $0 + Double($1) }
        // Together these weigh less than what is cut off, so most of a vocabulary need not be sorted.
        let negligible = (1 - Double(self.topP)) * total / Double(max(candidates.count, 1))
        let ranked = candidates.indices.filter { self.leastCount > 1 || Double(weights[$0]) >= negligible }
            .sorted { left, right in
                let (first, second) = (candidates[left], candidates[right])
                return first.score > second.score || (first.score == second.score && first.id < second.id)
            }
        var kept: [Int] = []
        var above = 0.0
        for index in ranked {
            guard kept.count < self.leastCount || above < Double(self.topP) * total else { break }
            kept.append(index)
            above += Double(weights[index])
        }
        return kept.sorted().map { candidates[$0] }
    }

    /// Draws a token.
    ///
    /// - Parameters:
    ///   - candidates: The tokens that can be drawn, by ascending id.
    ///   - uniform: A random number within 0..<1; the token is the one at this part of the cumulated probabilities.
    /// - Returns: The token's id, or nil when there are no candidates.
    static func draw(_ candidates: [Candidate], uniform: Double) -> Int32? {
        let weights = Self.weights(candidates)
        let target = uniform * weights.reduce(0) { $0 + Double($1) }
        var cumulated = 0.0
        for (candidate, weight) in zip(candidates, weights) {
            cumulated += Double(weight)
            if cumulated > target { return candidate.id }
        }
        // Rounding can leave the target at the very end; nothing with a weight of 0 is ever drawn.
        return weights.lastIndex { $0 > 0 }.map { candidates[$0].id }
    }

    /// Draws several candidates, none twice.
    ///
    /// - Parameters:
    ///   - count: How many to draw; fewer come back when fewer have a weight above 0.
    ///   - candidates: What can be drawn.
    ///   - uniform: The random number within 0..<1 of each draw, by its number.
    /// - Returns: The places of those drawn, in the order of the draws.
    static func draw(_ count: Int, of candidates: [Candidate], uniform: (Int) -> Double) -> [Int] {
        var weights = Self.weights(candidates)
        var drawn: [Int] = []
        while drawn.count < count {
            let total = weights.reduce(0) { $0 + Double($1) }
            guard total > 0 else { break }
            let target = uniform(drawn.count) * total
            var cumulated = 0.0
            var place = weights.lastIndex { $0 > 0 } ?? 0
            for (index, weight) in weights.enumerated() {
                cumulated += Double(weight)
                if cumulated > target {
                    place = index
                    break
                }
            }
            drawn.append(place)
            weights[place] = 0
        }
        return drawn
    }

    /// The candidates' unnormalised probabilities; the greatest is 1.
    ///
    /// - Parameter candidates: The candidates.
    /// - Returns: A weight for each.
    static func weights(_ candidates: [Candidate]) -> [Float] {
        let greatest = candidates.lazy.map(\.score).max() ?? 0
        var weights: [Float] = []
        weights.reserveCapacity(candidates.count + 7)
        var start = 0
        while start < candidates.count {
            var scores = SIMD8<Float>(repeating: -.infinity)
            for lane in 0..<min(8, candidates.count - start) {
                scores[lane] = candidates[start + lane].score - greatest
            }
            let powers = ScoreRow.exponential(scores)
            for lane in 0..<8 { weights.append(powers[lane]) }
            start += 8
        }
        weights.removeLast(weights.count - candidates.count)
        return weights
    }
}

extension SamplingFilter {
    /// Takes the relevant ones of a request's parameters.
    ///
    /// - Parameters:
    ///   - parameters: The request's parameters.
    ///   - vocabulary: The model's vocabulary.
    init(parameters: GenerationParameters, vocabulary: GenerationVocabulary) {
        self.init(
            temperature: parameters.temperature,
            topK: parameters.topK,
            topP: parameters.topP,
            minP: parameters.minP,
            typicalP: parameters.typicalP,
            epsilonCutoff: parameters.epsilonCutoff,
            etaCutoff: parameters.etaCutoff,
            // So that a beam search can always go on.
            leastCount: parameters.beamCount > 1 ? vocabulary.continuationsPerBeam : 1
        )
    }
}
