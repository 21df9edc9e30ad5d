// SPDX-License-Identifier: Apache-2.0

/// The added tokens of a tokenizer, and where they are in a text.
///
/// Does what the tokenizers library does, including what it does when a token is added twice
/// (https://github.com/huggingface/tokenizers/blob/v0.23.1/tokenizers/src/tokenizer/added_vocabulary.rs): tokens that are
/// not normalized are looked for in the text as it is; what lies between them is normalized, and the others are looked
/// for in that. Of tokens that begin at one place the longest counts. A match that `single_word` discards is passed over
/// as a whole. The library fails on a few texts in which one token takes white space that another one consists of; here
/// each of the two is given.
struct AddedVocabulary: Sendable {
    /// A part of a text.
    enum Part: Equatable {
        /// Text without a token.
        case text(Range<Int>)

        /// A token's id.
        case token(Int32)
    }

    /// The text that each added token's id decodes to: the normalized text where that is what is looked for.
    private(set) var texts: [Int32: String] = [:]

    /// The latest token of each id.
    private var tokens: [Int32: AddedToken] = [:]

    /// Whether special tokens are not looked for.
    let splitsSpecialTokens: Bool

    private var ids: [[UInt8]: Int32] = [:]
    private var specialContents: Set<[UInt8]> = []
    private var raw = LiteralTrie()
    private var normalized = LiteralTrie()

    /// Adds tokens to a vocabulary.
    ///
    /// A token whose text is a piece has the piece's id; the others get the next free ids in the order given.
    ///
    /// - Parameters:
    ///   - added: The tokens, in the order in which they are added.
    ///   - pieceIDs: The id of each piece's text.
    ///   - pieceCount: The number of pieces.
    ///   - splitsSpecialTokens: Whether special tokens are plain text.
    ///   - normalize: Normalizes UTF-8.
    /// - Throws: `TokenizerFileFault` for a token without text.
    init(
        _ added: [AddedToken],
        pieceIDs: [[UInt8]: Int32],
        pieceCount: Int,
        splitsSpecialTokens: Bool,
        normalize: ([UInt8]) -> [UInt8]
    ) throws(TokenizerFileFault) {
        self.splitsSpecialTokens = splitsSpecialTokens
        var specials: [AddedToken] = []
        var others: [AddedToken] = []
        for token in added where token.isSpecial && !token.content.isEmpty {
            if self.specialContents.insert(token.key).inserted { specials.append(token) }
        }
        var next = Int32(pieceCount)
        for token in added where !token.content.isEmpty {
            let key = token.key
            let id: Int32
            if let known = self.ids[key] ?? pieceIDs[key] {
                id = known
                guard self.tokens[id] != token else { continue }
            } else {
                id = next
                next += 1
            }
            self.ids[key] = id
            self.tokens[id] = token
            if !self.specialContents.contains(key) { others.append(token) }
        }
        for token in specials + others {
            guard let id = self.ids[token.key] else { continue }
            guard token.isNormalized else {
                self.raw.insert(token.key, id: id)
                self.texts[id] = token.content
                continue
            }
            let content = normalize(token.key)
            guard !content.isEmpty else {
                throw .init(
                    "the added token \"\(token.content)\" is normalized to nothing, so that it is in every text everywhere;"
                        + " add it with \"normalized\": false"
                )
            }
            self.normalized.insert(content, id: id)
            self.texts[id] = String(decoding: content, as: UTF8.self)
        }
    }

    /// The id of an added token.
    ///
    /// - Parameter content: The token's text.
    /// - Returns: The id, or nil when no such token was added.
    func id(of content: String) -> Int32? {
        self.ids[Array(content.utf8)]
    }

    /// Whether decoding can leave a text out; it cannot where normalization has changed the text of a special token.
    ///
    /// - Parameter content: The text that an id decodes to.
    /// - Returns: Whether a special token has this text.
    func isSpecial(_ content: String) -> Bool {
        self.specialContents.contains(Array(content.utf8))
    }

    /// Splits off the tokens that are looked for in a text as it is.
    ///
    /// - Parameter text: Well-formed UTF-8.
    /// - Returns: The parts in order, none of them empty.
    func rawParts(of text: UnsafeBufferPointer<UInt8>) -> [Part] {
        self.parts(of: text, self.raw)
    }

    /// Splits off the tokens that are looked for in normalized text.
    ///
    /// - Parameter text: Well-formed UTF-8.
    /// - Returns: The parts in order, none of them empty.
    func normalizedParts(of text: UnsafeBufferPointer<UInt8>) -> [Part] {
        self.parts(of: text, self.normalized)
    }

    private func parts(of text: UnsafeBufferPointer<UInt8>, _ literals: LiteralTrie) -> [Part] {
        var parts: [Part] = []
        var taken = 0
        var position = 0
        // White space that a token took, kept so that a long run is read once however many tokens are in it.
        var run = 0..<0
        while let match = literals.firstMatch(in: text, from: position) {
            position = match.range.upperBound
            guard let token = self.tokens[match.id] else { continue }
            if self.splitsSpecialTokens, self.specialContents.contains(token.key) { continue }
            if token.isSingleWord, Self.touchesWord(text, match.range) { continue }
            var start = match.range.lowerBound
            var stop = match.range.upperBound
            if token.stripsLeft {
                start = taken > start ? taken : Self.whiteSpaceStart(text, before: start, notBefore: taken)
            }
            if token.stripsRight {
                if !run.contains(stop) { run = stop..<Self.whiteSpaceEnd(text, from: stop) }
                stop = run.isEmpty ? stop : run.upperBound
            }
            if taken < start { parts.append(.text(taken..<start)) }
            if start != stop { parts.append(.token(match.id)) }
            taken = stop
        }
        if taken < text.count { parts.append(.text(taken..<text.count)) }
        return parts
    }

    private static func touchesWord(_ text: UnsafeBufferPointer<UInt8>, _ range: Range<Int>) -> Bool {
        let before = Self.scalar(text, before: range.lowerBound)
        let after = range.upperBound < text.count ? Self.scalar(text, at: range.upperBound) : nil
        return [before, after].contains { $0.map(Self.isWordCharacter) ?? false }
    }

    /// Whether a scalar is one of `\w`, as Unicode's regular expressions define it
    /// (https://www.unicode.org/reports/tr18/#word).
    private static func isWordCharacter(_ scalar: Unicode.Scalar) -> Bool {
        let properties = scalar.properties
        switch properties.generalCategory {
        case .nonspacingMark, .spacingMark, .enclosingMark, .decimalNumber, .connectorPunctuation: return true
        default: return properties.isAlphabetic || properties.isJoinControl
        }
    }

    private static func whiteSpaceStart(
        _ text: UnsafeBufferPointer<UInt8>,
        before end: Int,
        notBefore limit: Int
    ) -> Int {
        var start = end
        while start > limit, let scalar = Self.scalar(text, before: start), scalar.properties.isWhitespace {
            start -= UTF8.width(scalar)
        }
        return start
    }

    private static func whiteSpaceEnd(_ text: UnsafeBufferPointer<UInt8>, from start: Int) -> Int {
        var end = start
        while end < text.count, let scalar = Self.scalar(text, at: end), scalar.properties.isWhitespace {
            end += UTF8.width(scalar)
        }
        return end
    }

    private static func scalar(_ text: UnsafeBufferPointer<UInt8>, at index: Int) -> Unicode.Scalar? {
        String(decoding: text[index..<min(index + 4, text.count)], as: UTF8.self).unicodeScalars.first
    }

    private static func scalar(_ text: UnsafeBufferPointer<UInt8>, before end: Int) -> Unicode.Scalar? {
        var start = end - 1
        while start > 0, text[start] & 0xC0 == 0x80 { start -= 1 }
        return start < 0 ? nil : String(decoding: text[start..<end], as: UTF8.self).unicodeScalars.last
    }
}
