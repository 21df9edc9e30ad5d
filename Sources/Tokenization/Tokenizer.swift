// SPDX-License-Identifier: Apache-2.0

private import Foundation

/// The tokenizer of T5 models and so of Switch Transformers: text to ids and back.
///
/// Gives the ids and texts that `T5Tokenizer` of transformers 5.23 gives
/// (https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/models/t5/tokenization_t5.py):
///
/// 1. The literals `<pad>`, `</s>`, `<unk>` and `<extra_id_0>`, `<extra_id_1>` and so on are split off literally:
///    `<extra_id_07>` is plain text.
/// 2. Each segment between them is normalized (``CharacterMap``) and cut into words at white space, and a word at every
///    U+2581; each word gets U+2581 in front unless it begins with one.
/// 3. libsentencepiece finds each word's pieces. Letters that no piece covers become one unknown piece (id 2).
/// 4. `</s>` ends the ids.
///
/// As in transformers, the sentinels take part in the search of step 3 with a score of 0. That shows only for text that
/// becomes a sentinel by normalization, such as one in full-width letters.
public final class Tokenizer: Sendable {
    /// The file that holds the pieces.
    public static let pieceFileName = "spiece.model"

    /// How many sentinels a tokenizer has by default.
    public static let defaultSentinelCount = 100

    /// How many sentinels there are; `<extra_id_0>` is the first.
    public let sentinelCount: Int

    private let vocabulary: Vocabulary
    private let characterMap: CharacterMap
    private let pieces: PieceModel

    /// Reads a tokenizer from a checkpoint's directory.
    ///
    /// `spiece.model` is needed; `extra_ids` in `tokenizer_config.json`, where there is one, is the number of sentinels.
    ///
    /// - Parameter directory: The directory's path.
    /// - Throws: `TokenizerError` that names the file when one is missing or malformed.
    public convenience init(directory: String) throws(TokenizerError) {
        let path = directory + "/" + Self.pieceFileName
        let bytes: [UInt8]
        do {
            bytes = try [UInt8](Data(contentsOf: URL(fileURLWithPath: path)))
        } catch {
            throw TokenizerError(
                .unreadableFile,
                "cannot be read (\(error.localizedDescription)); the tokenizer needs the checkpoint's \(Self.pieceFileName)",
                file: path
            )
        }
        try self.init(pieceFile: bytes, path: path, sentinelCount: try Self.sentinelCount(directory: directory))
    }

    /// Makes a tokenizer of a `spiece.model`'s content.
    ///
    /// - Parameters:
    ///   - pieceFile: The file's bytes.
    ///   - path: The file's name in errors.
    ///   - sentinelCount: How many sentinels follow the pieces.
    /// - Throws: `TokenizerError` that names the file when it is malformed.
    public init(
        pieceFile: [UInt8],
        path: String = Tokenizer.pieceFileName,
        sentinelCount: Int = Tokenizer.defaultSentinelCount
    ) throws(TokenizerError) {
        do {
            let file = try PieceFile(bytes: pieceFile)
            self.sentinelCount = sentinelCount
            self.vocabulary = try Vocabulary(file: file, sentinelCount: sentinelCount)
            self.characterMap = try CharacterMap(table: file.characterMap)
            self.pieces = try PieceModel(
                pieces: self.vocabulary.tokens.map { ($0.text, $0.score) },
                unknownID: Int(self.vocabulary.unknownID)
            )
        } catch {
            throw TokenizerError(
                .malformedFile,
                "not a SentencePiece model of a T5 tokenizer: \(error.message); copy the file from the checkpoint again",
                file: path
            )
        }
    }

    /// The number of ids: pieces and sentinels.
    ///
    /// A model's vocabulary must be at least as large; it is usually padded to a rounder number with unused ids.
    public var vocabularySize: Int { self.vocabulary.tokens.count }

    /// The id that ends every encoded text, `</s>`.
    public var endTokenID: Int32 { self.vocabulary.endID }

    /// The id of text that no piece covers, `<unk>`.
    package var unknownTokenID: Int32 { self.vocabulary.unknownID }

    /// The text of one id as the vocabulary has it, with U+2581 for a space.
    ///
    /// - Parameter id: Any number.
    /// - Returns: The text, or nil when no token has this id.
    public func token(_ id: Int32) -> String? {
        self.vocabulary.token(id)?.text
    }

    /// The id of a sentinel.
    ///
    /// - Parameter number: The number in `<extra_id_number>`.
    /// - Returns: The id, or nil when there are fewer sentinels.
    package func sentinelID(_ number: Int) -> Int32? {
        guard number >= 0, number < self.sentinelCount else { return nil }
        var text = "<extra_id_\(number)>"
        return text.withUTF8 { self.vocabulary.specials.firstMatch(in: $0, from: 0)?.id }
    }

    /// Encodes a text.
    ///
    /// libsentencepiece fails on well-formed text only when memory runs out; the whole text is then one unknown token.
    /// ``encode(utf8:)`` reports it instead.
    ///
    /// - Parameter text: Any text, the empty one included.
    /// - Returns: The ids, `</s>` at the end.
    public func encode(_ text: String) -> [Int32] {
        var text = text
        return text.withUTF8 { try? self.encode(wellFormed: $0) } ?? [self.unknownTokenID, self.endTokenID]
    }

    /// Encodes a text given as bytes.
    ///
    /// - Parameter bytes: The text's UTF-8; NUL is a character like any other.
    /// - Returns: The ids, `</s>` at the end.
    /// - Throws: `TokenizerError` when the bytes are not UTF-8, or when libsentencepiece runs out of memory.
    public func encode(utf8 bytes: some Sequence<UInt8>) throws(TokenizerError) -> [Int32] {
        guard var text = String(validating: bytes, as: UTF8.self) else {
            throw TokenizerError(.invalidText, "the text is not well-formed UTF-8; send UTF-8")
        }
        let result: Result<[Int32], TokenizerError> = text.withUTF8 { text in
            do throws(TokenizerError) {
                return .success(try self.encode(wellFormed: text))
            } catch {
                return .failure(error)
            }
        }
        return try result.get()
    }

    private func encode(wellFormed text: UnsafeBufferPointer<UInt8>) throws(TokenizerError) -> [Int32] {
        var ids: [Int32] = []
        ids.reserveCapacity(text.count / 3 + 2)
        var scratch: [Int32] = []
        var start = 0
        while let match = self.vocabulary.specials.firstMatch(in: text, from: start) {
            try self.encode(segment: text[start..<match.range.lowerBound], into: &ids, scratch: &scratch)
            ids.append(match.id)
            start = match.range.upperBound
        }
        try self.encode(segment: text[start...], into: &ids, scratch: &scratch)
        ids.append(self.vocabulary.endID)
        return ids
    }

    private func encode(
        segment: Slice<UnsafeBufferPointer<UInt8>>,
        into ids: inout [Int32],
        scratch: inout [Int32]
    ) throws(TokenizerError) {
        guard !segment.isEmpty else { return }
        let words = Words(self.characterMap.normalize(UnsafeBufferPointer(rebasing: segment)))
        for index in 0..<words.count {
            try words.withWord(index) { (word) throws(TokenizerError) in
                try self.pieces.encode(word, into: &ids, scratch: &scratch)
            }
        }
    }

    /// Decodes ids.
    ///
    /// Ids without a token, negative ones included, are left out; the spaces in front of the first token are not part
    /// of the text.
    ///
    /// - Parameters:
    ///   - ids: Any ids.
    ///   - skipSpecialTokens: Whether `<pad>`, `</s>`, `<unk>` and the sentinels are left out.
    /// - Returns: The text.
    public func decode(_ ids: some Sequence<Int32>, skipSpecialTokens: Bool = false) -> String {
        var decoder = self.makeDecoder(skipSpecialTokens: skipSpecialTokens)
        var text = ""
        for id in ids {
            text += decoder.append(id)
        }
        return text
    }

    /// Makes a decoder that is given ids one by one.
    ///
    /// - Parameter skipSpecialTokens: Whether `<pad>`, `</s>`, `<unk>` and the sentinels are left out.
    /// - Returns: A decoder that has seen nothing.
    public func makeDecoder(skipSpecialTokens: Bool = false) -> IncrementalDecoder {
        IncrementalDecoder(vocabulary: self.vocabulary, skipSpecialTokens: skipSpecialTokens)
    }

    /// The part of `tokenizer_config.json` that matters here.
    private struct Configuration: Decodable {
        var sentinelCount: Int?

        enum CodingKeys: String, CodingKey {
            case sentinelCount = "extra_ids"
        }
    }

    private static func sentinelCount(directory: String) throws(TokenizerError) -> Int {
        let path = directory + "/tokenizer_config.json"
        guard FileManager.default.fileExists(atPath: path) else { return Self.defaultSentinelCount }
        let configuration: Configuration
        do {
            let bytes = try Data(contentsOf: URL(fileURLWithPath: path))
            configuration = try JSONDecoder().decode(Configuration.self, from: bytes)
        } catch {
            throw TokenizerError(.malformedFile, "not the JSON of a tokenizer's configuration (\(error))", file: path)
        }
        let count = configuration.sentinelCount ?? Self.defaultSentinelCount
        guard (0...100_000).contains(count) else {
            throw TokenizerError(.malformedFile, "extra_ids is \(count), which is not within 0...100000", file: path)
        }
        return count
    }
}
