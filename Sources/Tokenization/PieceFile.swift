// SPDX-License-Identifier: Apache-2.0

/// What a `spiece.model` file says: a serialized `sentencepiece.ModelProto`, read without the library.
///
/// The library normalizes text its own way and hides its table, so the file is read here for its table and pieces, and
/// the library gets a model made of the pieces alone (``PieceModel``). The format:
/// https://github.com/google/sentencepiece/blob/v0.1.97/src/sentencepiece_model.proto.
struct PieceFile {
    /// The kinds of pieces, with the format's numbers.
    enum Kind: UInt64 {
        case normal = 1
        case unknown = 2
        case control = 3
        case userDefined = 4
        case unused = 5
        case byte = 6
    }

    /// One piece of the vocabulary; its id is its place in the list.
    struct Piece {
        /// The piece's text, in which U+2581 means a space.
        var text: String

        /// Its log probability.
        var score: Float

        /// Its kind.
        var kind: Kind
    }

    /// The pieces in the order of their ids.
    var pieces: [Piece] = []

    /// The table of normalizations, or empty when the file has none.
    var characterMap: [UInt8] = []

    /// The only supported kind of file: a unigram model.
    private static let unigram: UInt64 = 1

    /// Reads a file's content.
    ///
    /// - Parameter bytes: The whole file.
    /// - Throws: `WireReader.Malformed` when the bytes are not a unigram model.
    init(bytes: [UInt8]) throws(WireReader.Malformed) {
        var reader = WireReader(bytes, in: 0..<bytes.count)
        while let (field, value) = try reader.next() {
            switch (field, value) {
            case (1, .bytes(let range)):
                self.pieces.append(try Self.piece(bytes, range, index: self.pieces.count))
            case (2, .bytes(let range)):
                try Self.checkTrainer(bytes, range)
            case (3, .bytes(let range)):
                self.characterMap = try Self.characterMap(bytes, range) ?? self.characterMap
            default:
                continue
            }
        }
        guard !self.pieces.isEmpty else { throw .init(message: "no pieces in it") }
        guard self.pieces.count <= Self.maximumPieceCount else {
            throw .init(message: "\(self.pieces.count) pieces, more than the limit of \(Self.maximumPieceCount)")
        }
    }

    /// No tokenizer has a larger vocabulary than this.
    static let maximumPieceCount = 1 << 22

    private static func piece(
        _ bytes: [UInt8],
        _ range: Range<Int>,
        index: Int
    ) throws(WireReader.Malformed) -> Piece {
        var piece = Piece(text: "", score: 0, kind: .normal)
        var reader = WireReader(bytes, in: range)
        while let (field, value) = try reader.next() {
            switch (field, value) {
            case (1, .bytes(let text)):
                guard let text = String(validating: bytes[text], as: UTF8.self) else {
                    throw .init(message: "piece \(index) is not UTF-8")
                }
                piece.text = text
            case (2, .fixed32(let bits)):
                piece.score = Float(bitPattern: bits)
            case (3, .varint(let number)):
                guard let kind = Kind(rawValue: number) else {
                    throw .init(message: "piece \(index) is of the unknown kind \(number)")
                }
                piece.kind = kind
            default:
                continue
            }
        }
        guard !piece.text.isEmpty else { throw .init(message: "piece \(index) is empty") }
        guard piece.score.isFinite else { throw .init(message: "piece \(index) has the score \(piece.score)") }
        return piece
    }

    private static func checkTrainer(_ bytes: [UInt8], _ range: Range<Int>) throws(WireReader.Malformed) {
        var reader = WireReader(bytes, in: range)
        while let (field, value) = try reader.next() {
            guard field == 3, case .varint(let kind) = value, kind != Self.unigram else { continue }
            throw .init(message: "a model of type \(kind) in it, where a unigram model (type 1) is needed")
        }
    }

    private static func characterMap(_ bytes: [UInt8], _ range: Range<Int>) throws(WireReader.Malformed) -> [UInt8]? {
        var found: [UInt8]?
        var reader = WireReader(bytes, in: range)
        while let (field, value) = try reader.next() {
            guard field == 2, case .bytes(let range) = value else { continue }
            found = Array(bytes[range])
        }
        return found
    }
}
