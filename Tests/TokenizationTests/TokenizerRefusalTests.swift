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
         "added_tokens": [{"id": 0, "content": "<pad>", "special": true, FLAGS}, {"id": 5, "content": "<extra_id_0>", "special": true, FLAGS}]}
        """
        .replacing("FLAGS", with: #""single_word": false, "lstrip": false, "rstrip": false, "normalized": false"#)

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

    // MARK: - What Python's json and the tokenizers library's serde do, both of which read the file

    /// The sound file with one part replaced.
    private func changed(_ part: String, _ replacement: String) throws -> String {
        let text = Self.sound.replacing(part, with: replacement, maxReplacements: 1)
        try #require(text != Self.sound)
        return text
    }

    @Test(arguments: [
        // Of two equal keys the last counts.
        (#"{"model""#, #"{"model": {"vocab": [["x", 0]]}, "model""#),
        (#""added_tokens""#, #""added_tokens": [], "added_tokens""#),
        (#""vocab""#, #""vocab": [["x", 0]], "vocab""#),
        (#""normalizer": null"#, #""normalizer": {"type": "Precompiled"}, "normalizer": null"#),
        (#"{"type": "Unigram", "#, "{"), (#""type": "Unigram""#, #""type": "Unigram", "other": [NULL]"#),
        (#""type": "Unigram""#, #""type": "Unigram", "unk_id": 4"#),
        (#""type": "Unigram""#, #""type": "Unigram", "unk_id": null"#),
        (#"{"model""#, #"{"version": "1.0", "truncation": null, "decoder": {"a": [1]}, "model""#),
        (#"["a", -3.0]"#, #"["a", -3]"#),
        (#""special": true,"#, #""special": true, "other": 1,"#),
        (#""\u2581""#, #""\u2581\u0000", 1], ["\ud83d\ude00""#),
    ])
    func whatTransformersReadsIsRead(part: String, replacement: String) throws {
        let text = try self.changed(part, replacement.replacing("NULL", with: "null"))
        #expect(throws: Never.self) { try self.open(text) }
    }

    @Test func theLastOfTwoVocabulariesCounts() throws {
        let other = #""vocab": [["<pad>", 0], ["</s>", 0], ["<unk>", 0], ["a", -1]], "vocab""#
        #expect(try self.open(try self.changed(#""vocab""#, other)).encode("a<extra_id_0>") == [3, 4, 5, 1])
        let behind = #"["a", -3.0]], "vocab": [["<pad>", 0], ["</s>", 0], ["<unk>", 0], ["a", -1], ["\u2581", -2]]"#
        #expect(try self.open(try self.changed(#"["a", -3.0]]"#, behind)).encode("a<extra_id_0>") == [4, 3, 5, 1])
    }

    @Test(arguments: [
        (#"{"type": "Unigram""#, #"{"type": "Unigram", "type": "Unigram""#, "model.type twice"),
        (#""special": true,"#, #""special": true, "special": true,"#, "twice"),
        (#""lstrip": false, "#, "", "lstrip is missing"),
        (#""normalized": false"#, #""normalized": null"#, "normalized is null"),
        (#""id": 5"#, #""id": 5.0"#, "id is 5"),
        (#"{"model""#, #"{"other": 1, "model""#, "unknown key \"other\""),
        (#"{"model""#, #"{"version": "2.0", "model""#, "version is \"2.0\""),
        (#""type": "Unigram""#, #""type": "Unigram", "unk_id": 5"#, "model.unk_id is 5"),
        (#"["a", -3.0]"#, #"["a", -3.0,]"#, "trailing comma"), (#"["a", -3.0]"#, #"["a", NaN]"#, "no value"),
        (#"["a", -3.0]"#, #"["a", -1e400]"#, "out of range"), (#"["a", -3.0]"#, #"["a", -03.0]"#, "begins with 0"),
        (#"["a", -3.0]"#, #"["a", -3.0, 1]"#, "model.vocab[4][2]"),
        (#"["a", -3.0]"#, #"["a\ud800", -3.0]"#, "surrogate"),
        (#"["a", -3.0]"#, "[\"a\u{1}\", -3.0]", "control character"),
        (#""normalizer": null"#, #""normalizer": null,"#, "key in quotes"),
    ])
    func whatTransformersRefusesIsRefused(part: String, replacement: String, words: String) throws {
        let text = try self.changed(part, replacement)
        let error = #expect(throws: TokenizerError.self) { try self.open(text) }
        #expect(error?.description.contains(words) == true, "\(error as Any)")
    }

    @Test func onlyPlainUTF8IsRead() throws {
        let texts: [(Data, String)] = [
            (Data([0xEF, 0xBB, 0xBF] + Self.sound.utf8), "byte order mark"),
            (Self.sound.data(using: .utf16) ?? Data(), "UTF-16"),
            (Self.sound.data(using: .utf16BigEndian) ?? Data(), "UTF-16"),
            (Data(Self.sound.utf8) + Data([0x20, 0x78]), "more text"),
            (Data(Self.sound.utf8) + Data([0xFF]), "more text"), (Data(), "an object is needed"),
        ]
        for (bytes, words) in texts {
            let fault = #expect(throws: TokenizerError.self) { try TokenizerJSON.decode(bytes, path: "tokenizer.json") }
            #expect(fault?.description.contains(words) == true, "\(fault as Any)")
        }
        for name in ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"] {
            for wrong in ["\u{FEFF}{}", #"{"a": 1,}"#, "[]", "{} {}"] {
                let error = #expect(throws: TokenizerError.self) { try self.open(Self.sound, [name: wrong]) }
                #expect(error?.file?.hasSuffix(name) == true, "\(error as Any)")
            }
        }
        // Of two equal keys the last counts, as in Python.
        let twice = #"{"extra_ids": 3, "extra_ids": 2}"#
        #expect(try self.open(Self.sound, ["tokenizer_config.json": twice]).sentinelCount == 2)
    }
}
