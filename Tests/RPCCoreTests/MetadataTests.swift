// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import RPCCore

@Suite struct MetadataTests {
    @Test func `values of a key keep their order and keys ignore case`() throws {
        var metadata = Metadata()
        try metadata.add("one", forKey: "X-Name")
        try metadata.add("other", forKey: "y")
        try metadata.add("two", forKey: "x-name")
        try metadata.add(binary: [0, 255], forKey: "Blob-Bin")
        #expect(metadata[text: "X-NAME"] == ["one", "two"])
        #expect(metadata.first("x-name") == "one")
        #expect(metadata[binary: "blob-bin"] == [[0, 255]])
        #expect(metadata.entries.map(\.key) == ["x-name", "y", "x-name", "blob-bin"])
        metadata.removeAll(forKey: "X-name")
        #expect(metadata.entries.map(\.key) == ["y", "blob-bin"])
    }

    @Test(arguments: [
        ("", MetadataError.Code.invalidKey), ("a b", .invalidKey), (":path", .invalidKey), ("ä", .invalidKey),
        ("grpc-status", .reservedKey), ("TE", .reservedKey), ("content-type", .reservedKey),
        ("x-bin", .textForBinaryKey),
    ])
    func `a wrong key is refused by name`(key: String, code: MetadataError.Code) {
        var metadata = Metadata()
        #expect { try metadata.add("value", forKey: key) } throws: { ($0 as? MetadataError)?.code == code }
        #expect(metadata.isEmpty)
    }

    @Test(arguments: [" a", "a ", "a\u{0}", "a\nb", "ü", "\u{7F}"])
    func `a wrong value is refused`(value: String) {
        var metadata = Metadata()
        #expect(throws: MetadataError(code: .invalidValue, key: "k")) { try metadata.add(value, forKey: "k") }
        #expect(throws: MetadataError(code: .binaryForTextKey, key: "k")) { try metadata.add(binary: [1], forKey: "k") }
        #expect(metadata.isEmpty)
    }

    @Test func `binary values are split at commas before they are decoded`() throws {
        var metadata = Metadata()
        try metadata.addReceived(HeaderField("k-bin", "Zg==,Zm8, Zm9v"))
        #expect(metadata[binary: "k-bin"] == [[0x66], [0x66, 0x6F], [0x66, 0x6F, 0x6F]])
        var fields: [HeaderField] = []
        metadata.append(to: &fields)
        #expect(fields == [HeaderField("k-bin", "Zg"), HeaderField("k-bin", "Zm8"), HeaderField("k-bin", "Zm9v")])
    }

    @Test func `a received field that gRPC does not allow is dropped and a broken binary one is an error`() throws {
        var metadata = Metadata()
        try metadata.addReceived(HeaderField("a~b", "v"))
        try metadata.addReceived(HeaderField("grpc-encoding", "gzip"))
        try metadata.addReceived(HeaderField("k", "caf\u{E9}"))
        try metadata.addReceived(HeaderField("padded", "  v, w "))
        #expect(metadata.entries.map(\.key) == ["padded"])
        #expect(metadata.first("padded") == "v, w")
        #expect(throws: MetadataError(code: .invalidBase64, key: "k-bin")) {
            try metadata.addReceived(HeaderField("k-bin", "!"))
        }
    }
}
