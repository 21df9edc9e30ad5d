// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@testable import Tokenization

/// Files of every quality: what is no tokenizer gives an error that names the file, and nothing else happens.
@Suite
struct TokenizerFileTests {
    /// A small model's file.
    private func file(
        _ pieces: [(String, Float, PieceFile.Kind)] = [
            ("<pad>", 0, .control), ("</s>", 0, .control), ("<unk>", 0, .unknown), ("\u{2581}", -2, .normal),
            ("a", -3, .normal), ("\u{2581}ab", -4, .normal), ("[x]", 0, .userDefined),
        ],
        modelType: UInt64 = 1,
        characterMap: [UInt8] = []
    ) -> [UInt8] {
        var model = WireWriter()
        for (text, score, kind) in pieces {
            var piece = WireWriter()
            piece.append(bytes: text.utf8, field: 1)
            piece.append(float: score, field: 2)
            piece.append(number: kind.rawValue, field: 3)
            model.append(bytes: piece.bytes, field: 1)
        }
        var trainer = WireWriter()
        trainer.append(number: modelType, field: 3)
        model.append(bytes: trainer.bytes, field: 2)
        var normalizer = WireWriter()
        normalizer.append(bytes: characterMap, field: 2)
        model.append(bytes: normalizer.bytes, field: 3)
        return model.bytes
    }

    private func expectMalformed(
        _ bytes: [UInt8],
        saying part: String,
        sourceLocation: SourceLocation = #_sourceLocation
    ) {
        let error = #expect(throws: TokenizerError.self, sourceLocation: sourceLocation) {
            try Tokenizer(pieceFile: bytes, path: "some/spiece.model")
        }
        #expect(error?.code == .malformedFile, sourceLocation: sourceLocation)
        #expect(error?.description.hasPrefix("some/spiece.model: ") == true, sourceLocation: sourceLocation)
        #expect(error?.description.contains(part) == true, "\(error as Any)", sourceLocation: sourceLocation)
    }

    @Test
    func aModelWithoutATableLeavesTextAsItIs() throws {
        let tokenizer = try Tokenizer(pieceFile: self.file(), sentinelCount: 3)
        #expect(tokenizer.vocabularySize == 10)
        #expect(tokenizer.encode("ab a[x]<extra_id_2>\u{FF41}") == [5, 3, 4, 6, 7, 3, 2, 1])
        #expect(tokenizer.encode("<extra_id_3>") == [3, 2, 4, 2, 1])
        #expect(tokenizer.decode([5, 3, 4, 6, 7, 1]) == "ab a[x]<extra_id_2></s>")
        #expect(tokenizer.decode([5, 6, 7, 1], skipSpecialTokens: true) == "ab[x]")
    }

    @Test
    func anUnknownPiecesOwnTextIsUnknown() throws {
        // Only a table of normalizations makes "<unk>" after the literals are split off; the fixtures have such texts.
        let tokenizer = try Tokenizer(pieceFile: self.file(), sentinelCount: 0)
        #expect(tokenizer.encode("<un\u{2581}k>") == [3, 2, 3, 2, 1])
        #expect(tokenizer.encode("<unk>") == [2, 1])
    }

    @Test
    func piecesNamedLikeBytesCountAsUnknown() throws {
        let pieces: [(String, Float, PieceFile.Kind)] = [
            ("<pad>", 0, .control), ("</s>", 0, .control), ("<unk>", 0, .unknown), ("<0x0A>", 0, .byte),
            ("\u{2581}", -1, .normal), ("<0xE6>", -1, .normal), ("<0xe6>", -1, .normal),
        ]
        let tokenizer = try Tokenizer(pieceFile: self.file(pieces), sentinelCount: 0)
        #expect(tokenizer.encode("\u{65E5}\u{672C} <0xe6>") == [4, 2, 4, 6, 1])
        #expect(tokenizer.decode([4, 3, 5]) == "<0x0A><0xE6>")
    }

    @Test
    func appendedSentinelsCountWhereTheFileHasPiecesOfTheirNames() throws {
        func pieces(_ kind: PieceFile.Kind) -> [(String, Float, PieceFile.Kind)] {
            [
                ("<pad>", 0, .control), ("</s>", 0, .control), ("<unk>", 0, .unknown), ("<extra_id_1>", 0, kind),
                ("\u{2581}", -1, .normal),
            ]
        }
        let tokenizer = try Tokenizer(pieceFile: self.file(pieces(.normal)), sentinelCount: 2)
        #expect(tokenizer.encode("<extra_id_0><extra_id_1>") == [6, 5, 1])
        #expect(tokenizer.vocabularySize == 7)
        #expect(tokenizer.decode([3, 5, 6], skipSpecialTokens: true) == "")
        // User-defined pieces are given to transformers as all the sentinels there are.
        let error = #expect(throws: TokenizerError.self) {
            try Tokenizer(pieceFile: self.file(pieces(.userDefined)), sentinelCount: 2)
        }
        #expect(error?.message.contains("extra_ids is 2, but 1 tokens") == true)
    }

    @Test
    func namedTokensThatAreNoPiecesAreAppended() throws {
        let pieces: [(String, Float, PieceFile.Kind)] = [
            ("<s>", 0, .control), ("a", -1, .normal), ("<unk>", 0, .unknown), ("\u{2581}", -1, .normal),
        ]
        let tokenizer = try Tokenizer(pieceFile: self.file(pieces), sentinelCount: 0)
        #expect(tokenizer.endTokenID == 4)
        #expect(tokenizer.encode("a<pad>") == [3, 1, 5, 4])
    }

    @Test
    func ofEqualPiecesTheLastCounts() throws {
        let pieces: [(String, Float, PieceFile.Kind)] = [
            ("<pad>", 0, .control), ("</s>", 0, .control), ("<unk>", 0, .unknown), ("a", -1, .normal),
            ("\u{2581}", -1, .normal), ("a", -2, .normal), ("\u{E9}", -1, .normal), ("e\u{301}", -1, .normal),
        ]
        let tokenizer = try Tokenizer(pieceFile: self.file(pieces), sentinelCount: 0)
        #expect(tokenizer.encode("a\u{E9}") == [4, 5, 6, 1])
        #expect(tokenizer.encode("ae\u{301}") == [4, 5, 7, 1])
    }

    @Test
    func aDirectoryWithoutAPieceFileIsRefused() {
        let error = #expect(throws: TokenizerError.self) { try Tokenizer(directory: "/nonexistent") }
        #expect(error?.code == .unreadableFile)
        #expect(error?.file == "/nonexistent/spiece.model")
    }

    @Test
    func theConfigurationSaysHowManySentinelsThereAre() throws {
        let directory = FileManager.default.temporaryDirectory.appending(path: "tokenizer-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: directory) }
        try Data(self.file()).write(to: directory.appending(path: "spiece.model"))
        let configuration = directory.appending(path: "tokenizer_config.json")

        #expect(try Tokenizer(directory: directory.path()).vocabularySize == 107)
        try Data(#"{"extra_ids": 4, "model_max_length": 512}"#.utf8).write(to: configuration)
        #expect(try Tokenizer(directory: directory.path()).vocabularySize == 11)
        for content in ["{", #"{"extra_ids": -1}"#, #"{"extra_ids": "many"}"#, #"{"extra_ids": 1000000000}"#] {
            try Data(content.utf8).write(to: configuration)
            let error = #expect(throws: TokenizerError.self) { try Tokenizer(directory: directory.path()) }
            #expect(error?.file?.hasSuffix("tokenizer_config.json") == true)
        }
    }

    @Test
    func malformedFilesAreRefused() throws {
        self.expectMalformed([], saying: "no pieces")
        self.expectMalformed(Array("version https://git-lfs.github.com/spec/v1\n".utf8), saying: "not a SentencePiece")
        self.expectMalformed([0x0A, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F], saying: "bytes, of which")
        self.expectMalformed([UInt8](repeating: 0xFF, count: 11), saying: "an unterminated number")
        self.expectMalformed(self.file(modelType: 2), saying: "type 2")
        let two: [(String, Float, PieceFile.Kind)] = [("<pad>", 0, .control), ("<unk>", 0, .unknown)]
        #expect(throws: TokenizerError.self) { try Tokenizer(pieceFile: self.file(two), sentinelCount: 0) }
        let notANumber: [(String, Float, PieceFile.Kind)] = [("<pad>", .nan, .control)]
        self.expectMalformed(self.file(notANumber), saying: "score nan")
        self.expectMalformed(self.file(characterMap: [1]), saying: "precompiled_charsmap of 1 bytes")
        self.expectMalformed(self.file(characterMap: [255, 255, 255, 255, 0]), saying: "says that its trie has")
        self.expectMalformed(self.file(characterMap: [4, 0, 0, 0, 0, 0, 0, 0, 0xC3]), saying: "not UTF-8")
    }

    @Test
    func damagedFilesNeverCrash() throws {
        let sound = try TokenizerFixtures.pieceFile()
        var generator = SplitMix(state: 7)
        var refused = 0
        for _ in 0..<30 {
            var bytes = sound
            for _ in 0..<Int.random(in: 1...8, using: &generator) {
                bytes[Int.random(in: 0..<bytes.count, using: &generator)] = .random(in: 0...255, using: &generator)
            }
            if Bool.random(using: &generator) {
                bytes.removeLast(Int.random(in: 1..<bytes.count, using: &generator))
            }
            do {
                // The table of normalizations can be damaged without the file's being refused.
                let text = "Now is the w\u{00ED}nter \u{FF41}\u{0301} of our <extra_id_0>"
                #expect(try Tokenizer(pieceFile: bytes).encode(text).last == 1)
            } catch {
                refused += 1
            }
        }
        #expect(refused > 0)
    }
}

/// Random numbers that are the same in every run.
private struct SplitMix: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        self.state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = self.state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }
}
