// SPDX-License-Identifier: Apache-2.0

/// T5's task for plain text: spans of tokens are hidden behind sentinels, and the target says what was hidden.
///
/// From C. Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer" (JMLR 2020,
/// section 3.1.4), by the algorithm of `random_spans_noise_mask`
/// (https://github.com/google-research/text-to-text-transfer-transformer/blob/main/t5/data/preprocessors.py),
/// which is also that of a script of transformers
/// (https://github.com/huggingface/transformers/blob/v4.46.0/examples/flax/language-modeling/run_t5_mlm_flax.py): the
/// numbers of hidden tokens and of spans follow from the length, both kinds of spans get random lengths, and the text begins
/// with a shown span. Deviations:
///
/// - Random numbers come from ``KeyedRandom``, so the mask of an example is a function of (seed, epoch, line, window).
/// - ``endsWithSentinel`` puts one more sentinel behind the last span, as the paper's figure 2 has it; both programs leave
///   it out, and so does the default.
/// - A text needs two tokens. Both programs fail on one.
public struct SpanCorruption: Sendable, Hashable {
    /// The share of tokens that is hidden.
    public var density: Double

    /// The mean length of a hidden span.
    public var meanSpanLength: Double

    /// Whether one more sentinel follows the last hidden span.
    public var endsWithSentinel: Bool

    /// T5's: 15 % in spans of 3 tokens on average.
    public static let t5 = Self(density: 0.15, meanSpanLength: 3, endsWithSentinel: false)

    /// Creates a task.
    ///
    /// - Parameters:
    ///   - density: The share of tokens that is hidden, above 0 and below 1.
    ///   - meanSpanLength: The mean length of a hidden span, at least 1.
    ///   - endsWithSentinel: Whether one more sentinel follows the last hidden span.
    public init(density: Double, meanSpanLength: Double, endsWithSentinel: Bool = false) {
        self.density = density
        self.meanSpanLength = meanSpanLength
        self.endsWithSentinel = endsWithSentinel
    }

    /// Checks the numbers.
    func check() throws(DataError) {
        guard self.density > 0, self.density < 1 else {
            throw DataError(
                .invalidSettings,
                "the share of hidden tokens is \(self.density); it must be above 0 and below 1"
            )
        }
        guard self.meanSpanLength >= 1, self.meanSpanLength <= 1_000_000 else {
            throw DataError(
                .invalidSettings,
                "the mean length of a hidden span is \(self.meanSpanLength); it must be from 1 to 1000000"
            )
        }
    }

    /// How many tokens of a text are hidden, and in how many spans.
    ///
    /// - Parameter length: The text's tokens without `</s>`; at least 2.
    /// - Returns: Both numbers, at least 1 each.
    func noise(of length: Int) -> (tokens: Int, spans: Int) {
        // numpy's round: halves go to the even neighbour.
        let wanted = Int((Double(length) * self.density).rounded(.toNearestOrEven))
        let tokens = min(max(wanted, 1), length - 1)
        let least = min(tokens, length - wanted)
        let spans = Int((Double(least) / self.meanSpanLength).rounded(.toNearestOrEven))
        return (tokens, min(max(spans, 1), tokens, length - tokens))
    }

    /// How long input and target become, `</s>` included.
    ///
    /// - Parameter length: The text's tokens without `</s>`; at least 2.
    /// - Returns: Both lengths, and the sentinels that they use.
    func lengths(of length: Int) -> (input: Int, target: Int, sentinels: Int) {
        let (tokens, spans) = self.noise(of: length)
        let last = self.endsWithSentinel ? 1 : 0
        return (length - tokens + spans + 1, tokens + spans + last + 1, spans + last)
    }

    /// The longest text whose input and target stay within limits.
    ///
    /// - Parameters:
    ///   - maximumInputTokens: Tokens of an input at most, `</s>` included.
    ///   - maximumTargetTokens: Tokens of a target at most, `</s>` included.
    ///   - sentinelCount: The tokenizer's sentinels.
    /// - Returns: Tokens without `</s>`, or nil where not even a text of two fits.
    func longestText(maximumInputTokens: Int, maximumTargetTokens: Int, sentinelCount: Int) -> Int? {
        func fits(_ length: Int) -> Bool {
            let lengths = self.lengths(of: length)
            return lengths.input <= maximumInputTokens && lengths.target <= maximumTargetTokens
                && lengths.sentinels <= sentinelCount
        }
        guard fits(2) else { return nil }
        var length = 2
        while length < 1 << 20, fits(length + 1) {
            length += 1
        }
        return length
    }

    /// Which tokens of a text are hidden.
    ///
    /// - Parameters:
    ///   - length: The text's tokens; at least 2.
    ///   - random: Where the spans' lengths come from.
    /// - Returns: For each token, whether it is hidden; the first is not, the last is.
    func mask(length: Int, random: inout KeyedRandom) -> [Bool] {
        let (tokens, spans) = self.noise(of: length)
        let hidden = Self.segments(of: tokens, count: spans, random: &random)
        let shown = Self.segments(of: length - tokens, count: spans, random: &random)
        var mask: [Bool] = []
        mask.reserveCapacity(length)
        for (shown, hidden) in zip(shown, hidden) {
            mask.append(contentsOf: repeatElement(false, count: shown))
            mask.append(contentsOf: repeatElement(true, count: hidden))
        }
        return mask
    }

    /// Cuts items into segments, all cuts being equally likely.
    ///
    /// - Returns: The segments' lengths, at least 1 each.
    private static func segments(of items: Int, count: Int, random: inout KeyedRandom) -> [Int] {
        // Selection sampling (Knuth, The Art of Computer Programming, volume 2, algorithm 3.4.2 S): which of the places
        // between two items are cuts.
        var cutsLeft = count - 1
        var lengths: [Int] = []
        lengths.reserveCapacity(count)
        var length = 1
        for place in 0..<(items - 1) {
            if random.below(items - 1 - place) < cutsLeft {
                cutsLeft -= 1
                lengths.append(length)
                length = 1
            } else {
                length += 1
            }
        }
        lengths.append(length)
        return lengths
    }

    /// Makes input and target of a text.
    ///
    /// - Parameters:
    ///   - tokens: The text's tokens without `</s>`.
    ///   - mask: Which of them are hidden.
    ///   - sentinels: The ids of `<extra_id_0>`, `<extra_id_1>` and so on; as many as there are spans, and one more for
    ///     ``endsWithSentinel``.
    ///   - end: The id of `</s>`.
    /// - Returns: Input and target, `</s>` at the end of each.
    func corrupt(
        _ tokens: [Int32],
        mask: [Bool],
        sentinels: [Int32],
        end: Int32
    ) -> (input: [Int32], target: [Int32]) {
        var input: [Int32] = []
        var target: [Int32] = []
        var span = 0
        for (index, token) in tokens.enumerated() {
            guard mask[index] else {
                input.append(token)
                continue
            }
            if index == 0 || !mask[index - 1] {
                input.append(sentinels[span])
                target.append(sentinels[span])
                span += 1
            }
            target.append(token)
        }
        if self.endsWithSentinel {
            target.append(sentinels[span])
        }
        return (input + [end], target + [end])
    }

    /// The task as a text that changes when the task does.
    var canonicalText: String {
        "\(self.density.bitPattern) \(self.meanSpanLength.bitPattern) \(self.endsWithSentinel)"
    }
}
