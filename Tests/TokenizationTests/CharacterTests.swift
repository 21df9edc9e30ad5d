// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing
import Tokenization

/// A tokenizer of single characters, as labml's models have it.
@Suite("Single characters")
struct CharacterTests {
    private static let directory = URL(fileURLWithPath: #filePath).appending(path: "../../Fixtures/labml/tiny")
        .standardizedFileURL.path()

    @Test("each code point has its place, and comes back as it was")
    func roundTrip() throws {
        let tokenizer = try #require(try Tokenizer.find(in: Self.directory))
        #expect(tokenizer.vocabularySize == 18 && tokenizer.endTokenID == nil && tokenizer.sentinelCount == 0)
        // An accent that joins the letter before it is a character of its own, and T5's sign for a space is no space.
        let text = "ae\u{301}\u{E9} \n\u{2581}\u{20AC}\u{1F600}"
        let ids: [Int32] = [2, 6, 14, 13, 1, 0, 15, 16, 17]
        #expect(tokenizer.encode(text) == ids)
        #expect(try tokenizer.encode(utf8: text.utf8) == ids)
        #expect(tokenizer.decode(ids).unicodeScalars.elementsEqual(text.unicodeScalars))
        var decoder = tokenizer.makeDecoder()
        for (id, scalar) in zip(ids, text.unicodeScalars) {
            #expect(Array(decoder.append(id).unicodeScalars) == [scalar])
        }
        #expect(decoder.finish().isEmpty && decoder.append(18).isEmpty && decoder.append(-1).isEmpty)
        #expect(tokenizer.token(17) == "\u{1F600}" && tokenizer.token(18) == nil)
        #expect(try Tokenizer(directory: Self.directory).vocabularySize == 18)
    }

    @Test("what has no id is refused by name, and lengths are bounded")
    func refusals() throws {
        let tokenizer = try Tokenizer(characters: "abc", path: "config.json")
        let unknown = #expect(throws: TokenizerError.self) { try tokenizer.encode(utf8: "ab\tc".utf8) }
        #expect(unknown?.code == .unknownCharacter)
        #expect(unknown?.message.contains("U+0009 at place 2") == true)
        let long = #expect(throws: TokenizerError.self) {
            try tokenizer.encode("abcabc", limits: TextLimits(ids: 5))
        }
        #expect(long?.code == .tooLong && long?.message.contains("5 tokens") == true)
        #expect(try tokenizer.encode("abcab", limits: TextLimits(ids: 5)) == [0, 1, 2, 0, 1])
        // As labml's own reader does, where nothing can be reported.
        #expect(tokenizer.encode("axb") == [0, 1])
    }

    @Test(
        "lists that are no vocabulary are refused",
        arguments: [
            (#"{"characters": "aba"}"#, ["config.json", "\"a\" (U+0061)", "0 and 2"]),
            (#"{"characters": ""}"#, ["is empty"]),
            (#"{"characters": 3}"#, ["characters must be a string", "3"]),
        ]
    )
    func lists(configuration: String, words: [String]) throws {
        let folder = FileManager.default.temporaryDirectory.appending(
            path: "switchyard-characters-\(UUID().uuidString)"
        )
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        try Data(configuration.utf8).write(to: folder.appending(path: "config.json"))
        let error = #expect(throws: TokenizerError.self) { _ = try Tokenizer.find(in: folder.path()) }
        for word in words { #expect(error?.description.contains(word) == true, "\(String(describing: error))") }
    }
}
