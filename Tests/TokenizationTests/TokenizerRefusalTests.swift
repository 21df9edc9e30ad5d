// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@testable import Tokenization

/// A `tokenizer.json` that is no T5 tokenizer's is refused by file, key and value.
@Suite
struct TokenizerRefusalTests {
    private static let sound = """
        {"model": {"type": "Unigram", "vocab": [["<pad>", 0.0], ["</s>", 0.0], ["<unk>", 0.0], ["\\u2581", -2.0], ["a", -3.0]]},
         "normalizer": null,
         "added_tokens": [{"id": 0, "content": "<pad>", "special": true}, {"id": 5, "content": "<extra_id_0>", "special": true}]}
        """

    /// Opens a folder with a `tokenizer.json` and other files.
    private func open(_ text: String, _ others: [String: String] = [:]) throws -> Tokenizer {
        let folder = FileManager.default.temporaryDirectory.appending(path: "refusal-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        try Data(text.utf8).write(to: folder.appending(path: "tokenizer.json"))
        for (name, text) in others { try Data(text.utf8).write(to: folder.appending(path: name)) }
        return try Tokenizer(directory: folder.path)
    }

    @Test
    func theSoundFileIsRead() throws {
        // transformers 5.23 appends its hundred sentinels in either case: an id that the file gives is not what counts.
        for id in [5, 9, 2_147_483_648] {
            let tokenizer = try self.open(Self.sound.replacing("\"id\": 5", with: "\"id\": \(id)"))
            #expect(tokenizer.encode("a<extra_id_0>") == [3, 4, 5, 1])
            #expect(tokenizer.vocabularySize == 105)
        }
    }

    @Test(
        arguments: [
            // Other kinds of model.
            (#""Unigram""#, #""BPE""#, ["model.type", "\"BPE\"", "Unigram"]),
            (#""Unigram""#, #""WordPiece""#, ["model.type", "\"WordPiece\""]),
            (#""Unigram""#, #""WordLevel""#, ["model.type", "\"WordLevel\""]),
            (#""Unigram""#, "7", ["model.type"]),
            // Pieces.
            (#"["a", -3.0]"#, #"["a", "low"]"#, ["model.vocab[4][1]"]),
            (#"["a", -3.0]"#, #"["a"]"#, ["model.vocab[4]"]),
            (#"["a", -3.0]"#, #"[3, -3.0]"#, ["model.vocab[4][0]"]),
            (#"["a", -3.0]"#, #"["", -3.0]"#, ["model.vocab[4]", "\"\""]),
            (#"["a", -3.0]"#, #"["a", 1e39]"#, ["model.vocab[4]", "inf"]),
            (#"["a", -3.0]"#, #"{"a": -3.0}"#, ["model.vocab[4]"]),
            // The table of normalizations.
            (
                "null", #"{"type": "Precompiled", "precompiled_charsmap": "***"}"#,
                ["normalizer.precompiled_charsmap", "\"***\"", "Base64"]
            ),
            (
                "null", #"{"type": "Sequence", "normalizers": [{"type": "Precompiled", "precompiled_charsmap": 3}]}"#,
                ["normalizer.precompiled_charsmap", "3"]
            ),
            ("null", #"{"type": "Sequence", "normalizers": {}}"#, ["normalizer.normalizers", "an object"]),
            ("null", "[]", ["normalizer", "an array"]),
            ("null", #"{"type": "Precompiled", "precompiled_charsmap": "AAAA"}"#, []),
            // Added tokens and their ids.
            (#""id": 5"#, #""id": -1"#, ["added_tokens[1]", "-1"]),
            (#""id": 5"#, #""id": 4294967296"#, ["added_tokens[1]", "4294967296"]),
            (#""id": 5"#, #""id": 2.5"#, ["added_tokens[1].id", "2.5"]),
            (#""id": 5"#, #""id": "5""#, ["added_tokens[1].id", "\"5\""]),
            (#""id": 5, "#, "", ["added_tokens[1].id", "missing"]),
            (#""content": "<extra_id_0>""#, #""content": 4"#, ["added_tokens[1].content"]),
            (
                #""content": "<extra_id_0>", "special": true"#, #""content": "x", "special": "yes""#,
                ["special", "\"yes\""]
            ),
            // The file.
            (#""added_tokens""#, #""other_tokens""#, ["added_tokens"]),
            (#""model""#, #""weights""#, ["model"]),
            ("}]}", "}]", []),
        ] as [(String, String, [String])]
    )
    func aFaultIsNamed(part: String, replacement: String, words: [String]) throws {
        let text = Self.sound.replacing(part, with: replacement, maxReplacements: 1)
        #expect(text != Self.sound)
        let error = #expect(throws: TokenizerError.self) { try self.open(text) }
        let description = error?.description ?? ""
        for word in words + ["tokenizer.json"] { #expect(description.contains(word), "no \(word) in: \(description)") }
    }

    @Test
    func pythonsNumbersAreReadAsInPython() throws {
        let settings = #"{"model_max_length": Infinity, "scale": NaN, "low": -Infinity, "extra_ids": 3}"#
        #expect(try self.open(Self.sound, ["tokenizer_config.json": settings]).sentinelCount == 3)
        let wrong = settings.replacing(": 3}", with: ": NaN}")
        let error = #expect(throws: TokenizerError.self) {
            try self.open(Self.sound, ["tokenizer_config.json": wrong])
        }
        #expect(error?.description.contains("tokenizer_config.json: extra_ids is nan") == true, "\(error as Any)")
        // The class of a configuration that a trainer has left such numbers in is still seen.
        let model = #"{"loss": NaN, "tokenizer_class": "BertTokenizer"}"#
        let other = #expect(throws: TokenizerError.self) { try self.open(Self.sound, ["config.json": model]) }
        #expect(other?.description.contains("BertTokenizer") == true, "\(other as Any)")
    }
}
