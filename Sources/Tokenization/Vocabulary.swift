// SPDX-License-Identifier: Apache-2.0

/// Every id's text: the pieces of the file, then the sentinels.
struct Vocabulary: Sendable {
    /// One id's token.
    struct Token: Sendable {
        /// Its text, in which U+2581 means a space.
        var text: String

        /// Its score in the search for pieces.
        var score: Float

        /// Whether decoding can leave it out.
        var isSpecial: Bool
    }

    /// The tokens in the order of their ids.
    private(set) var tokens: [Token] = []

    /// The literals that are split off a text.
    private(set) var specials = SpecialTokens()

    /// The id that ends every text.
    let endID: Int32

    /// The id of text that no piece covers.
    let unknownID: Int32

    /// Lays out the ids.
    ///
    /// Sentinels follow the pieces in descending order, so that `<extra_id_0>` has the highest id: `pieces + count - 1`.
    /// A sentinel that the file has as a piece already keeps that piece's id.
    ///
    /// - Parameters:
    ///   - file: The file's pieces.
    ///   - sentinelCount: How many sentinels there are.
    /// - Throws: `WireReader.Malformed` when one of the three pieces that a T5 model needs is missing.
    init(file: PieceFile, sentinelCount: Int) throws(WireReader.Malformed) {
        var ids: [String: Int32] = [:]
        for (id, piece) in file.pieces.enumerated() {
            guard ids.updateValue(Int32(id), forKey: piece.text) == nil else {
                throw .init(message: "the piece \"\(piece.text)\" occurs twice")
            }
        }
        func id(of text: String) throws(WireReader.Malformed) -> Int32 {
            guard let id = ids[text] else { throw .init(message: "the piece \"\(text)\" is missing") }
            return id
        }
        self.endID = try id(of: "</s>")
        self.unknownID = try id(of: "<unk>")
        let named = [try id(of: "<pad>"), self.endID, self.unknownID]

        for (id, piece) in file.pieces.enumerated() {
            let isSpecial = named.contains(Int32(id)) || piece.kind == .control
            self.tokens.append(Token(text: piece.text, score: piece.score, isSpecial: isSpecial))
            if isSpecial || piece.kind == .userDefined {
                self.specials.insert(piece.text, id: Int32(id))
            }
        }
        for number in (0..<sentinelCount).reversed() {
            let text = "<extra_id_\(number)>"
            if let id = ids[text] {
                self.tokens[Int(id)].isSpecial = true
                self.specials.insert(text, id: id)
            } else {
                self.specials.insert(text, id: Int32(self.tokens.count))
                self.tokens.append(Token(text: text, score: 0, isSpecial: true))
            }
        }
    }

    /// The token of an id.
    ///
    /// - Parameter id: Any number.
    /// - Returns: The token, or nil when no token has this id.
    func token(_ id: Int32) -> Token? {
        id >= 0 && Int(id) < self.tokens.count ? self.tokens[Int(id)] : nil
    }
}
