// SPDX-License-Identifier: Apache-2.0

import Tokenization

/// Tokenizers: one that is accepted encodes and decodes any text.
enum TokenizerRun {
    private static let texts = [
        "", "a", "ab a b", " hello  world </s> <extra_id_0>\n",
        "\u{0065}\u{0301} \u{FB01}\u{FDFA} 日本語 \u{1F468}\u{200D}\u{1F469}",
        String(repeating: "ab ", count: 40), "\0\u{2581}\u{2581}<pad><unk>",
    ]

    /// A `spiece.model` alone.
    static func pieces(_ bytes: [UInt8], _ trace: inout Trace) throws(FuzzFinding) {
        try Self.open([(name: "spiece.model", bytes: bytes)], &trace)
    }

    /// A `tokenizer.json` alone.
    static func json(_ bytes: [UInt8], _ trace: inout Trace) throws(FuzzFinding) {
        try Self.open([(name: "tokenizer.json", bytes: bytes)], &trace)
    }

    /// `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json`, divided by separators, beside a small
    /// `spiece.model`.
    static func settings(_ bytes: [UInt8], _ trace: inout Trace) throws(FuzzFinding) {
        let names = ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"]
        var files = [(name: "spiece.model", bytes: Self.smallPieces)]
        for (name, part) in zip(names, FileParts.split(bytes, into: 3)) where !part.isEmpty {
            files.append((name: name, bytes: part))
        }
        try Self.open(files, &trace)
    }

    private static func open(_ files: [(name: String, bytes: [UInt8])], _ trace: inout Trace) throws(FuzzFinding) {
        try ScratchFolder.with(files) { (folder) throws(FuzzFinding) in
            let tokenizer: Tokenizer
            do throws(TokenizerError) {
                tokenizer = try Tokenizer(directory: folder.path)
            } catch {
                return try expectWords("\(error)", &trace)
            }
            trace.accept()
            trace.note(size: tokenizer.vocabularySize)
            let inputBytes = files.reduce(0) { $0 + $1.bytes.count }
            try expect(
                tokenizer.vocabularySize <= inputBytes + 100_000 + 3,
                "a vocabulary has no more tokens than its file",
                "\(tokenizer.vocabularySize) of \(inputBytes) bytes"
            )
            for text in Self.texts { try Self.check(tokenizer, text, &trace) }
            _ = tokenizer.decode([-1, 0, 1, 2, Int32(clamping: tokenizer.vocabularySize), .max, .min])
            let tail = max(0, tokenizer.vocabularySize - 64)..<tokenizer.vocabularySize
            trace.note(size: tokenizer.decode(tail.map { Int32($0) }, skipSpecialTokens: true).utf8.count)
        }
    }

    private static func check(_ tokenizer: Tokenizer, _ text: String, _ trace: inout Trace) throws(FuzzFinding) {
        let result = Result { () throws(TokenizerError) in
            try tokenizer.encode(text, limits: TextLimits(ids: 256))
        }
        switch result {
        case .success(let ids):
            trace.note(size: ids.count)
            try Self.check(ids, tokenizer, text)
        case .failure(let error): try expectWords("\(error)", &trace)
        }
    }

    private static func check(_ ids: [Int32], _ tokenizer: Tokenizer, _ text: String) throws(FuzzFinding) {
        let isKnown = ids.allSatisfy { $0 >= 0 && Int($0) < tokenizer.vocabularySize && tokenizer.token($0) != nil }
        try expect(isKnown, "a text becomes ids of the vocabulary", "\(ids)")
        let hasEnd = tokenizer.endTokenID == nil || ids.last == tokenizer.endTokenID
        try expect(hasEnd, "a text ends with the end token", "\(ids)")
        var decoder = tokenizer.makeDecoder()
        var pieces = ""
        for id in ids { pieces += decoder.append(id) }
        pieces += decoder.finish()
        try expect(pieces == tokenizer.decode(ids), "decoding piece by piece gives the same text", text)
    }

    /// A model of a dozen pieces.
    static let smallPieces: [UInt8] = {
        let pieces: [(text: String, score: Float, kind: UInt8)] = [
            ("<pad>", 0, 3), ("</s>", 0, 3), ("<unk>", 0, 2), ("\u{2581}", -2, 1), ("a", -3, 1), ("b", -3.5, 1),
            ("\u{2581}a", -2.5, 1), ("ab", -2.75, 1), ("\u{2581}hello", -4, 1), ("l", -5, 1), ("o", -5, 1),
            ("user", -1, 4),
        ]
        return pieces.flatMap { piece in
            let text = Array(piece.text.utf8)
            let score = (0..<4).map { UInt8(truncatingIfNeeded: piece.score.bitPattern >> (8 * $0)) }
            let message = [0x0A, UInt8(text.count)] + text + [0x15] + score + [0x18, piece.kind]
            return [0x0A, UInt8(message.count)] + message
        }
    }()
}
