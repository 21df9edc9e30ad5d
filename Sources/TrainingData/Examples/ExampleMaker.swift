// SPDX-License-Identifier: Apache-2.0

internal import Tokenization

/// Makes examples of lines: no order, no position, no file.
struct ExampleMaker: Sendable {
    let settings: ExampleSettings
    let tokenizer: Tokenizer
    /// The id that ends inputs and targets.
    private let end: Int32
    /// The ids of `<extra_id_0>` and so on.
    private let sentinels: [Int32]
    /// Tokens of an example of plain text at most, before any is hidden.
    let longestText: Int

    /// Checks the settings against the tokenizer.
    ///
    /// - Parameters:
    ///   - settings: How lines become examples.
    ///   - tokenizer: The model's tokenizer.
    /// - Throws: ``DataError`` when they do not fit.
    init(settings: ExampleSettings, tokenizer: Tokenizer) throws(DataError) {
        try settings.check()
        self.settings = settings
        self.tokenizer = tokenizer
        if case .next = settings.format {
            // Windows begin and end anywhere, with no token of their own.
            self.end = 0
            self.sentinels = []
            self.longestText = 0
            return
        }
        guard let end = tokenizer.endTokenID else {
            throw DataError(
                .invalidSettings,
                "inputs and targets end with an end token, and a tokenizer of single characters has none; train such a model on "
                    + "a text"
            )
        }
        self.end = end
        guard case .text = settings.format else {
            self.sentinels = []
            self.longestText = 0
            return
        }
        let sentinels = (0..<tokenizer.vocabularySize).lazy.map { tokenizer.sentinelID($0) }
            .prefix { $0 != nil }
            .compactMap { $0 }
        guard
            let longest = settings.corruption.longestText(
                maximumInputTokens: settings.maximumInputTokens,
                maximumTargetTokens: settings.maximumTargetTokens,
                sentinelCount: sentinels.count
            )
        else {
            throw DataError(
                .invalidSettings,
                "span corruption needs sentinels and room for two tokens; the tokenizer has \(sentinels.count) sentinels, "
                    + "inputs may have \(settings.maximumInputTokens) tokens and targets \(settings.maximumTargetTokens)"
            )
        }
        self.sentinels = Array(sentinels)
        self.longestText = longest
    }

    /// The tokens of a line of plain text, without `</s>`.
    ///
    /// - Parameter content: The line.
    /// - Returns: The tokens; at least one.
    /// - Throws: Why the line cannot be used.
    func tokens(of content: LineContent) throws(LineFault.Reason) -> [Int32] {
        guard case .text(let text) = try LineTexts(content, .text) else { return [] }
        let tokens = self.tokenizer.encode(text).dropLast()
        guard !tokens.isEmpty else { throw .empty }
        return Array(tokens)
    }

    /// How many examples a line of plain text becomes.
    ///
    /// - Parameter count: The line's tokens.
    /// - Returns: The examples.
    func parts(of count: Int) -> Int {
        max(1, (count + self.longestText - 1) / self.longestText)
    }

    /// One of a long line's parts, which are as even as can be.
    ///
    /// - Parameters:
    ///   - part: Which part.
    ///   - tokens: The line's tokens.
    /// - Returns: The part's tokens.
    func part(_ part: Int, of tokens: [Int32]) -> [Int32] {
        let parts = self.parts(of: tokens.count)
        return Array(tokens[(tokens.count * part / parts)..<(tokens.count * (part + 1) / parts)])
    }

    /// Hides spans of a text.
    ///
    /// - Parameters:
    ///   - tokens: The text's tokens without `</s>`, at most ``longestText``.
    ///   - line: The line that it comes from, and which of its parts it is.
    ///   - seed: The run's seed.
    ///   - epoch: Which pass over the data.
    /// - Returns: The example.
    /// - Throws: Why it cannot be used.
    func corrupted(
        _ tokens: [Int32],
        line: (index: Int, part: Int),
        seed: UInt64,
        epoch: Int
    ) throws(LineFault.Reason) -> TokenizedExample {
        guard tokens.count >= 2 else { throw .tooShort(tokens: tokens.count) }
        let task = self.settings.corruption
        var random = KeyedRandom(key: seed, UInt64(epoch), UInt64(line.index), UInt64(line.part))
        let (input, target) = task.corrupt(
            tokens,
            mask: task.mask(length: tokens.count, random: &random),
            sentinels: self.sentinels,
            end: self.end
        )
        return TokenizedExample(input: input, target: target, line: line.index)
    }

    /// The example of a window of text: tokens, and what follows each of them.
    ///
    /// - Parameters:
    ///   - content: The window, as ``TextWindows`` gives it.
    ///   - line: Its index.
    ///   - random: Where in it the example begins; at its beginning where nil, which is a draw as labml's
    ///     `is_random_offset` makes it otherwise.
    /// - Returns: The example.
    /// - Throws: Why the window cannot be used.
    func window(
        _ content: LineContent,
        line: Int,
        random: KeyedRandom?
    ) throws(LineFault.Reason) -> TokenizedExample {
        guard case .next(let length) = self.settings.format, case .bytes(let bytes) = content else { throw .empty }
        let tokens: [Int32]
        do throws(TokenizerError) {
            tokens = try self.tokenizer.encode(utf8: bytes)
        } catch {
            throw .notEncodable("\(error)")
        }
        guard tokens.count > length else { throw .tooShort(tokens: tokens.count) }
        var random = random
        let start = random?.below(min(length, tokens.count - length)) ?? 0
        return TokenizedExample(
            input: Array(tokens[start..<start + length]),
            target: Array(tokens[start + 1...start + length]),
            line: line
        )
    }

    /// The example of a line that holds input and target.
    ///
    /// - Parameters:
    ///   - content: The line.
    ///   - line: Its index.
    /// - Returns: The example.
    /// - Throws: Why the line cannot be used.
    func pair(_ content: LineContent, line: Int) throws(LineFault.Reason) -> TokenizedExample {
        guard case .pair(let input, let target) = try LineTexts(content, self.settings.format) else {
            throw .empty
        }
        return TokenizedExample(
            input: try self.ids(self.settings.inputPrefix + input, self.settings.maximumInputTokens, "input"),
            target: try self.ids(target, self.settings.maximumTargetTokens, "target"),
            line: line
        )
    }

    private func ids(_ text: String, _ limit: Int, _ field: String) throws(LineFault.Reason) -> [Int32] {
        let ids = self.tokenizer.encode(text)
        guard ids.count > limit else { return ids }
        switch self.settings.lengthRule {
        case .refuse: throw .tooManyTokens(field: field, ids.count, limit: limit)
        case .cut: return ids.prefix(limit - 1) + [self.end]
        }
    }
}
