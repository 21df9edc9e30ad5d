// SPDX-License-Identifier: Apache-2.0

/// Turns ids into text one by one, as they are generated.
///
/// What ``append(_:)`` and, at the end, ``finish()`` return, concatenated, is what
/// ``Tokenizer/decode(_:skipSpecialTokens:)`` returns for the same ids: a token's text depends only on the token and on
/// whether it comes first. Tokens are whole code points, so no text ends in the middle of one.
public struct IncrementalDecoder: Sendable {
    private static let marker: Unicode.Scalar = "\u{2581}"

    private let vocabulary: Vocabulary?
    /// Where ids stand for single characters; nil where they stand for pieces.
    private let characters: CharacterVocabulary?
    private let skipSpecialTokens: Bool
    private var isFirst = true
    private var cleaner: SpaceCleaner?

    /// Creates a decoder that has seen nothing.
    ///
    /// - Parameters:
    ///   - vocabulary: Every id's text.
    ///   - skipSpecialTokens: Whether special tokens are left out.
    ///   - cleansUpSpaces: Whether spaces in front of punctuation are left out.
    init(vocabulary: Vocabulary, skipSpecialTokens: Bool, cleansUpSpaces: Bool) {
        self.vocabulary = vocabulary
        self.characters = nil
        self.skipSpecialTokens = skipSpecialTokens
        self.cleaner = cleansUpSpaces ? SpaceCleaner() : nil
    }

    /// Creates a decoder of ids that stand for single characters.
    ///
    /// - Parameter characters: Every id's character.
    init(characters: CharacterVocabulary) {
        self.vocabulary = nil
        self.characters = characters
        self.skipSpecialTokens = false
    }

    /// Decodes the next id.
    ///
    /// - Parameter id: Any number.
    /// - Returns: The text that is decided now. It is empty for an id that has no text or is left out; where the tokenizer
    ///   cleans up spaces, the last characters come with a later id.
    public mutating func append(_ id: Int32) -> String {
        if let characters { return characters.text(of: id) ?? "" }
        guard let token = self.vocabulary?.token(id), !(self.skipSpecialTokens && token.isSpecial) else { return "" }
        defer { self.isFirst = false }
        var text = ""
        for scalar in token.text.unicodeScalars {
            if scalar != Self.marker {
                text.unicodeScalars.append(scalar)
            } else if !self.isFirst {
                text.unicodeScalars.append(" ")
            }
        }
        return self.cleaner?.feed(text) ?? text
    }

    /// Ends the text.
    ///
    /// - Returns: The text that was held back; empty unless the tokenizer cleans up spaces.
    public mutating func finish() -> String {
        self.cleaner?.finish() ?? ""
    }
}
