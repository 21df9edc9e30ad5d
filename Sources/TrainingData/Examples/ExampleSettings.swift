// SPDX-License-Identifier: Apache-2.0

/// How lines become examples.
public struct ExampleSettings: Sendable, Hashable {
    /// What happens to an input or a target that is longer than its limit.
    public enum LengthRule: String, Sendable, Hashable, CaseIterable {
        /// Its line cannot be used.
        case refuse
        /// Its first tokens are used, with `</s>` at the end, as tokenizers of transformers do with `truncation=True`.
        case cut
    }

    /// What happens to a line that cannot be used.
    public enum FaultRule: String, Sendable, Hashable, CaseIterable {
        /// It is counted and left out.
        case count
        /// The run ends with an error. Blank lines of plain text are still only counted: they part paragraphs.
        case fail
    }

    /// How a line holds an example.
    public var format: ExampleFormat

    /// Text in front of each input, such as `summarize: `; not for plain text.
    public var inputPrefix: String = ""

    /// Tokens of an input at most, `</s>` included.
    public var maximumInputTokens = 512

    /// Tokens of a target at most, `</s>` included.
    public var maximumTargetTokens = 512

    /// What happens to an input or a target that is longer; not for plain text, whose long lines are cut into several
    /// examples.
    public var lengthRule = LengthRule.refuse

    /// How plain text becomes input and target.
    public var corruption = SpanCorruption.t5

    /// Whether consecutive lines of plain text, in the epoch's order, become one example as long as they fit.
    ///
    /// Lines are put together without anything between them, as T5 does (`reduce_concat_tokens`).
    public var joinsLines = true

    /// What happens to a line that cannot be used.
    public var faultRule = FaultRule.count

    /// Creates settings with the defaults.
    ///
    /// - Parameter format: How a line holds an example.
    public init(format: ExampleFormat) {
        self.format = format
    }

    /// The tokens of a limit at most: far more than any T5 was trained with.
    private static let mostTokens = 1 << 16

    /// Checks the settings.
    func check() throws(DataError) {
        try self.format.check()
        try self.corruption.check()
        for (name, value) in [("input", self.maximumInputTokens), ("target", self.maximumTargetTokens)]
        where value < 2 || value > Self.mostTokens {
            throw DataError(
                .invalidSettings,
                "the limit of \(name) tokens is \(value); it must be from 2 to \(Self.mostTokens)"
            )
        }
        if case .text = self.format, !self.inputPrefix.isEmpty {
            throw DataError(.invalidSettings, "plain text takes no input prefix; leave it out")
        }
    }

    /// All that decides which examples lines become, as a text.
    var canonicalText: String {
        [
            self.format.canonicalText, self.inputPrefix.debugDescription, "\(self.maximumInputTokens)",
            "\(self.maximumTargetTokens)", self.lengthRule.rawValue, self.corruption.canonicalText,
            "\(self.joinsLines)",
        ]
        .joined(separator: " ")
    }
}
