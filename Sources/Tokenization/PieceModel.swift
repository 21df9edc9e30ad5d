// SPDX-License-Identifier: Apache-2.0

private import CSentencePiece

/// A unigram model in libsentencepiece: finds the most probable pieces of a word.
///
/// The library gets a model without normalization, dummy prefix and control pieces, so that a word's bytes reach the
/// search as they are. What the library would do with the unchanged file differs from the tokenizer that checkpoints
/// are used with in transformers (see ``Tokenizer``), and most of a malformed file never reaches C++.
///
/// The library joins consecutive unknown pieces in quadratic time. So it is told to give bytes instead, which are
/// joined here.
///
/// The library adds scores up in single precision and transformers in double, where sums of such scores are exact. So
/// scores are rounded to multiples of 2^-15 here: sums down to -512, which only absurdly long words go below, are then
/// exact as well, and equally probable ways to cut a word (a run of one letter has many) are a tie for both, and both
/// take the same one. Rounding changes no more cases than single precision does anyway.
final class PieceModel: @unchecked Sendable {
    // Safety: the handle is written once, in `init`, and the library's const methods may be called from any thread.

    /// Bytes that a piece may have; those of published models have 48 at most.
    static let mostPieceBytes = 1_024

    private let handle: OpaquePointer
    private let unknownID: Int32

    /// From this id on, the library's pieces were added here; all of them mean unknown text.
    private let firstUnknownID: Int32

    /// Lower ids of pieces that are named like bytes, which the library takes for parts of unknown text.
    private let byteIDs: Set<Int32>

    /// Builds the library's model.
    ///
    /// Of pieces with the same text the last one is found, as in the tokenizers library; libsentencepiece refuses such
    /// pieces, so the others get texts that no text contains.
    ///
    /// - Parameters:
    ///   - pieces: The texts and scores in the order of their ids, sentinels included.
    ///   - unknownID: The id of the unknown piece, for text that no piece covers; the id of one of the pieces.
    /// - Throws: `WireReader.Malformed` with the library's message when it refuses the pieces.
    init(pieces: [TokenizerDefinition.Piece], unknownID: Int) throws(WireReader.Malformed) {
        // The library's trie recurses once for each byte of a piece.
        if let (id, piece) = pieces.enumerated().first(where: { $1.text.utf8.count > Self.mostPieceBytes }) {
            throw .init(
                message: "the piece \(id) has \(piece.text.utf8.count) bytes; the limit is \(Self.mostPieceBytes)"
            )
        }
        var model = WireWriter()
        var lastIDs: [[UInt8]: Int] = [:]
        for (id, piece) in pieces.enumerated() { lastIDs[Array(piece.text.utf8)] = id }
        for (id, piece) in pieces.enumerated() {
            // The unknown piece's text can appear in a text (written in full-width letters, say), but the library never
            // looks for it. So the unknown piece gets another text here, and its real text becomes one more piece,
            // whose id is translated back below.
            var text = id == unknownID ? Self.unknownText : Array(piece.text.utf8)
            var kind: PieceFile.Kind = id == unknownID ? .unknown : Self.isByte(piece.text) ? .byte : .normal
            if id != unknownID, lastIDs[text] != id {
                text = Self.unreachableText(id)
                kind = .normal
            }
            model.append(bytes: Self.message(text: text, score: piece.score, kind: kind), field: 1)
        }
        let unknown = pieces[unknownID]
        let isUnknownFound = lastIDs[Array(unknown.text.utf8)] == unknownID
        model.append(
            bytes: Self.message(
                text: isUnknownFound ? Array(unknown.text.utf8) : Self.unreachableText(unknownID),
                score: unknown.score,
                kind: .normal
            ),
            field: 1
        )
        let present = Set(pieces.lazy.map(\.text).filter { Self.isByte($0) })
        let bytes = (UInt8.min...UInt8.max).map(Self.text(ofByte:)).filter { !present.contains($0) }
        for text in bytes {
            model.append(bytes: Self.message(text: Array(text.utf8), score: 0, kind: .byte), field: 1)
        }
        model.append(bytes: Self.trainer, field: 2)
        model.append(bytes: Self.normalizer, field: 3)

        var handle: OpaquePointer?
        let message = Self.withMessage { buffer, capacity in
            model.bytes.withUnsafeBytes {
                switchyard_spm_load($0.baseAddress, $0.count, &handle, buffer, capacity) != SWITCHYARD_SPM_OK
            }
        }
        guard let handle else { throw .init(message: "libsentencepiece refuses the pieces: \(message ?? "")") }
        self.handle = handle
        self.unknownID = Int32(unknownID)
        self.firstUnknownID = Int32(pieces.count)
        self.byteIDs = Set(pieces.indices.lazy.filter { Self.isByte(pieces[$0].text) }.map(Int32.init))
        // The search returns ids by position, so the library must count as this file does.
        guard
            switchyard_spm_piece_count(handle) == self.firstUnknownID + 1 + Int32(bytes.count),
            switchyard_spm_unknown_id(handle) == self.unknownID
        else {
            throw .init(message: "libsentencepiece counts the pieces differently")
        }
    }

    deinit {
        switchyard_spm_free(self.handle)
    }

    /// Appends a word's ids; consecutive unknown pieces become one.
    ///
    /// - Parameters:
    ///   - word: The word's UTF-8, U+2581 in front.
    ///   - ids: The ids are appended to these.
    ///   - scratch: Room for the ids of one word, kept between calls so that it is made once.
    /// - Throws: `TokenizerError` when the library fails.
    func encode(
        _ word: UnsafeBufferPointer<UInt8>,
        into ids: inout [Int32],
        scratch: inout [Int32]
    ) throws(TokenizerError) {
        if scratch.count < word.count {
            scratch = [Int32](repeating: 0, count: word.count)
        }
        var count = 0
        let failure = Self.withMessage { message, messageCapacity in
            scratch.withUnsafeMutableBufferPointer { found in
                word.withMemoryRebound(to: CChar.self) { text in
                    let code = switchyard_spm_encode(
                        self.handle,
                        text.baseAddress,
                        text.count,
                        found.baseAddress,
                        found.count,
                        &count,
                        message,
                        messageCapacity
                    )
                    return code != SWITCHYARD_SPM_OK
                }
            }
        }
        if let failure {
            throw TokenizerError(
                .encodingFailed,
                "libsentencepiece could not encode a word of \(word.count) bytes (\(failure)); send a shorter text"
            )
        }
        var previous: Int32 = -1
        for index in 0..<count {
            let isUnknown = scratch[index] >= self.firstUnknownID || self.byteIDs.contains(scratch[index])
            let id = isUnknown ? self.unknownID : scratch[index]
            if id != self.unknownID || previous != self.unknownID {
                ids.append(id)
            }
            previous = id
        }
    }

    /// Runs `body` with a buffer for a message and returns the message when `body` says that it failed.
    private static func withMessage(_ body: (UnsafeMutablePointer<CChar>?, Int) -> Bool) -> String? {
        withUnsafeTemporaryAllocation(of: CChar.self, capacity: 512) { buffer in
            buffer.initialize(repeating: 0)
            guard body(buffer.baseAddress, buffer.count) else { return nil }
            let text = buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }
            return String(decoding: text, as: UTF8.self)
        }
    }

    private static func message(text: [UInt8], score: Float, kind: PieceFile.Kind) -> [UInt8] {
        var message = WireWriter()
        message.append(bytes: text, field: 1)
        message.append(float: (score * 0x1p15).rounded() * 0x1p-15, field: 2)
        message.append(number: kind.rawValue, field: 3)
        return message.bytes
    }

    /// The unknown piece's text in the library's model, which no UTF-8 text contains.
    private static let unknownText: [UInt8] = [0xFF]

    /// A text for a piece that is never to be found: no UTF-8 text contains its first byte.
    private static func unreachableText(_ id: Int) -> [UInt8] { [0xFE] + Array("\(id)".utf8) }

    /// The library's name for a byte.
    private static func text(ofByte byte: UInt8) -> String {
        let digits = String(byte, radix: 16, uppercase: true)
        return "<0x\(byte < 16 ? "0" : "")\(digits)>"
    }

    private static func isByte(_ text: String) -> Bool {
        guard text.utf8.count == 6, text.hasPrefix("<0x") else { return false }
        return UInt8(text.dropFirst(3).prefix(2), radix: 16).map(Self.text(ofByte:)) == text
    }

    /// A `TrainerSpec` of a unigram model that gives unknown text byte by byte.
    private static var trainer: [UInt8] {
        var message = WireWriter()
        message.append(number: 1, field: 3)
        message.append(bytes: Self.unknownText, field: 45)  // unk_piece
        message.append(number: 1, field: 35)  // byte_fallback
        return message.bytes
    }

    /// A `NormalizerSpec` that leaves every byte as it is.
    private static var normalizer: [UInt8] {
        var message = WireWriter()
        for field: UInt64 in [3, 4, 5] {  // add_dummy_prefix, remove_extra_whitespaces, escape_whitespaces
            message.append(number: 0, field: field)
        }
        return message.bytes
    }
}
