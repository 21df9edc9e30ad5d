// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import JSONValues

/// What is used of a `tokenizer.json`, the file of the tokenizers library.
///
/// `T5Tokenizer` takes the pieces, the first table of normalizations and the added tokens, and makes everything else
/// itself: the file's pre-tokenizer, decoder, template, truncation, padding, `unk_id` and `byte_fallback` change nothing
/// (`convert_to_native_format` in
/// https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/tokenization_utils_tokenizers.py).
struct TokenizerJSON: Decodable {
    /// The pieces in the order of their ids.
    let pieces: [TokenizerDefinition.Piece]

    /// SentencePiece's table of normalizations; empty where the file has none.
    let characterMap: [UInt8]

    /// The added tokens with the ids that the file gives them.
    let added: [(id: Int, token: AddedToken)]

    private enum Key: String, CodingKey {
        case model
        case normalizer
        case added = "added_tokens"
    }

    private struct Model: Decodable {
        var pieces: [TokenizerDefinition.Piece] = []

        private enum Key: String, CodingKey {
            case type
            case vocabulary = "vocab"
        }

        init(from decoder: any Decoder) throws {
            let fields = try decoder.container(keyedBy: Key.self)
            let type = try fields.decodeIfPresent(String.self, forKey: .type)
            guard type == nil || type == "Unigram" else {
                throw TokenizerFileFault(
                    "model.type is \(JSON.text(type.map(JSON.string))), where a T5 tokenizer has \"Unigram\""
                )
            }
            var list = try fields.nestedUnkeyedContainer(forKey: .vocabulary)
            guard (list.count ?? 0) <= PieceFile.maximumPieceCount else {
                throw TokenizerFileFault(
                    "model.vocab has \(list.count ?? 0) pieces, more than the limit of \(PieceFile.maximumPieceCount)"
                )
            }
            while !list.isAtEnd {
                let index = list.currentIndex
                var entry = try list.nestedUnkeyedContainer()
                let piece = TokenizerDefinition.Piece(
                    text: try entry.decode(String.self),
                    score: Float(try entry.decode(Double.self))
                )
                guard !piece.text.isEmpty, piece.score.isFinite else {
                    throw TokenizerFileFault(
                        "model.vocab[\(index)] is the piece \"\(piece.text)\" with the score \(piece.score)"
                    )
                }
                self.pieces.append(piece)
            }
        }
    }

    init(from decoder: any Decoder) throws {
        let fields = try decoder.container(keyedBy: Key.self)
        self.pieces = try fields.decode(Model.self, forKey: .model).pieces
        self.characterMap = try Self.characterMap(try fields.decodeIfPresent(JSON.self, forKey: .normalizer) ?? .null)
        self.added = try fields.decode([[String: JSON]].self, forKey: .added).enumerated()
            .map { index, object in
                guard let number = object["id"]?.double, let id = UInt32(exactly: number) else {
                    throw TokenizerFileFault(
                        "added_tokens[\(index)].id is \(JSON.text(object["id"])), where an id of 32 bits is needed"
                    )
                }
                return (Int(id), try AddedToken(object, key: "added_tokens[\(index)]"))
            }
    }

    /// Finds the first table of normalizations: the normalizer itself, or one of a sequence.
    private static func characterMap(_ normalizer: JSON) throws -> [UInt8] {
        let steps: [JSON]
        switch normalizer {
        case .object(let fields):
            if case .string("Sequence") = fields["type"] {
                guard case .array(let list) = fields["normalizers"] else {
                    throw TokenizerFileFault("normalizer.normalizers is \(JSON.text(fields["normalizers"]))")
                }
                steps = list
            } else {
                steps = [normalizer]
            }
        case .null: steps = []
        default: throw TokenizerFileFault("normalizer is \(JSON.text(normalizer)), where an object is needed")
        }
        for case .object(let fields) in steps {
            guard case .string("Precompiled") = fields["type"], let value = fields["precompiled_charsmap"] else {
                continue
            }
            guard case .string(let text) = value, let table = Data(base64Encoded: text) else {
                throw TokenizerFileFault("normalizer.precompiled_charsmap is \(JSON.text(value)), which is not Base64")
            }
            return [UInt8](table)
        }
        return []
    }

    /// Reads a file's content.
    ///
    /// - Parameters:
    ///   - bytes: The whole file.
    ///   - path: The file's name in errors.
    /// - Returns: What is used of it.
    /// - Throws: `TokenizerError` that names the file and the key.
    static func decode(_ bytes: Data, path: String) throws(TokenizerError) -> Self {
        do {
            return try bytes.withUnsafeBytes { try JSONText.decode(Self.self, from: $0) }
        } catch let fault as TokenizerFileFault {
            throw TokenizerError(.malformedFile, fault.message, file: path)
        } catch {
            throw TokenizerError(
                .malformedFile,
                "not the JSON of a tokenizer (\(TokenizerFolder.short(error)))",
                file: path
            )
        }
    }
}
