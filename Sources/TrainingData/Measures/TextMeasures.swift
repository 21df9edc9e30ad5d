// SPDX-License-Identifier: Apache-2.0

/// How close generated texts are to the expected ones.
public struct TextMeasures: Sendable, Hashable {
    /// The pairs so far.
    public private(set) var count = 0

    /// The pairs that are equal, scalar by scalar, as `evaluate`'s `exact_match` compares them by default.
    public private(set) var equal = 0

    /// The error rate over characters.
    public private(set) var characters = ErrorRate(.characters)

    /// The error rate over words, or over phonemes that spaces part.
    public private(set) var words = ErrorRate(.words)

    /// ROUGE-L.
    public private(set) var rouge = RougeL()

    /// Measures of nothing.
    public init() {}

    /// Adds a pair.
    ///
    /// - Parameters:
    ///   - prediction: What the model gave.
    ///   - reference: What was expected.
    public mutating func add(prediction: String, reference: String) {
        self.count += 1
        // Swift's == takes canonically equivalent spellings for equal; Python's does not.
        self.equal += prediction.utf8.elementsEqual(reference.utf8) ? 1 : 0
        self.characters.add(prediction: prediction, reference: reference)
        self.words.add(prediction: prediction, reference: reference)
        self.rouge.add(prediction: prediction, reference: reference)
    }

    /// The share of pairs that are equal.
    public var exactMatch: Double { self.count == 0 ? 0 : Double(self.equal) / Double(self.count) }
}
