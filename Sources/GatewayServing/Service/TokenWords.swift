// SPDX-License-Identifier: Apache-2.0

internal import Tokenization

/// The texts of tokens by themselves, for answers that name tokens.
public struct TokenWords: Sendable {
    let tokenizer: Tokenizer?

    /// The text that each token of a sequence adds; joined it is the sequence's text, as far as no stop string cut it.
    ///
    /// - Parameter ids: The sequence.
    /// - Returns: One text for each token; empty texts for a model without a tokenizer.
    public func texts(of ids: [UInt32]) -> [String] {
        guard var decoder = self.tokenizer?.makeDecoder() else { return ids.map { _ in "" } }
        var texts = ids.map { decoder.append(Int32(clamping: $0)) }
        if !texts.isEmpty { texts[texts.count - 1] += decoder.finish() }
        return texts
    }

    /// The text of a token in the middle of a sequence.
    ///
    /// - Parameter id: The token.
    /// - Returns: Its text, a space in place of the tokenizer's mark; its number for a model without a tokenizer.
    public func text(of id: UInt32) -> String {
        guard let text = self.tokenizer?.token(Int32(clamping: id)) else { return "\(id)" }
        return text.replacing("\u{2581}", with: " ")
    }

    /// Whether a token is a special one, such as the end of a sequence or a sentinel.
    ///
    /// - Parameter id: The token.
    /// - Returns: Whether a text without special tokens would leave it out.
    public func isSpecial(_ id: UInt32) -> Bool {
        guard let tokenizer = self.tokenizer else { return false }
        let ids = [Int32(clamping: id)]
        return !tokenizer.decode(ids).isEmpty && tokenizer.decode(ids, skipSpecialTokens: true).isEmpty
    }

    /// The token that the tokenizer adds to a text's end; nil if it adds none, or if there is no tokenizer.
    public var addedTokenID: UInt32? { self.tokenizer?.endTokenID.map { UInt32(bitPattern: $0) } }
}
