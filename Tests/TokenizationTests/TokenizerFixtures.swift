// SPDX-License-Identifier: Apache-2.0

import Foundation
import Tokenization

/// What transformers gives for many texts with the miniature's tokenizer; `make_tokenizer_fixtures.py` writes it.
struct TokenizerFixtures: Decodable {
    /// A text, its ids, and the text that the ids decode to.
    struct Encoding: Decodable {
        var text: String
        var ids: [Int32]
        var decoded: String

        init(from decoder: any Decoder) throws {
            var list = try decoder.unkeyedContainer()
            self.text = try list.decode(String.self)
            self.ids = try list.decode([Int32].self)
            self.decoded = try list.decode(String.self)
        }
    }

    /// Ids, and what they decode to with and without special tokens.
    struct Decoding: Decodable {
        var ids: [Int32]
        var text: String
        var plain: String
    }

    var texts: [Encoding]
    var decodings: [Decoding]

    /// The repository's root.
    private static let root = URL(fileURLWithPath: #filePath).appending(path: "../../..").standardizedFileURL

    /// The miniature's directory.
    static let miniature = Self.root.appending(path: "deploy/models/switch-mini").path()

    /// The fixtures and the miniature's tokenizer, read once.
    static let shared = Result {
        let file = Self.root.appending(path: "Tests/TokenizationTests/Fixtures/tokenizer.json")
        let fixtures = try JSONDecoder().decode(Self.self, from: Data(contentsOf: file))
        return (fixtures: fixtures, tokenizer: try Tokenizer(directory: Self.miniature))
    }

    /// The miniature's `spiece.model`.
    static func pieceFile() throws -> [UInt8] {
        try [UInt8](Data(contentsOf: URL(fileURLWithPath: Self.miniature).appending(path: Tokenizer.pieceFileName)))
    }
}

extension String {
    /// The code points, because strings that differ in their normalization compare as equal.
    var codePoints: [UInt32] { self.unicodeScalars.map(\.value) }
}
