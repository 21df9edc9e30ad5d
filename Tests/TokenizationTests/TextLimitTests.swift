// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@testable import Tokenization

/// What a text may cost: work ends at the limit, whatever makes the text expensive.
@Suite
struct TextLimitTests {
    private let tokenizer: Tokenizer

    init() throws { self.tokenizer = try TokenizerFixtures.shared.get().tokenizer }

    private func failure(_ text: String, _ limits: TextLimits) -> TokenizerError? {
        do throws(TokenizerError) {
            _ = try self.tokenizer.encode(text, limits: limits)
            return nil
        } catch {
            return error
        }
    }

    @Test("texts within the limits have the ids that they have without")
    func within() throws {
        for encoding in try TokenizerFixtures.shared.get().fixtures.texts.prefix(300) {
            #expect(try self.tokenizer.encode(encoding.text, limits: TextLimits(ids: 2_048)) == encoding.ids)
        }
    }

    @Test("the ids are counted with the end token, and encoding stops at the first word beyond")
    func ids() throws {
        let words = Array(repeating: "winter", count: 500).joined(separator: " ")
        let count = self.tokenizer.encode(words).count
        var limits = TextLimits()
        limits.ids = count
        #expect(try self.tokenizer.encode(words, limits: limits).count == count)
        limits.ids = count - 1
        #expect(self.failure(words, limits)?.code == .tooLong)
        limits.ids = 40
        var asked = 0
        #expect(throws: TokenizerError.self) {
            try self.tokenizer.encode(words, limits: limits) {
                asked += 1
                return false
            }
        }
        // The word that goes beyond is the last one.
        #expect(asked <= 41)
        #expect(self.failure(words, limits)?.message.contains("more than 40 tokens") == true)
        // Added tokens count too, without any word between them.
        #expect(self.failure(String(repeating: "<pad>", count: 50), limits)?.code == .tooLong)
    }

    @Test(
        "a text that grows, or that is one endless word or one endless letter, is refused by limit and value",
        arguments: [
            String(repeating: "\u{FDFA}", count: 80_000),  // a ligature of eighteen letters
            String(repeating: "\u{3300}", count: 60_000),  // a square of four kana
            "a" + String(repeating: "\u{301}", count: 100_000),  // one letter and its marks
            String(repeating: "x", count: 200_000), String(repeating: "\u{5B57}", count: 70_000),
        ]
    )
    func costly(text: String) throws {
        let limits = TextLimits(ids: 2_048)
        let error = self.failure(text, limits)
        #expect(error?.code == .tooLong)
        let message = try #require(error?.message)
        #expect(message.contains("\(limits.normalizedBytes)") || message.contains("\(limits.wordBytes)"), "\(message)")
    }

    @Test("a cancelled caller's text is given up between two words")
    func cancelled() {
        let words = Array(repeating: "winter", count: 500).joined(separator: " ")
        var asked = 0
        let error = #expect(throws: TokenizerError.self) {
            try self.tokenizer.encode(words, limits: TextLimits()) {
                asked += 1
                return asked > 7
            }
        }
        #expect(error?.code == .cancelled && asked == 8)
    }

    @Test("a piece longer than any published one is refused by id and length", arguments: [1_025, 105_000])
    func longPiece(length: Int) throws {
        let text = """
            {"model": {"type": "Unigram", "vocab": [["<pad>", 0.0], ["</s>", 0.0], ["<unk>", 0.0],
             ["\(String(repeating: "a", count: length))", -2.0]]}, "normalizer": null, "added_tokens": []}
            """
        let error = #expect(throws: TokenizerError.self) { _ = try self.open(text) }
        #expect(
            error?.description.contains("piece 3 has \(length) bytes; the limit is 1024") == true,
            "\(error as Any)"
        )
    }

    @Test("a normalization that turns one letter into a long text is refused", arguments: [1_025, 100_000])
    func longReplacement(length: Int) throws {
        // A trie of one unit, and a replacement.
        let table: [UInt8] = [4, 0, 0, 0, 0, 0, 0, 0] + Array(repeating: UInt8(ascii: "b"), count: length) + [0]
        let text = """
            {"model": {"type": "Unigram", "vocab": [["<pad>", 0.0], ["</s>", 0.0], ["<unk>", 0.0], ["a", -2.0]]},
             "normalizer": {"type": "Precompiled", "precompiled_charsmap": "\(Data(table).base64EncodedString())"},
             "added_tokens": []}
            """
        let error = #expect(throws: TokenizerError.self) { _ = try self.open(text) }
        #expect(error?.description.contains("\(length) bytes") == true, "\(error as Any)")
        #expect(error?.description.contains("the limit is 1024") == true)
    }

    private func open(_ text: String) throws -> Tokenizer {
        let folder = FileManager.default.temporaryDirectory.appending(path: "limits-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        try Data(text.utf8).write(to: folder.appending(path: "tokenizer.json"))
        return try Tokenizer(directory: folder.path)
    }
}
