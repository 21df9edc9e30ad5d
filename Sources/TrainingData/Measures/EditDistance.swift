// SPDX-License-Identifier: Apache-2.0

/// Levenshtein's distance: the fewest insertions, deletions and replacements that turn one sequence into another.
public enum EditDistance {
    /// The distance of two sequences.
    ///
    /// By R. Wagner and M. Fischer, "The String-to-String Correction Problem" (JACM 1974), with one row of its table.
    ///
    /// - Parameters:
    ///   - first: A sequence.
    ///   - second: The other one.
    /// - Returns: The distance.
    public static func between<Element: Equatable>(_ first: [Element], _ second: [Element]) -> Int {
        var row = Array(0...second.count)
        for (index, element) in first.enumerated() {
            var diagonal = row[0]
            row[0] = index + 1
            for column in second.indices {
                let replaced = diagonal + (element == second[column] ? 0 : 1)
                diagonal = row[column + 1]
                row[column + 1] = min(replaced, diagonal + 1, row[column] + 1)
            }
        }
        return row[second.count]
    }
}

/// An error rate: edits over the length of what was expected, both summed over all pairs.
///
/// Over characters (Unicode scalars) it is the character error rate (CER), over words the word error rate (WER), and over the
/// words of a phoneme string the phoneme error rate (PER), all as `jiwer` 4.0 has them: words are what white space parts,
/// and white space around a text does not count. It may be above 1. Deviation: where nothing was expected at all, jiwer gives no rate or the number of edits; here
/// ``rate`` is 0 without edits and infinite with some.
public struct ErrorRate: Sendable, Hashable {
    /// What is counted.
    public enum Unit: Sendable, Hashable {
        /// Unicode scalars.
        case characters
        /// What white space parts: words or phonemes.
        case words
    }

    /// What is counted.
    public let unit: Unit

    /// The edits of all pairs.
    public private(set) var edits = 0

    /// The length of all expected texts.
    public private(set) var expected = 0

    /// A rate over no pair.
    ///
    /// - Parameter unit: What is counted.
    public init(_ unit: Unit) {
        self.unit = unit
    }

    /// Adds a pair.
    ///
    /// - Parameters:
    ///   - prediction: What the model gave.
    ///   - reference: What was expected.
    public mutating func add(prediction: String, reference: String) {
        switch self.unit {
        case .characters:
            self.add(Self.characters(prediction), Self.characters(reference))
        case .words:
            self.add(Self.words(prediction), Self.words(reference))
        }
    }

    private mutating func add<Element: Equatable>(_ prediction: [Element], _ reference: [Element]) {
        self.edits += EditDistance.between(prediction, reference)
        self.expected += reference.count
    }

    /// The scalars of a text, without white space around it.
    private static func characters(_ text: String) -> [Unicode.Scalar] {
        let scalars = Array(text.unicodeScalars.drop(while: \.properties.isWhitespace))
        let end = scalars.lastIndex { !$0.properties.isWhitespace }.map { $0 + 1 } ?? 0
        return Array(scalars[..<end])
    }

    /// The words of a text, as scalars: canonically equivalent spellings differ, as in Python.
    private static func words(_ text: String) -> [[Unicode.Scalar]] {
        text.unicodeScalars.split(whereSeparator: \.properties.isWhitespace).map { Array($0) }
    }

    /// Edits over the expected length.
    public var rate: Double {
        self.edits == 0 ? 0 : Double(self.edits) / Double(self.expected)
    }
}
