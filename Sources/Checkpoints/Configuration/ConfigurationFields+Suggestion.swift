// SPDX-License-Identifier: Apache-2.0

extension ConfigurationFields {
    private static let mostSteps = 4

    /// The key that a misspelt one most likely means.
    ///
    /// - Parameter key: What the caller wrote.
    /// - Returns: ` (did you mean KEY?)`; nothing where no key is near.
    static func suggestion(for key: String) -> String {
        // Longer words than any key are near none; the bound keeps the work small.
        guard key.utf8.count <= 64 else { return "" }
        let word = Array(key.lowercased().utf8)
        let nearest = self.kinds.keys.sorted()
            .map { (key: $0, steps: self.distance(word, Array($0.utf8))) }
            .min { $0.steps < $1.steps }
        guard let nearest, nearest.steps <= min(self.mostSteps, word.count / 2) else { return "" }
        return " (did you mean \(nearest.key)?)"
    }

    /// The fewest insertions, removals and replacements of letters that make one word of the other (Levenshtein).
    private static func distance(_ left: [UInt8], _ right: [UInt8]) -> Int {
        var row = Array(0...right.count)
        for (index, letter) in left.enumerated() {
            var diagonal = row[0]
            row[0] = index + 1
            for place in right.indices {
                let replaced = diagonal + (letter == right[place] ? 0 : 1)
                diagonal = row[place + 1]
                row[place + 1] = min(replaced, row[place] + 1, diagonal + 1)
            }
        }
        return row[right.count]
    }
}
