// SPDX-License-Identifier: Apache-2.0

/// ROUGE-L: how much of two texts' words is a common subsequence, as an F1 score.
///
/// From C.-Y. Lin, "ROUGE: A Package for Automatic Evaluation of Summaries" (2004), section 3.1, as `rouge_score` 0.1.2
/// computes `rougeL` and `evaluate`'s `rouge` asks for it, so without stemming
/// (https://github.com/google-research/google-research/blob/master/rouge/rouge_scorer.py): texts in lower case, words of
/// `a`-`z` and `0`-`9`, everything else between words. Deviations: ``mean`` is the plain mean, where `evaluate` gives the
/// median of bootstrapped means, which differs from it by chance; there is neither ROUGE-1, ROUGE-2 nor the
/// line-by-line `rougeLsum`.
///
/// Letters beyond `a`-`z` part words, as in the original: for texts in other scripts it says nothing.
public struct RougeL: Sendable, Hashable {
    private var sum = 0.0

    /// The pairs so far.
    public private(set) var count = 0

    /// A score of no pair.
    public init() {}

    /// Adds a pair.
    ///
    /// - Parameters:
    ///   - prediction: What the model gave.
    ///   - reference: What was expected.
    public mutating func add(prediction: String, reference: String) {
        self.sum += Self.score(prediction: prediction, reference: reference)
        self.count += 1
    }

    /// The mean of the pairs' scores; 0 without pairs.
    public var mean: Double { self.count == 0 ? 0 : self.sum / Double(self.count) }

    /// The score of one pair.
    ///
    /// - Parameters:
    ///   - prediction: What the model gave.
    ///   - reference: What was expected.
    /// - Returns: F1, within 0...1; 0 where one of them has no word.
    public static func score(prediction: String, reference: String) -> Double {
        let predicted = Self.words(prediction)
        let expected = Self.words(reference)
        guard !predicted.isEmpty, !expected.isEmpty else { return 0 }
        let common = Double(Self.longestCommonSubsequence(predicted, expected))
        let precision = common / Double(predicted.count)
        let recall = common / Double(expected.count)
        return precision + recall > 0 ? 2 * precision * recall / (precision + recall) : 0
    }

    private static func words(_ text: String) -> [[UInt8]] {
        text.lowercased().utf8
            .split { byte in
                !(byte >= UInt8(ascii: "a") && byte <= UInt8(ascii: "z"))
                    && !(byte >= UInt8(ascii: "0") && byte <= UInt8(ascii: "9"))
            }
            .map { Array($0) }
    }

    private static func longestCommonSubsequence(_ first: [[UInt8]], _ second: [[UInt8]]) -> Int {
        var row = [Int](repeating: 0, count: second.count + 1)
        for element in first {
            var diagonal = 0
            for column in second.indices {
                let above = row[column + 1]
                row[column + 1] = element == second[column] ? diagonal + 1 : max(above, row[column])
                diagonal = above
            }
        }
        return row[second.count]
    }
}
