// SPDX-License-Identifier: Apache-2.0

public import Checkpoints

/// What generation needs to know about a model's vocabulary.
public struct GenerationVocabulary: Sendable, Hashable {
    /// The number of tokens, and so of scores per row.
    public var size: Int

    /// The token that every sequence starts from.
    public var startTokenID: Int32

    /// The token that ends a sequence.
    public var endTokenID: Int32

    /// Creates a description.
    ///
    /// - Parameters:
    ///   - size: The number of tokens.
    ///   - startTokenID: The token that every sequence starts from, below `size`.
    ///   - endTokenID: The token that ends a sequence, below `size`.
    public init(size: Int, startTokenID: Int32, endTokenID: Int32) {
        self.size = size
        self.startTokenID = startTokenID
        self.endTokenID = endTokenID
    }

    /// Reads the vocabulary from a model's configuration.
    ///
    /// - Parameter configuration: The model's configuration.
    public init(_ configuration: ModelConfiguration) {
        // An id that does not fit in Int32 is beyond every vocabulary, and the session reports it.
        self.init(
            size: configuration.vocabularySize,
            startTokenID: Int32(clamping: configuration.decoderStartTokenID),
            endTokenID: Int32(clamping: configuration.endTokenID)
        )
    }
}
