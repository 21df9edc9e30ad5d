// SPDX-License-Identifier: Apache-2.0

import Receipts
import SwitchyardProtos
import Testing

/// A receipt whose parts fit each other, of no model.
enum SampleReceipt {
    static func make() throws -> Receipt {
        var request = GenerateRequest(input: .tokenIDs([7, 0, 1]))
        request.parameters = GenerationParameters()
        request.parameters?.maxNewTokens = 2
        request.parameters?.minNewTokens = 0
        request.parameters?.temperature = 0.1
        request.parameters?.seed = .max
        request.parameters?.stop = ["a\"b\\\n\u{1}\u{202E}é", ""]
        request.parameters?.sequenceBias = SequenceBiases(biases: [SequenceBias(tokens: [5], bias: -.infinity)])
        request.parameters?.earlyStopping = .never
        var generation = Generation(text: "a\u{0}b", tokenIDs: [4, 1], finishReason: .endOfSequence, score: -0.25)
        generation.logprobs = [
            TokenLogprob(tokenID: 4, logprob: -1e-20, top: [TokenCandidate(tokenID: 4, logprob: -.infinity)])
        ]
        return try Receipt(
            version: 1,
            model: ReceiptModel(
                fingerprint: "00aa11bb22cc33dd",
                gatewayWeights: .bfloat16,
                expertWeights: .int8,
                rowDType: .float32,
                capacity: "checkpoint",
                expertCapacity: 64,
                padTokenID: 0
            ),
            request: request,
            routes: ReceiptRoutes(
                encoder: ReceiptStackRoutes(
                    layers: [1],
                    tokens: 3,
                    experts: [0, 300, 2],
                    probabilities: [0.1, 1, 0.25]
                ),
                decoder: ReceiptStackRoutes(
                    layers: [1, 3],
                    tokens: 2,
                    experts: [0, 1, 2, 3],
                    probabilities: [0, 0.5, -0, 1]
                ),
                stepTokens: [1, 1]
            ),
            drops: [
                ReceiptDrop(stack: .encoder, token: 1, layer: 1, reason: .timeout),
                ReceiptDrop(stack: .decoder, token: 0, layer: 3, reason: .badReply),
            ],
            generations: [generation]
        )
        .sealed()
    }

    static func read(_ text: String) throws -> Receipt { try ReceiptFile.receipt(Array(text.utf8)) }
}

@Suite("Receipts as files")
struct ReceiptFileTests {
    @Test("a file gives the receipt that it was written from, whatever its white space, and the same text again")
    func roundTrip() throws {
        let receipt = try SampleReceipt.make()
        let text = ReceiptFile.text(receipt)
        let again = try SampleReceipt.read(text)
        #expect(again == receipt)
        try again.checkDigests()
        #expect(ReceiptFile.text(again) == text)
        #expect(try SampleReceipt.read(text.split(separator: "\n").map { $0.drop { $0 == " " } }.joined()) == receipt)
        for words in [
            "\"fingerprint\": \"00aa11bb22cc33dd\"", "\"seed\": \"18446744073709551615\"", "\"bias\": \"-Infinity\"",
            "\"probabilities\": [0.1, 1.0, 0.25]", "\"min_new_tokens\": 0", "\\u202e",
        ] {
            #expect(text.contains(words), "\(words)")
        }
        // Not text in a terminal: control characters are written as escapes.
        #expect(!text.unicodeScalars.contains { $0.value < 0x20 && $0 != "\n" })
    }

    /// A change of the file's text, and words of the error that it gives.
    private static let changes: [(from: String, to: String, words: [String])] = [
        ("\"version\": 1", "\"version\": 2", ["version", "is 2", "version 1"]),
        ("\"version\": 1", "\"version\": 1, \"version\": 1", ["the key \"version\" twice"]),
        ("\"version\": 1", "\"version\": 1, \"hash\": 1", ["hash", "is unknown"]),
        ("\"version\": 1", "\"version\": 1.0", ["version", "the number 1.0"]),
        ("\"version\": 1", "\"version\": -1", ["version", "32 bits"]),
        ("\"capacity\": \"checkpoint\"", "\"capacity\": 7", ["model.capacity", "must be a text"]),
        ("\"capacity\": \"checkpoint\",", "", ["digests.model"]),
        ("\"row_dtype\": \"FLOAT32\"", "\"row_dtype\": \"FLOAT33\"", ["model.row_dtype", "BFLOAT16"]),
        ("\"row_dtype\": \"FLOAT32\"", "\"row_dtype\": \"DTYPE_UNSPECIFIED\"", ["model.row_dtype", "nothing"]),
        ("\"fingerprint\": \"00aa11bb22cc33dd\"", "\"fingerprint\": \"00AA11bb22cc33dd\"", ["model.fingerprint"]),
        ("[0, 300, 2]", "[0, 70000, 2]", ["routes.encoder.experts[1]", "70000"]),
        ("[0, 300, 2]", "[0, 300]", ["routes.encoder.experts", "has 2 entries", "need 3"]),
        ("[0.1, 1.0, 0.25]", "[0.10000000001, 1.0, 0.25]", ["routes.encoder.probabilities[0]", "0.1"]),
        ("[0.1, 1.0, 0.25]", "[0.1, 1.0, \"x\"]", ["routes.encoder.probabilities[2]", "must be a number"]),
        ("\"step_tokens\": [1, 1]", "\"step_tokens\": [1, 2]", ["routes.step_tokens", "has 3 tokens"]),
        ("\"step_tokens\": [1, 1]", "\"step_tokens\": [2, 0]", ["routes.step_tokens[1]", "is 0"]),
        ("\"layers\": [1, 3]", "\"layers\": [3, 1]", ["routes.decoder.layers", "ascend"]),
        ("\"reason\": \"TIMEOUT\"", "\"reason\": \"LATE\"", ["drops[0].reason", "TIMEOUT"]),
        ("\"reason\": \"TIMEOUT\"", "\"reason\": null", ["drops[0].reason", "null"]),
        ("\"stack\": \"ENCODER\"", "\"stack\": \"DECODER\"", ["drops[1]", "in order"]),
        ("\"seed\": \"18446744073709551615\"", "\"seed\": 5", ["request.parameters.seed", "in quotes"]),
        (
            "\"seed\": \"18446744073709551615\"", "\"seed\": \"18446744073709551616\"",
            ["request.parameters.seed", "64 bits"]
        ),
        ("\"seed\": \"18446744073709551615\"", "\"seed\": \"+5\"", ["request.parameters.seed"]),
        ("\"generations\": [", "\"generations\": [ 5,", ["generations[0]", "must be an object"]),
        ("\"routes\": {", "\"routes\": 5, \"x\": {", ["x", "is unknown"]),
    ]

    @Test("a changed file is refused, and the field is named", arguments: Self.changes.indices)
    func refused(index: Int) throws {
        let change = Self.changes[index]
        let text = ReceiptFile.text(try SampleReceipt.make())
        let changed = text.replacing(change.from, with: change.to, maxReplacements: 1)
        try #require(changed != text, "\(change.from) is not in the file")
        let error = #expect(throws: ReceiptError.self) { try SampleReceipt.read(changed).checkDigests() }
        for word in change.words {
            #expect(error?.description.contains(word) == true, "\(error?.description ?? "no error") lacks \(word)")
        }
    }

    @Test("each digest is of its part, and of nothing else")
    func digests() throws {
        let receipt = try SampleReceipt.make()
        let changes: [(part: String, change: (inout Receipt) -> Void)] = [
            ("model", { $0.model?.expertCapacity += 1 }), ("request", { $0.request?.parameters?.seed = 0 }),
            ("routes", { $0.routes?.decoder?.probabilities[3] = 0.999_999_94 }), ("drops", { $0.drops.removeLast() }),
            ("generations", { $0.generations[0].score = -0.250_000_03 }),
            ("receipt", { $0.digests?.receipt[31] ^= 1 }), ("drops", { $0.digests?.drops[0] ^= 0x80 }),
        ]
        for (part, change) in changes {
            var changed = receipt
            change(&changed)
            let error = #expect(throws: ReceiptError.self) { try changed.checkDigests() }
            #expect(error?.field == "digests.\(part)")
        }
        // The digest of the receipt stands for all the others.
        var other = receipt
        other.drops = []
        #expect(try other.sealed().digests?.receipt != receipt.digests?.receipt)
        #expect(try other.sealed().digests?.routes == receipt.digests?.routes)
    }

    @Test("what is no receipt, and what is too large, is refused in words")
    func rubbish() throws {
        for (text, words) in [
            ("", "not JSON"), ("[]", "an array"), ("{}", "version"), ("{\"version\": 1}", "model"),
            ("{\"version\": 1,}", "trailing comma"), ("\u{FEFF}{}", "byte order mark"),
            (String(repeating: "[", count: 500), "inside each other"),
        ] {
            let error = #expect(throws: ReceiptError.self) { try SampleReceipt.read(text) }
            #expect(error?.description.contains(words) == true, "\(error?.description ?? "")")
        }
        let large = [UInt8](repeating: 0x20, count: ReceiptFile.maxBytes + 1)
        let error = #expect(throws: ReceiptError.self) { try ReceiptFile.receipt(large) }
        #expect(error?.description.contains("the limit is \(ReceiptFile.maxBytes)") == true)
    }
}
