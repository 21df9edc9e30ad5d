// SPDX-License-Identifier: Apache-2.0

/// What a text may cost to encode.
///
/// Normalization can make a text many times longer (the ligature U+FDFA becomes 18 letters), and the search for a word's
/// pieces takes time and about a hundred bytes of memory for each byte of the word. So a text's own length bounds neither.
public struct TextLimits: Sendable, Hashable {
    /// Ids, the end token included; encoding stops at the first one beyond.
    public var ids = Int.max

    /// Bytes of the text once it is normalized.
    public var normalizedBytes = Int.max

    /// Bytes of one word, which ends at white space, once it is normalized.
    public var wordBytes = Int.max

    /// No limits.
    public init() {}

    /// The limits for texts of callers who do not pay for the processor.
    ///
    /// A text of as many tokens as are allowed has 4 bytes per token on average and 16 at most, except where it consists of
    /// letters that no piece covers.
    ///
    /// - Parameter ids: Ids that are allowed, the end token included.
    public init(ids: Int) {
        self.ids = ids
        self.normalizedBytes = max(1 << 16, ids.multipliedReportingOverflow(by: 32).overflow ? .max : 32 * ids)
        self.wordBytes = max(1 << 14, self.normalizedBytes / 4)
    }
}
