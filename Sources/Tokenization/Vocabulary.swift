// SPDX-License-Identifier: Apache-2.0

/// Every id's text: the pieces, then the added tokens that are no pieces.
struct Vocabulary: Sendable {
    /// One id's token.
    struct Token: Sendable {
        /// Its text, in which U+2581 means a space.
        var text: String

        /// Whether decoding can leave it out.
        var isSpecial: Bool
    }

    /// The id of text that no piece covers; in a T5 tokenizer it is always this one.
    static let unknownID: Int32 = 2

    /// The tokens in the order of their ids.
    let tokens: [Token]

    /// The tokens that are split off a text.
    let added: AddedVocabulary

    /// The id that ends every text.
    let endID: Int32

    /// Lays out the ids.
    ///
    /// - Parameters:
    ///   - definition: The pieces and the added tokens.
    ///   - normalize: Normalizes UTF-8.
    /// - Throws: `TokenizerFileFault` when the pieces are too few, or a token is unusable.
    init(_ definition: TokenizerDefinition, normalize: ([UInt8]) -> [UInt8]) throws(TokenizerFileFault) {
        let pieces = definition.pieces
        guard pieces.count > Int(Self.unknownID) else {
            throw .init("\(pieces.count) pieces, where the piece with the id \(Self.unknownID) means unknown text")
        }
        var ids: [[UInt8]: Int32] = [:]
        for (id, piece) in pieces.enumerated() {
            // Of equal pieces the last one counts.
            ids[Array(piece.text.utf8)] = Int32(id)
        }
        let added = try AddedVocabulary(
            definition.added,
            pieceIDs: ids,
            pieceCount: pieces.count,
            splitsSpecialTokens: definition.splitsSpecialTokens,
            normalize: normalize
        )
        let count = max(pieces.count, added.texts.keys.max().map { Int($0) + 1 } ?? 0)
        let tokens = (0..<count)
            .map { id in
                let text = added.texts[Int32(id)] ?? (id < pieces.count ? pieces[id].text : "")
                return Token(text: text, isSpecial: added.isSpecial(text))
            }
        guard let end = added.id(of: definition.endText) else {
            throw .init("the token \"\(definition.endText)\" that ends a text is missing")
        }
        self.tokens = tokens
        self.added = added
        self.endID = end
    }

    /// The token of an id.
    ///
    /// - Parameter id: Any number.
    /// - Returns: The token, or nil when no token has this id.
    func token(_ id: Int32) -> Token? {
        id >= 0 && Int(id) < self.tokens.count ? self.tokens[Int(id)] : nil
    }
}
