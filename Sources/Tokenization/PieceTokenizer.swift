// SPDX-License-Identifier: Apache-2.0

/// The tokenizer of T5 models: normalization, added tokens, words, and pieces by libsentencepiece.
struct PieceTokenizer: Sendable {
    let vocabulary: Vocabulary
    let cleansUpSpaces: Bool
    private let characterMap: CharacterMap
    private let pieces: PieceModel

    /// Puts a tokenizer together.
    ///
    /// - Parameters:
    ///   - definition: The pieces, the added tokens and the rules.
    ///   - path: The file that errors name.
    /// - Throws: `TokenizerError` that names the file when it is malformed.
    init(_ definition: TokenizerDefinition, path: String) throws(TokenizerError) {
        do {
            let map = try CharacterMap(table: definition.characterMap)
            self.characterMap = map
            self.vocabulary = try Vocabulary(definition) { text in text.withUnsafeBufferPointer(map.normalize) }
            // After the vocabulary, which has made sure that there is a piece for unknown text.
            self.pieces = try PieceModel(pieces: definition.pieces, unknownID: Int(Vocabulary.unknownID))
            self.cleansUpSpaces = definition.cleansUpSpaces
        } catch let error as WireReader.Malformed {
            throw TokenizerError(.malformedFile, TokenizerFolder.notPieces(error.message), file: path)
        } catch let error as TokenizerFileFault {
            throw TokenizerError(.malformedFile, error.message, file: path)
        } catch {
            throw TokenizerError(.malformedFile, "\(error)", file: path)
        }
    }

    /// Encodes well-formed UTF-8; `</s>` ends the ids.
    func encode(
        wellFormed text: UnsafeBufferPointer<UInt8>,
        limits: TextLimits = TextLimits(),
        isCancelled: () -> Bool = { false }
    ) throws(TokenizerError) -> [Int32] {
        var ids: [Int32] = []
        ids.reserveCapacity(min(text.count / 3 + 2, limits.ids))
        var scratch: [Int32] = []
        var bytesLeft = limits.normalizedBytes
        for part in self.vocabulary.added.rawParts(of: text) {
            switch part {
            case .token(let id):
                ids.append(id)
            case .text(let range):
                let segment = self.characterMap.normalize(
                    UnsafeBufferPointer(rebasing: text[range]),
                    atMost: bytesLeft
                )
                guard segment.count <= bytesLeft else {
                    throw TokenizerError(
                        .tooLong,
                        "has more than \(limits.normalizedBytes) bytes once it is normalized, which is the limit; send a shorter text"
                    )
                }
                bytesLeft -= segment.count
                try self.encode(segment: segment, into: &ids, scratch: &scratch, limits, isCancelled)
            }
            try Self.check(ids, limits)
        }
        ids.append(self.vocabulary.endID)
        try Self.check(ids, limits)
        return ids
    }

    private static func check(_ ids: [Int32], _ limits: TextLimits) throws(TokenizerError) {
        guard ids.count > limits.ids else { return }
        throw TokenizerError(.tooLong, "has more than \(limits.ids) tokens, which is the limit; send a shorter text")
    }

    /// Encodes normalized text.
    private func encode(
        segment: [UInt8],
        into ids: inout [Int32],
        scratch: inout [Int32],
        _ limits: TextLimits,
        _ isCancelled: () -> Bool
    ) throws(TokenizerError) {
        for part in segment.withUnsafeBufferPointer(self.vocabulary.added.normalizedParts) {
            switch part {
            case .token(let id):
                ids.append(id)
            case .text(let range):
                let words = Words(range.count == segment.count ? segment : Array(segment[range]))
                for index in 0..<words.count {
                    guard !isCancelled() else { throw TokenizerError(.cancelled, "is no longer wanted") }
                    try words.withWord(index) { (word) throws(TokenizerError) in
                        guard word.count <= limits.wordBytes else {
                            throw TokenizerError(
                                .tooLong,
                                "has a word of \(word.count) bytes once it is normalized; the limit is \(limits.wordBytes); cut it "
                                    + "with spaces"
                            )
                        }
                        try self.pieces.encode(word, into: &ids, scratch: &scratch)
                    }
                    try Self.check(ids, limits)
                }
            }
        }
    }
}
