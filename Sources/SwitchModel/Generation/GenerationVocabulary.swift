// SPDX-License-Identifier: Apache-2.0

public import Checkpoints

/// What generation needs to know about a model's vocabulary.
public struct GenerationVocabulary: Sendable, Hashable {
    /// The number of tokens, and so of scores per row.
    public var size: Int

    /// The token that every sequence starts from.
    public var startTokenID: Int32

    /// The tokens that end a sequence; all of them count alike in lengths, beams and scores.
    ///
    /// Without any, only the greatest length ends a sequence.
    public var endTokenIDs: [Int32]

    /// The padding token; nil where the model names none.
    public var padTokenID: Int32?

    /// Creates a description.
    ///
    /// - Parameters:
    ///   - size: The number of tokens.
    ///   - startTokenID: The token that every sequence starts from, below `size`.
    ///   - endTokenIDs: The tokens that end a sequence, each below `size`.
    public init(size: Int, startTokenID: Int32, endTokenIDs: [Int32]) {
        self.size = size
        self.startTokenID = startTokenID
        self.endTokenIDs = endTokenIDs
    }

    /// Creates a description with one end token.
    ///
    /// - Parameters:
    ///   - size: The number of tokens.
    ///   - startTokenID: The token that every sequence starts from, below `size`.
    ///   - endTokenID: The token that ends a sequence, below `size`.
    public init(size: Int, startTokenID: Int32, endTokenID: Int32) {
        self.init(size: size, startTokenID: startTokenID, endTokenIDs: [endTokenID])
    }

    /// Reads the vocabulary from a model's configuration.
    ///
    /// - Parameter configuration: The model's configuration.
    public init(_ configuration: ModelConfiguration) {
        // An id that does not fit in Int32 is beyond every vocabulary, and the session reports it.
        self.init(
            size: configuration.vocabularySize,
            startTokenID: Int32(clamping: configuration.decoderStartTokenID),
            endTokenIDs: configuration.generation.endTokenIDs.map { Int32(clamping: $0) }
        )
        self.padTokenID = configuration.generation.padTokenID.map { Int32(clamping: $0) }
    }

    /// The token that fills the rows of sequences that have ended: as in transformers, the first end token where the model
    /// names no padding token.
    var paddingTokenID: Int32 { self.padTokenID ?? self.endTokenIDs.first ?? 0 }

    /// How many continuations a beam search looks at for each beam, so that one at least goes on.
    ///
    /// As in transformers, two where no token ends a sequence.
    var continuationsPerBeam: Int { max(2, 1 + self.endTokenIDs.count) }

    /// Whether a token ends a sequence.
    ///
    /// - Parameter id: The token.
    /// - Returns: Whether it is one of ``endTokenIDs``.
    func isEnd(_ id: Int32) -> Bool { self.endTokenIDs.contains(id) }
}
