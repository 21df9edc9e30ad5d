// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing
import Tokenization

/// Tokenizers in every layout that checkpoints have, with added tokens of all flags, beside what transformers gives.
///
/// `make_added_token_fixtures.py` makes the folders and says what each is.
@Suite
struct AddedTokenTests {
    /// What transformers gives with one folder's tokenizer.
    private struct Expected: Decodable {
        var size: Int
        var texts: [TokenizerFixtures.Encoding]
        var decodings: [TokenizerFixtures.Decoding]
    }

    static let folders = [
        "both", "decoder", "json-alone", "legacy", "no-pad", "own-sentinels", "saved-5", "split-special",
    ]

    private static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .appending(path: "Fixtures/added")

    private func load(_ folder: String) throws -> (tokenizer: Tokenizer, expected: Expected) {
        let folder = Self.root.appending(path: folder)
        let content = try Data(contentsOf: folder.appending(path: "expected.json"))
        return (try Tokenizer(directory: folder.path()), try JSONDecoder().decode(Expected.self, from: content))
    }

    @Test(arguments: Self.folders)
    func idsAreThoseOfTransformers(folder: String) throws {
        let (tokenizer, expected) = try self.load(folder)
        #expect(tokenizer.vocabularySize == expected.size)
        #expect(expected.texts.count == 250)
        for fixture in expected.texts {
            #expect(tokenizer.encode(fixture.text) == fixture.ids, "\(fixture.text.debugDescription)")
        }
    }

    @Test(arguments: Self.folders)
    func textIsThatOfTransformersWholeAndStreamed(folder: String) throws {
        let (tokenizer, expected) = try self.load(folder)
        #expect(expected.decodings.count == 64)
        for fixture in expected.decodings {
            for (text, skips) in [(fixture.text, false), (fixture.plain, true)] {
                let whole = tokenizer.decode(fixture.ids, skipSpecialTokens: skips)
                #expect(whole.codePoints == text.codePoints, "\(fixture.ids)")
                var decoder = tokenizer.makeDecoder(skipSpecialTokens: skips)
                let parts = fixture.ids.map { decoder.append($0) } + [decoder.finish()]
                #expect(parts.joined().codePoints == text.codePoints, "\(fixture.ids)")
            }
        }
        for fixture in expected.texts {
            #expect(tokenizer.decode(fixture.ids).codePoints == fixture.decoded.codePoints, "\(fixture.ids)")
        }
    }

    @Test
    func runsOfWhiteSpaceThatTokensTakeAreReadOnce() throws {
        // Each "\n" of this tokenizer is a token; in a time that grew with the square of the length this would take long.
        let (tokenizer, _) = try self.load("saved-5")
        let text = String(repeating: "\t", count: 200_000)
        #expect(tokenizer.encode(text).last == tokenizer.endTokenID)
        #expect(tokenizer.encode(String(repeating: "\n", count: 200_000)).count > 100_000)
    }

    @Test
    func heldBackSpacesComeAtTheEnd() throws {
        let (tokenizer, _) = try self.load("legacy")
        var decoder = tokenizer.makeDecoder()
        // A marker after the first token is a space, which a full stop would take away.
        #expect(decoder.append(2) == "<unk>")
        let space = try #require((0..<300).first { tokenizer.token($0) == "\u{2581}" })
        #expect(decoder.append(space) == "")
        #expect(decoder.finish() == " ")
        #expect(decoder.finish() == "")
    }
}
