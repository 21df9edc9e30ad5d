// SPDX-License-Identifier: Apache-2.0

private import Foundation

/// A model's tokenizer: text to ids and back.
///
/// That of T5 models, and so of Switch Transformers, gives the ids and texts that `T5Tokenizer` of transformers 5.23 gives
/// (https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/models/t5/tokenization_t5.py):
///
/// 1. Added tokens are split off: `<pad>`, `</s>`, `<unk>`, the sentinels `<extra_id_0>`, `<extra_id_1>` and so on, and
///    what the checkpoint adds. `<extra_id_07>` is plain text.
/// 2. Each segment between them is normalized (``CharacterMap``). Added tokens that are looked for in normalized text
///    are split off now, and the rest is cut into words at white space, and a word at every U+2581; each word gets U+2581
///    in front unless it begins with one.
/// 3. libsentencepiece finds each word's pieces. Letters that no piece covers become one unknown piece (id 2).
/// 4. `</s>` ends the ids.
///
/// A tokenizer of single characters, as labml's models have, gives each code point the id of its place in a list, and adds
/// nothing.
///
/// As in transformers, the sentinels take part in the search of step 3 with a score of 0. That shows only for text that
/// becomes a sentinel by normalization, such as one in full-width letters.
public final class Tokenizer: Sendable {
    /// The file that holds the pieces where there is no `tokenizer.json`.
    public static let pieceFileName = TokenizerFolder.pieceName

    /// How many sentinels a tokenizer has by default.
    public static let defaultSentinelCount = TokenizerSettings.defaultSentinelCount

    /// What ids stand for.
    private enum Kind: Sendable {
        /// Pieces of words, as T5 models have them.
        case pieces(PieceTokenizer)
        /// Single characters.
        case characters(CharacterVocabulary)
    }

    private let kind: Kind

    /// Reads a tokenizer from a checkpoint's directory.
    ///
    /// The pieces come from `tokenizer.json` or else from `spiece.model`, and settings and added tokens from
    /// `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json` where they are there, as transformers
    /// takes them.
    ///
    /// - Parameter directory: The directory's path.
    /// - Throws: `TokenizerError` that names the file when one is missing or malformed.
    public convenience init(directory: String) throws(TokenizerError) {
        let configuration = directory + "/" + TokenizerFolder.configurationName
        if let characters = try CharacterVocabulary.listed(in: configuration) {
            try self.init(characters: characters, path: configuration)
            return
        }
        guard let found = try TokenizerFolder.definition(in: directory) else {
            throw TokenizerError(
                .unreadableFile,
                "is not there, and neither is \(TokenizerFolder.jsonName); copy the checkpoint's tokenizer files",
                file: directory + "/" + Self.pieceFileName
            )
        }
        try self.init(found.definition, path: found.path)
    }

    /// Reads the tokenizer of a checkpoint that may have none.
    ///
    /// A model of single characters lists them in its `config.json`, as `characters`.
    ///
    /// - Parameter directory: The directory's path.
    /// - Returns: The tokenizer; nil where there are no characters, no `tokenizer.json` and no `spiece.model`.
    /// - Throws: `TokenizerError` that names the file when one is malformed.
    public static func find(in directory: String) throws(TokenizerError) -> Tokenizer? {
        let configuration = directory + "/" + TokenizerFolder.configurationName
        if let characters = try CharacterVocabulary.listed(in: configuration) {
            return try Tokenizer(characters: characters, path: configuration)
        }
        guard let found = try TokenizerFolder.definition(in: directory) else { return nil }
        return try Tokenizer(found.definition, path: found.path)
    }

    /// Makes a tokenizer of a `spiece.model`'s content.
    ///
    /// - Parameters:
    ///   - pieceFile: The file's bytes.
    ///   - path: The file's name in errors.
    ///   - sentinelCount: How many sentinels follow the pieces.
    /// - Throws: `TokenizerError` that names the file when it is malformed.
    public convenience init(
        pieceFile: [UInt8],
        path: String = Tokenizer.pieceFileName,
        sentinelCount: Int = Tokenizer.defaultSentinelCount
    ) throws(TokenizerError) {
        let file = try TokenizerFolder.pieceFile(pieceFile, path: path)
        var settings = TokenizerSettings()
        settings.sentinelCount = sentinelCount
        let definition: TokenizerDefinition
        do {
            definition = try TokenizerDefinition(file, settings)
        } catch {
            throw TokenizerError(.malformedFile, error.message, file: path)
        }
        try self.init(definition, path: path)
    }

    private init(_ definition: TokenizerDefinition, path: String) throws(TokenizerError) {
        self.kind = .pieces(try PieceTokenizer(definition, path: path))
    }

    /// Makes a tokenizer of single characters.
    ///
    /// - Parameters:
    ///   - characters: The characters, each a code point and each once; their places are the ids.
    ///   - path: The file's name in errors.
    /// - Throws: `TokenizerError` that names the file, and the character that is there twice.
    public init(characters: String, path: String) throws(TokenizerError) {
        self.kind = .characters(try CharacterVocabulary(characters, path: path))
    }

    /// The number of ids: pieces, sentinels and other added tokens.
    ///
    /// A model's vocabulary is usually as large, or padded to a rounder number with unused ids. Where it is smaller, the
    /// ids beyond it cannot be given to the model.
    public var vocabularySize: Int {
        switch self.kind {
        case .pieces(let pieces): pieces.vocabulary.tokens.count
        case .characters(let characters): characters.count
        }
    }

    /// The id that ends every encoded text, `</s>`; nil for a tokenizer of single characters, which adds nothing.
    public var endTokenID: Int32? {
        switch self.kind {
        case .pieces(let pieces): pieces.vocabulary.endID
        case .characters: nil
        }
    }

    /// The id of text that no piece covers, `<unk>`.
    package var unknownTokenID: Int32 { Vocabulary.unknownID }

    /// The text of one id as the vocabulary has it, with U+2581 for a space.
    ///
    /// - Parameter id: Any number.
    /// - Returns: The text, or nil when no token has this id.
    public func token(_ id: Int32) -> String? {
        switch self.kind {
        case .pieces(let pieces): pieces.vocabulary.token(id)?.text
        case .characters(let characters): characters.text(of: id)
        }
    }

    /// The id of a sentinel.
    ///
    /// - Parameter number: The number in `<extra_id_number>`.
    /// - Returns: The id, or nil when there are fewer sentinels.
    package func sentinelID(_ number: Int) -> Int32? {
        guard case .pieces(let pieces) = self.kind else { return nil }
        return pieces.vocabulary.added.id(of: TokenizerSettings.sentinel(number))
    }

    /// How many sentinels there are; `<extra_id_0>` is the first.
    public var sentinelCount: Int {
        (0..<self.vocabularySize).prefix { self.sentinelID($0) != nil }.count
    }

    /// Encodes a text.
    ///
    /// libsentencepiece fails on well-formed text only when memory runs out; the whole text is then one unknown token.
    /// Characters that a tokenizer of single characters lacks are left out, as labml does. ``encode(utf8:)`` reports both
    /// instead.
    ///
    /// - Parameter text: Any text, the empty one included.
    /// - Returns: The ids, `</s>` at the end where the tokenizer has it.
    public func encode(_ text: String) -> [Int32] {
        switch self.kind {
        case .pieces(let pieces):
            var text = text
            return text.withUTF8 { try? pieces.encode(wellFormed: $0) }
                ?? [self.unknownTokenID, pieces.vocabulary.endID]
        case .characters(let characters): return characters.knownIDs(of: text)
        }
    }

    /// Encodes a text given as bytes.
    ///
    /// - Parameter bytes: The text's UTF-8; NUL is a character like any other.
    /// - Returns: The ids, `</s>` at the end.
    /// - Throws: `TokenizerError` when the bytes are not UTF-8, when a character has no id, or when libsentencepiece runs out
    ///   of memory.
    public func encode(utf8 bytes: some Sequence<UInt8>) throws(TokenizerError) -> [Int32] {
        guard let text = String(validating: bytes, as: UTF8.self) else {
            throw TokenizerError(.invalidText, "the text is not well-formed UTF-8; send UTF-8")
        }
        return try self.encode(text, limits: TextLimits())
    }

    /// Encodes a text within limits.
    ///
    /// Work stops as soon as a limit is reached, so that the limits bound time and memory, not just the result.
    ///
    /// - Parameters:
    ///   - text: Any text, the empty one included.
    ///   - limits: What the text may cost.
    ///   - isCancelled: Asked before each word; `true` ends the work.
    /// - Returns: The ids, `</s>` at the end.
    /// - Throws: `TokenizerError` with the limit and the value; its code is `tooLong`, `cancelled`, `unknownCharacter` or
    ///   `encodingFailed`.
    public func encode(
        _ text: String,
        limits: TextLimits,
        isCancelled: () -> Bool = { false }
    ) throws(TokenizerError) -> [Int32] {
        let pieces: PieceTokenizer
        switch self.kind {
        case .pieces(let kind): pieces = kind
        case .characters(let characters): return try characters.ids(of: text, limits: limits)
        }
        var text = text
        let result: Result<[Int32], TokenizerError> = text.withUTF8 { text in
            do throws(TokenizerError) {
                return .success(try pieces.encode(wellFormed: text, limits: limits, isCancelled: isCancelled))
            } catch {
                return .failure(error)
            }
        }
        return try result.get()
    }

    /// Decodes ids.
    ///
    /// Ids without a token, negative ones included, are left out; the spaces in front of the first token are not part
    /// of the text.
    ///
    /// - Parameters:
    ///   - ids: Any ids.
    ///   - skipSpecialTokens: Whether special tokens, such as `<pad>`, `</s>`, `<unk>` and the sentinels, are left out.
    /// - Returns: The text.
    public func decode(_ ids: some Sequence<Int32>, skipSpecialTokens: Bool = false) -> String {
        var decoder = self.makeDecoder(skipSpecialTokens: skipSpecialTokens)
        var text = ""
        for id in ids {
            text += decoder.append(id)
        }
        return text + decoder.finish()
    }

    /// Makes a decoder that is given ids one by one.
    ///
    /// - Parameter skipSpecialTokens: Whether special tokens, such as `<pad>`, `</s>`, `<unk>` and the sentinels, are left out.
    /// - Returns: A decoder that has seen nothing.
    public func makeDecoder(skipSpecialTokens: Bool = false) -> IncrementalDecoder {
        switch self.kind {
        case .pieces(let pieces):
            IncrementalDecoder(
                vocabulary: pieces.vocabulary,
                skipSpecialTokens: skipSpecialTokens,
                cleansUpSpaces: pieces.cleansUpSpaces
            )
        case .characters(let characters): IncrementalDecoder(characters: characters)
        }
    }
}
