// SPDX-License-Identifier: Apache-2.0

import ServiceKit
import Tokenization

/// The task that the miniature was trained for: words are taken out of a text, and the model gives them back.
///
/// Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer" (2020), section
/// 3.1.4, with the lengths and rates of the miniature's `train_mini.py`.
struct SpanCorruption {
    /// One text with spans replaced by sentinels, and the replaced text.
    struct Example: Sendable, Equatable {
        /// Token ids of the text with sentinels, the end token last.
        var input: [Int32]
        /// Sentinels with the tokens they stand for, the end token last.
        var target: [Int32]
    }

    /// Which part of the text examples come from.
    enum Part: String, Sendable {
        /// What the miniature was trained on.
        case known
        /// The last fiftieth of the text, at least 400 tokens, which its training left out.
        case heldOut = "held-out"
    }

    /// Tokens of an example, before spans are taken out.
    static let lengths = 12...48

    private let tokens: [Int32]
    private let starts: [Int]
    private let sentinels: [Int32]
    private let end: Int32

    /// Prepares a text.
    ///
    /// - Parameters:
    ///   - text: The text that examples come from.
    ///   - tokenizer: The model's tokenizer.
    ///   - part: Which part of the text to use.
    /// - Throws: ``Settings/Failure`` where the part is too short for one example.
    init(text: String, tokenizer: Tokenizer, part: Part) throws {
        let tokens = Array(tokenizer.encode(text).dropLast())
        let longest = Self.lengths.upperBound
        let known = tokens.count - max(400, tokens.count / 50)
        let allowed =
            part == .known ? 0..<max(0, known - longest - 1) : max(0, known)..<max(0, tokens.count - longest - 1)
        // Examples begin where a word begins.
        let starts = tokens.indices.filter { index in
            allowed.contains(index) && tokenizer.token(tokens[index])?.hasPrefix("\u{2581}") == true
        }
        guard !starts.isEmpty else {
            throw Settings.Failure(
                "the text has \(tokens.count) tokens, of which none can begin a \(part.rawValue) example of up to"
                    + " \(longest); give a longer one with --text"
            )
        }
        guard let end = tokenizer.endTokenID else {
            throw Settings.Failure("examples end with an end token, which a tokenizer of single characters lacks")
        }
        self.tokens = tokens
        self.starts = starts
        self.sentinels = (0..<tokenizer.vocabularySize).lazy.map { tokenizer.sentinelID($0) }.prefix { $0 != nil }
            .compactMap { $0 }
        self.end = end
    }

    /// Makes examples until their targets have enough positions.
    ///
    /// - Parameters:
    ///   - positions: The minimum number of target tokens.
    ///   - seed: Decides where examples begin, how long they are and what is taken out.
    /// - Returns: The examples, the same for the same arguments.
    func examples(positions: Int, seed: UInt64) -> [Example] {
        var numbers = SeededNumbers(seed: seed)
        var examples: [Example] = []
        var count = 0
        while count < positions {
            let start = self.starts[numbers.below(self.starts.count)]
            let length = Self.lengths.lowerBound + numbers.below(Self.lengths.count)
            let example = self.corrupt(Array(self.tokens[start..<min(start + length, self.tokens.count)]), &numbers)
            count += example.target.count
            examples.append(example)
        }
        return examples
    }

    /// Takes 10 to 22 % of the tokens out, in spans of 1.5 or 3 tokens on average.
    private func corrupt(_ tokens: [Int32], _ numbers: inout SeededNumbers) -> Example {
        let share = 0.10 + 0.12 * numbers.unit()
        let noise = max(1, Int((Double(tokens.count) * share).rounded()))
        let mean = numbers.below(2) == 0 ? 1.5 : 3.0
        let spans = min(max(1, Int((Double(noise) / mean).rounded())), self.sentinels.count - 1)
        let cuts = [0] + numbers.choose(spans - 1, from: 1..<noise) + [noise]
        let places = numbers.choose(spans, from: 0..<(tokens.count - noise + 1))

        var example = Example(input: [], target: [])
        var next = 0
        var kept = 0
        for span in 0..<spans {
            example.input += tokens[next..<(next + places[span] - kept)]
            next += places[span] - kept
            kept = places[span]
            let length = cuts[span + 1] - cuts[span]
            example.input.append(self.sentinels[span])
            example.target.append(self.sentinels[span])
            example.target += tokens[next..<(next + length)]
            next += length
        }
        example.input += tokens[next...]
        example.input.append(self.end)
        example.target.append(self.sentinels[spans])
        example.target.append(self.end)
        return example
    }
}

/// Numbers that are the same in every run (SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number
/// generators", 2014, figure 17).
struct SeededNumbers {
    private var state: UInt64

    init(seed: UInt64) {
        self.state = seed
    }

    mutating func next() -> UInt64 {
        self.state &+= 0x9E37_79B9_7F4A_7C15
        var z = self.state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }

    /// A number within 0..<bound; the bias of the upper bits is below 2^-32 for the bounds used here.
    mutating func below(_ bound: Int) -> Int {
        Int(((self.next() >> 32) * UInt64(max(1, bound))) >> 32)
    }

    /// A number within 0..<1.
    mutating func unit() -> Double {
        Double(self.next() >> 11) * 0x1p-53
    }

    /// Different numbers from a range, ascending.
    mutating func choose(_ count: Int, from range: Range<Int>) -> [Int] {
        var chosen: Set<Int> = []
        while chosen.count < min(count, range.count) {
            chosen.insert(range.lowerBound + self.below(range.count))
        }
        return chosen.sorted()
    }
}
