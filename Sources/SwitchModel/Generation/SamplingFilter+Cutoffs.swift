// SPDX-License-Identifier: Apache-2.0

#if canImport(Glibc)
private import Glibc
#elseif canImport(Musl)
private import Musl
#elseif canImport(Darwin)
private import Darwin
#endif

/// The cutoffs after top-p: min-p, typical, epsilon and eta, in this order and as in transformers 5.23
/// (https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/generation/logits_process.py).
///
/// Probabilities are those among the candidates that the cutoffs before left. Each keeps at least
/// ``SamplingFilter/leastCount`` candidates.
extension SamplingFilter {
    /// Whether any of these cutoffs is on.
    var hasCutoffs: Bool {
        self.minP != nil || self.typicalP < 1 || self.epsilonCutoff > 0 || self.etaCutoff > 0
    }

    /// The logarithm of the sum of the candidates' exponentials.
    ///
    /// - Parameter candidates: The candidates.
    /// - Returns: The logarithm; 0 without candidates.
    static func logSumOfExponentials(_ candidates: [Candidate]) -> Float {
        guard let greatest = candidates.lazy.map(\.score).max() else { return 0 }
        let total = candidates.reduce(0) { $0 + exp(Double($1.score) - Double(greatest)) }
        return Float(Double(greatest) + log(total))
    }

    /// Applies the cutoffs.
    ///
    /// - Parameter candidates: The tokens that top-p left, by ascending id.
    /// - Returns: Those that can be drawn, by ascending id.
    func cut(_ candidates: [Candidate]) -> [Candidate] {
        var candidates = candidates
        if let minP = self.minP { candidates = self.relative(candidates, to: minP) }
        if self.typicalP < 1 { candidates = self.typical(candidates) }
        if self.epsilonCutoff > 0 {
            candidates = self.absolute(candidates) { _ in Double(self.epsilonCutoff) }
        }
        if self.etaCutoff > 0 {
            let epsilon = Double(self.etaCutoff)
            candidates = self.absolute(candidates) { min(epsilon, epsilon.squareRoot() * exp(-$0)) }
        }
        return candidates
    }

    private func relative(_ candidates: [Candidate], to minP: Float) -> [Candidate] {
        // The greatest weight is 1.
        let weights = Self.weights(candidates)
        let order = candidates.indices.sorted { Self.isBetter(candidates[$0], candidates[$1]) }
        var isKept = weights.map { $0 >= minP }
        for index in order.prefix(self.leastCount) { isKept[index] = true }
        return candidates.indices.filter { isKept[$0] }.map { candidates[$0] }
    }

    private func typical(_ candidates: [Candidate]) -> [Candidate] {
        guard !candidates.isEmpty else { return [] }
        let (probabilities, logarithms) = Self.distribution(candidates)
        let entropy = Self.entropy(probabilities, logarithms)
        let distances = logarithms.map { abs(-$0 - entropy) }
        let order = candidates.indices.sorted { (distances[$0], $0) < (distances[$1], $1) }
        var cumulated = 0.0
        var last = 0
        for index in order {
            cumulated += probabilities[index]
            if cumulated < Double(self.typicalP) { last += 1 }
        }
        let greatest = distances[order[min(last, order.count - 1)]]
        var isKept = distances.map { $0 <= greatest }
        for index in order.prefix(self.leastCount) { isKept[index] = true }
        return candidates.indices.filter { isKept[$0] }.map { candidates[$0] }
    }

    /// Keeps what is as probable as a bound that may depend on the entropy.
    private func absolute(_ candidates: [Candidate], _ bound: (_ entropy: Double) -> Double) -> [Candidate] {
        guard candidates.count > self.leastCount else { return candidates }
        let (probabilities, logarithms) = Self.distribution(candidates)
        let least = bound(Self.entropy(probabilities, logarithms))
        let scores = candidates.map(\.score).sorted(by: >)
        let safe = scores[self.leastCount - 1]
        return candidates.indices
            .filter { probabilities[$0] >= least || candidates[$0].score >= safe }
            .map { candidates[$0] }
    }

    private static func isBetter(_ left: Candidate, _ right: Candidate) -> Bool {
        left.score > right.score || (left.score == right.score && left.id < right.id)
    }

    /// The candidates' probabilities and the logarithms of these.
    private static func distribution(_ candidates: [Candidate]) -> ([Double], [Double]) {
        let greatest = Double(candidates.lazy.map(\.score).max() ?? 0)
        let total = candidates.reduce(0) { $0 + exp(Double($1.score) - greatest) }
        let logarithms = candidates.map { Double($0.score) - greatest - log(total) }
        return (logarithms.map { exp($0) }, logarithms)
    }

    private static func entropy(_ probabilities: [Double], _ logarithms: [Double]) -> Double {
        zip(probabilities, logarithms).reduce(0) { $0 - ($1.0 > 0 ? $1.0 * $1.1 : 0) }
    }
}
