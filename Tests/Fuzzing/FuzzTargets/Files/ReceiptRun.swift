// SPDX-License-Identifier: Apache-2.0

import Receipts
import SwitchyardProtos

/// A receipt that somebody hands to `switchyard verify`.
enum ReceiptRun {
    static func receipt(_ bytes: [UInt8], _ trace: inout Trace) throws(FuzzFinding) {
        let receipt: Receipt
        do throws(ReceiptError) {
            receipt = try ReceiptFile.receipt(bytes)
        } catch {
            return try expectWords("\(error)", &trace)
        }
        trace.accept()
        trace.note(size: receipt.routes?.decoder?.experts.count ?? 0)
        trace.note(size: receipt.drops.count)
        do throws(ReceiptError) {
            let again = try ReceiptFile.receipt(Array(ReceiptFile.text(receipt).utf8))
            guard again.serialized() == receipt.serialized() else { throw ReceiptError("", "BROKEN another one") }
            try receipt.sealed().checkDigests()
            try receipt.checkDigests()
        } catch {
            // The seeds' digests hold; most mutated receipts contradict theirs.
            let isExpected = error.field.hasPrefix("digests.")
            guard isExpected else { throw FuzzFinding("an accepted receipt can be written and read", "\(error)") }
            try expectWords("\(error)", &trace)
        }
    }

    /// Receipts of no model.
    static let seeds: [(name: String, bytes: [UInt8])] = {
        let base = Receipt(
            version: 1,
            model: ReceiptModel(
                fingerprint: "00aa11bb22cc33dd",
                gatewayWeights: .bfloat16,
                expertWeights: .int8,
                rowDType: .float32,
                capacity: "checkpoint",
                expertCapacity: 64
            ),
            request: GenerateRequest(
                input: .tokenIDs([7, 1]),
                parameters: GenerationParameters(maxNewTokens: 2, seed: 5, stop: ["x"])
            ),
            routes: ReceiptRoutes(
                encoder: ReceiptStackRoutes(layers: [1], tokens: 2, experts: [0, 3], probabilities: [0.1, 1]),
                decoder: ReceiptStackRoutes(layers: [1, 3], tokens: 1, experts: [0, 1], probabilities: [0.25, 0.5]),
                stepTokens: [1]
            ),
            drops: [ReceiptDrop(stack: .encoder, token: 1, layer: 1, reason: .timeout)],
            generations: [Generation(text: "a", tokenIDs: [4, 1], finishReason: .endOfSequence, score: -0.25)]
        )
        var unsealed = base
        unsealed.digests = ReceiptDigests()
        let sealed = (try? base.sealed()) ?? base
        return [
            ("whole", Array(ReceiptFile.text(sealed).utf8)),
            ("refused-without-digests", Array(ReceiptFile.text(unsealed).utf8)),
            ("refused-empty", Array("{}".utf8)),
        ]
    }()
}
