// SPDX-License-Identifier: Apache-2.0

import RPCCore
import Testing

@Suite struct PercentEncodingTests {
    @Test(arguments: [
        ("", ""), ("plain text~ !", "plain text~ !"), ("50%", "50%25"), ("a\tb\r\nc", "a%09b%0D%0Ac"),
        ("\u{7F}", "%7F"), ("ü", "%C3%BC"),
        (
            "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n",
            "%09%0Atest with whitespace%0D%0Aand Unicode BMP %E2%98%BA and non-BMP %F0%9F%98%88%09%0A"
        ),
        ("a\0b", "a%00b"), (" ", "%20"), (" both ends ", "%20both ends%20"),
    ])
    func `a message survives the wire`(message: String, encoded: String) {
        #expect(PercentEncoding.encode(message) == encoded)
        #expect(PercentEncoding.decode(encoded) == message)
    }

    @Test(arguments: [
        ("%", "%"), ("%4", "%4"), ("%zz", "%zz"), ("%e2%98%ba", "☺"), ("%%41", "%A"), ("100%", "100%"),
        ("%FF", "\u{FFFD}"), ("a%4", "a%4"), ("ü", "ü"),
    ])
    func `decoding keeps what is no escape and repairs what is no UTF-8`(encoded: String, message: String) {
        #expect(PercentEncoding.decode(encoded) == message)
    }

    @Test(arguments: [
        ("", 3, ""), ("abc", 3, "abc"), ("abcd", 3, "..."), ("abcdef", 5, "ab..."), ("a%%%", 10, "a%25%25%25"),
        ("a%%%", 9, "a%25..."), ("ü", 6, "%C3%BC"), ("üü", 11, "%C3%BC..."), ("aüx", 7, "a..."), ("%", 3, "%25"),
    ])
    func `a message that is too long is cut between its characters`(message: String, limit: Int, encoded: String) {
        #expect(PercentEncoding.encode(message, limitBytes: limit) == encoded)
    }

    @Test func `no status message is longer than clients take`() {
        for message in [String(repeating: "x", count: 100_000), String(repeating: "☺", count: 50_000)] {
            let fields = Trailers(status: Status(code: .internal, message: message)).fields()
            #expect((4_080...4_096).contains(fields.last?.value.utf8.count ?? 0))
            let read = Trailers.parse(fields).status
            #expect(read.code == .internal)
            #expect(message.hasPrefix(read.message.dropLast(3)))
        }
    }

    @Test func `any bytes decode`() {
        var generator = SplitMix(seed: 1)
        for _ in 0..<5000 {
            let bytes = (0..<Int.random(in: 0...24, using: &generator))
                .map { _ in
                    [UInt8(ascii: "%"), UInt8(ascii: "4"), UInt8.random(in: 0...255, using: &generator)]
                        .randomElement(using: &generator) ?? 0
                }
            let text = String(decoding: bytes, as: UTF8.self)
            let message = PercentEncoding.decode(text)
            #expect(PercentEncoding.decode(PercentEncoding.encode(message)) == message)
        }
    }
}

@Suite struct Base64Tests {
    @Test(
        arguments: [
            ([], ""), ([0x66], "Zg"), ([0x66, 0x6F], "Zm8"), ([0x66, 0x6F, 0x6F], "Zm9v"),
            ([0x66, 0x6F, 0x6F, 0x62], "Zm9vYg"), ([0xFB, 0xFF, 0xBF], "+/+/"), ([0, 0, 0], "AAAA"),
        ] as [([UInt8], String)]
    )
    func `bytes are written unpadded and read both ways`(bytes: [UInt8], text: String) {
        #expect(Base64.encode(bytes) == text)
        #expect(Base64.decode(text) == bytes)
        let padding = String(repeating: "=", count: (4 - text.utf8.count % 4) % 4)
        #expect(Base64.decode(text + padding) == bytes)
    }

    @Test(arguments: ["A", "AAAAA", "Zg=", "Zg===", "=", "====", "Z g=", "Zg-_", "Zm9v=", "é", "Zg==Zg=="])
    func `other text is refused`(text: String) {
        #expect(Base64.decode(text) == nil)
    }

    @Test func `random bytes come back`() {
        var generator = SplitMix(seed: 2)
        for count in 0..<200 {
            let bytes = (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) }
            let text = Base64.encode(bytes)
            #expect(!text.contains("="))
            #expect(Base64.decode(text) == bytes)
        }
    }
}
