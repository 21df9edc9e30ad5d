// SPDX-License-Identifier: Apache-2.0

/// All that a tokenizer is made of, wherever it was read from.
struct TokenizerDefinition: Sendable {
    /// One piece of the vocabulary; its id is its place.
    struct Piece: Sendable {
        /// The text, in which U+2581 means a space.
        ///
        /// Of pieces with the same text the last one is found in texts.
        var text: String

        /// The log probability.
        var score: Float
    }

    /// The pieces in the order of their ids.
    var pieces: [Piece]

    /// SentencePiece's table of normalizations; empty changes nothing.
    var characterMap: [UInt8] = []

    /// The added tokens in the order in which they get ids.
    var added: [AddedToken] = []

    /// The text of the token that ends every text.
    var endText = "</s>"

    /// Whether special tokens in a text are plain text.
    var splitsSpecialTokens = false

    /// Whether decoding takes out spaces in front of punctuation.
    var cleansUpSpaces = false
}

extension TokenizerDefinition {
    /// Puts the parts of a tokenizer together as `T5Tokenizer` does.
    ///
    /// - Parameters:
    ///   - pieceFile: What `spiece.model` says.
    ///   - settings: What the other files say.
    /// - Throws: `TokenizerFileFault` when the two contradict each other.
    init(_ pieceFile: PieceFile, _ settings: TokenizerSettings) throws(TokenizerFileFault) {
        let pieceTokens =
            pieceFile.pieces.filter { $0.kind == .control || $0.kind == .userDefined }
            .map { AddedToken(content: $0.text, normalized: false, isSpecial: $0.kind == .control) }
        self.init(
            pieces: pieceFile.pieces.map { Piece(text: $0.text, score: $0.score) },
            characterMap: pieceFile.characterMap
        )
        // Appended even where the file has pieces of these names, which then are found no more.
        self.pieces += (0..<settings.sentinelCount).reversed()
            .map { Piece(text: TokenizerSettings.sentinel($0), score: 0) }
        try self.take(settings, additional: pieceTokens.map(TokenizerSettings.Name.token))
    }

    /// Puts the parts of a tokenizer together as `T5Tokenizer` does.
    ///
    /// - Parameters:
    ///   - file: What `tokenizer.json` says.
    ///   - settings: What the other files say.
    /// - Throws: `TokenizerFileFault` when the two contradict each other.
    init(_ file: TokenizerJSON, _ settings: TokenizerSettings) throws(TokenizerFileFault) {
        self.init(pieces: file.pieces, characterMap: file.characterMap)
        try self.take(settings, additional: settings.additional)
    }

    private mutating func take(
        _ settings: TokenizerSettings,
        additional: [TokenizerSettings.Name]?
    ) throws(TokenizerFileFault) {
        self.added = try settings.addedTokens(additional: additional)
        self.endText = settings.endText
        self.splitsSpecialTokens = settings.splitsSpecialTokens
        self.cleansUpSpaces = settings.cleansUpSpaces
    }
}
