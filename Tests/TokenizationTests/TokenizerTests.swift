// SPDX-License-Identifier: Apache-2.0

import Testing
import Tokenization

@Suite
struct TokenizerTests {
    let tokenizer: Tokenizer
    let fixtures: TokenizerFixtures

    init() throws {
        (self.fixtures, self.tokenizer) = try TokenizerFixtures.shared.get()
    }

    @Test
    func idsAreThoseOfTransformers() {
        #expect(self.fixtures.texts.count >= 2_000)
        for fixture in self.fixtures.texts {
            #expect(self.tokenizer.encode(fixture.text) == fixture.ids, "\(fixture.text.debugDescription)")
        }
    }

    @Test
    func decodedTextIsThatOfTransformers() {
        for fixture in self.fixtures.texts {
            #expect(self.tokenizer.decode(fixture.ids).codePoints == fixture.decoded.codePoints, "\(fixture.ids)")
        }
        for fixture in self.fixtures.decodings {
            #expect(self.tokenizer.decode(fixture.ids).codePoints == fixture.text.codePoints, "\(fixture.ids)")
            let plain = self.tokenizer.decode(fixture.ids, skipSpecialTokens: true)
            #expect(plain.codePoints == fixture.plain.codePoints, "\(fixture.ids)")
        }
    }

    @Test(arguments: [false, true])
    func incrementalTextAddsUpToTheWhole(skipSpecialTokens: Bool) {
        for fixture in self.fixtures.texts.prefix(600) {
            var decoder = self.tokenizer.makeDecoder(skipSpecialTokens: skipSpecialTokens)
            let parts = fixture.ids.map { decoder.append($0) }
            let whole = self.tokenizer.decode(fixture.ids, skipSpecialTokens: skipSpecialTokens)
            #expect(parts.joined().codePoints == whole.codePoints)
            #expect(parts.count == fixture.ids.count)
        }
    }

    @Test
    func sentinelsFollowThePiecesInDescendingOrder() {
        #expect(self.tokenizer.vocabularySize == 2_048)
        #expect(self.tokenizer.sentinelID(0) == 2_047)
        #expect(self.tokenizer.sentinelID(99) == 1_948)
        #expect(self.tokenizer.sentinelID(100) == nil)
        #expect(self.tokenizer.sentinelID(-1) == nil)
        #expect(self.tokenizer.token(2_047) == "<extra_id_0>")
        #expect(self.tokenizer.token(2_048) == nil)
        #expect(self.tokenizer.token(-1) == nil)
        #expect(self.tokenizer.endTokenID == 1)
        #expect(self.tokenizer.unknownTokenID == 2)
    }

    @Test
    func negativeIDsAreLeftOut() {
        #expect(self.tokenizer.decode([158, -1, .min, .max, 54]) == self.tokenizer.decode([158, 54]))
    }

    @Test
    func bytesThatAreNoTextAreRefused() throws {
        #expect(try self.tokenizer.encode(utf8: Array("Now\0is".utf8)) == self.tokenizer.encode("Now\0is"))
        for bytes: [UInt8] in [[0xFF], [0x41, 0xC3], [0xED, 0xA0, 0x80], [0xC0, 0x80], [0xF4, 0x90, 0x80, 0x80]] {
            let error = #expect(throws: TokenizerError.self) { try self.tokenizer.encode(utf8: bytes) }
            #expect(error?.code == .invalidText)
        }
    }

    @Test
    func aLongTextIsEncodedWordByWord() {
        let line = self.tokenizer.encode("Now is the winter of our <extra_id_0> discontent").dropLast()
        let count = 1_000
        let text = String(repeating: "Now is the winter of our <extra_id_0> discontent\n", count: count)
        #expect(self.tokenizer.encode(text) == (0..<count).flatMap { _ in line } + [1])
    }

    @Test
    func aLongWordIsEncodedInOnePiece() {
        // In a time that grew with the square of the length these would take minutes.
        #expect(self.tokenizer.encode(String(repeating: "\u{65E5}", count: 100_000)) == [7, 2, 1])
        #expect(self.tokenizer.encode("e" + String(repeating: "\u{301}", count: 50_000)) == [516, 2, 1])
        #expect(self.tokenizer.encode(String(repeating: "<", count: 60_000)).last == 1)
    }
}
