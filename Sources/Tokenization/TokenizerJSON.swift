// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import JSONValues

/// What is used of a `tokenizer.json`, the file of the tokenizers library.
///
/// `T5Tokenizer` takes the pieces, the first table of normalizations and the added tokens, and makes everything else
/// itself: the file's pre-tokenizer, decoder, template, truncation, padding, `unk_id` and `byte_fallback` change nothing
/// (`convert_to_native_format` in
/// https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/tokenization_utils_tokenizers.py).
///
/// Transformers reads the file twice, by Python's `json` and by the tokenizers library's serde, and both must take it: a
/// trailing comma, a byte order mark, `NaN`, a number beyond a double and half of a surrogate pair are refused. Of two
/// equal keys the last counts, except in an added token and for `model.type`, where serde refuses them. Every added token
/// has all six fields. Deviations: keys that change nothing are not looked into, and a piece without text is refused
/// (https://github.com/huggingface/tokenizers/blob/v0.23.1/tokenizers/src/tokenizer/serialization.rs).
struct TokenizerJSON {
    /// The pieces in the order of their ids.
    private(set) var pieces: [TokenizerDefinition.Piece] = []

    /// SentencePiece's table of normalizations; empty where the file has none.
    private(set) var characterMap: [UInt8] = []

    /// The added tokens with the ids that the file gives them.
    private(set) var added: [(id: Int, token: AddedToken)] = []

    /// Reads a file's content.
    ///
    /// - Parameters:
    ///   - bytes: The whole file.
    ///   - path: The file's name in errors.
    /// - Returns: What is used of it.
    /// - Throws: `TokenizerError` that names the file and the key.
    static func decode(_ bytes: Data, path: String) throws(TokenizerError) -> Self {
        do {
            return try TokenizerScanner.withBytes(bytes) { (bytes) throws(TokenizerFileFault) in
                try Self(bytes, path: path)
            }
        } catch {
            throw TokenizerError(.malformedFile, error.message, file: path)
        }
    }

    private init(_ bytes: UnsafeRawBufferPointer, path: String) throws(TokenizerFileFault) {
        var scanner = try TokenizerScanner.begin(bytes, file: path, dialect: .serde)
        var model: Model?
        var added: [JSON]?
        var normalizer = JSON.null
        try scanner.object { (scanner, key) throws(TokenizerFileFault) in
            switch key {
            case "version":
                let version = try scanner.value()
                guard version == .string("1.0") else {
                    throw .init("version is \(JSON.text(version)), where \"1.0\" is the only one that is known")
                }
            case "model": model = try Model(&scanner)
            case "normalizer": normalizer = try scanner.value(refuseDuplicates: true)
            case "added_tokens":
                let value = try scanner.value(refuseDuplicates: true)
                guard case .array(let list) = value else {
                    throw .init("added_tokens is \(JSON.text(value)), where a list is needed")
                }
                added = list
            case "truncation", "padding", "pre_tokenizer", "post_processor", "decoder": try scanner.skip()
            default:
                throw .init(
                    "the unknown key \"\(key.prefix(80))\" beside model and added_tokens, with which the tokenizers library "
                        + "refuses the file"
                )
            }
        }
        try scanner.end()
        guard let model else { throw .init("no object model, which holds the pieces") }
        guard let added else { throw .init("no list added_tokens, without which transformers refuses the file") }
        self.pieces = model.pieces
        self.characterMap = try Self.characterMap(normalizer)
        for (index, value) in added.enumerated() {
            self.added.append(try Self.addedToken(value, key: "added_tokens[\(index)]"))
        }
    }

    private static func addedToken(
        _ value: JSON,
        key: String
    ) throws(TokenizerFileFault) -> (id: Int, token: AddedToken) {
        guard case .object(let object) = value else {
            throw .init("\(key) is \(JSON.text(value)), where an object is needed")
        }
        guard case .integer(let id)? = object["id"], UInt32(exactly: id) != nil else {
            throw .init("\(key).id is \(JSON.text(object["id"])), where an id of 32 bits is needed")
        }
        for flag in ["single_word", "lstrip", "rstrip", "normalized", "special"] where object[flag] == nil {
            throw .init("\(key).\(flag) is missing, where true or false is needed")
        }
        return (id, try AddedToken(object, key: key))
    }

    /// Finds the first table of normalizations: the normalizer itself, or one of a sequence.
    private static func characterMap(_ normalizer: JSON) throws(TokenizerFileFault) -> [UInt8] {
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
}

/// The unigram model of a `tokenizer.json`.
private struct Model {
    var pieces: [TokenizerDefinition.Piece] = []

    init(_ scanner: inout TokenizerScanner) throws(TokenizerFileFault) {
        var type: JSON?
        var unknown = JSON.null
        var pieces: [TokenizerDefinition.Piece]?
        try scanner.object { (scanner, key) throws(TokenizerFileFault) in
            switch key {
            case "type":
                guard type == nil else { throw scanner.malformed("model.type twice") }
                type = try scanner.value()
                guard type == .string("Unigram") else {
                    throw .init("model.type is \(JSON.text(type)), where a T5 tokenizer has \"Unigram\"")
                }
            case "vocab": pieces = try Self.pieces(&scanner)
            case "unk_id": unknown = try scanner.value()
            default: try scanner.skip()
            }
        }
        guard let pieces else { throw .init("no list model.vocab, which holds the pieces") }
        // T5Tokenizer has an unknown piece of its own, but the library does not read the file otherwise.
        let isKnown: Bool
        switch unknown {
        case .null: isKnown = true
        case .integer(let id): isKnown = pieces.indices.contains(id)
        default: isKnown = false
        }
        guard isKnown else {
            throw .init(
                "model.unk_id is \(JSON.text(unknown)), where the id of one of \(pieces.count) pieces is needed"
            )
        }
        self.pieces = pieces
    }

    private static func pieces(
        _ scanner: inout TokenizerScanner
    ) throws(TokenizerFileFault) -> [TokenizerDefinition.Piece] {
        var pieces: [TokenizerDefinition.Piece] = []
        try scanner.array { (scanner) throws(TokenizerFileFault) in
            guard pieces.count < PieceFile.maximumPieceCount else {
                throw .init("model.vocab has more pieces than the limit of \(PieceFile.maximumPieceCount)")
            }
            pieces.append(try Self.piece(&scanner, index: pieces.count))
        }
        return pieces
    }

    /// Reads a pair of a text and a score.
    private static func piece(
        _ scanner: inout TokenizerScanner,
        index: Int
    ) throws(TokenizerFileFault) -> TokenizerDefinition.Piece {
        guard scanner.peek() == UInt8(ascii: "[") else {
            throw .init(
                "model.vocab[\(index)] is \(JSON.text(try scanner.value())), where a text and a score are needed"
            )
        }
        var text: String?
        var score: Double?
        var count = 0
        try scanner.array { (scanner) throws(TokenizerFileFault) in
            let name = "model.vocab[\(index)][\(count)]"
            switch count {
            case 0 where scanner.peek() == UInt8(ascii: "\""): text = try scanner.string()
            case 0: throw .init("\(name) is \(JSON.text(try scanner.value())), where a string is needed")
            case 1:
                let value = try scanner.value()
                score = value.double
                guard score != nil else {
                    throw .init("\(name) is \(JSON.text(value)), where a number is needed")
                }
            default: throw .init("\(name) is there, where a piece is a text and a score")
            }
            count += 1
        }
        guard let text, let score else { throw .init("model.vocab[\(index)] is not a text and a score") }
        let piece = TokenizerDefinition.Piece(text: text, score: Float(score))
        guard !piece.text.isEmpty, piece.score.isFinite else {
            throw .init("model.vocab[\(index)] is the piece \"\(piece.text.prefix(80))\" with the score \(piece.score)")
        }
        return piece
    }
}
