// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import Receipts
internal import SwitchyardProtos

/// Changes of one field or one bit of a receipt, each of which must be found.
enum ReceiptTampering {
    /// A changed receipt as a file.
    struct Case {
        /// What was changed.
        var name: String
        /// Whether the digests were computed anew, as somebody would who wants to be believed.
        var isForged: Bool
        /// The file.
        var bytes: [UInt8]
    }

    /// A change of a field.
    ///
    /// With new digests, what the receipt then says must be false for every receipt that has the field.
    private struct Change: Sendable {
        var name: String
        /// Whether what it says is false even with new digests.
        var canBeForged: Bool
        /// Changes the receipt; false where it has no such field.
        var apply: @Sendable (inout Receipt) -> Bool
    }

    private static let changes: [Change] =
        Self.outputs + Self.routing + Self.claims + Self.parameters + Self.digests

    private static let outputs: [Change] = [
        Change(name: "a token", canBeForged: true) {
            $0.generations[0].tokenIDs[$0.generations[0].tokenIDs.count / 2] ^= 1
            return true
        },
        Change(name: "the last token", canBeForged: true) { $0.generations[0].tokenIDs.popLast() != nil },
        Change(name: "one token more", canBeForged: true) {
            $0.generations[0].tokenIDs.append(5)
            return true
        },
        Change(name: "a score's last bit", canBeForged: true) {
            guard $0.generations[0].score != 0 else { return false }
            $0.generations[0].score.flipLastBit()
            return true
        },
        Change(name: "a log-probability's last bit", canBeForged: true) {
            guard !$0.generations[0].logprobs.isEmpty else { return false }
            $0.generations[0].logprobs[0].logprob.flipLastBit()
            return true
        },
        Change(name: "the end's reason", canBeForged: true) {
            $0.generations[0].finishReason = $0.generations[0].finishReason == .length ? .stop : .length
            return true
        },
        Change(name: "the text", canBeForged: true) {
            $0.generations[0].text += "."
            return true
        },
        Change(name: "one answer less", canBeForged: true) {
            guard $0.generations.count > 1 else { return false }
            $0.generations.removeLast()
            return true
        },
    ]

    private static let routing: [Change] = [
        Change(name: "an expert of the encoder", canBeForged: true) {
            $0.routes?.encoder?.experts[3] ^= 1
            return true
        },
        Change(name: "an expert of the decoder", canBeForged: true) {
            $0.routes?.decoder?.experts[2] ^= 2
            return true
        },
        Change(name: "a probability's last bit in the encoder", canBeForged: true) {
            $0.routes?.encoder?.probabilities[1].flipLastBit()
            return true
        },
        Change(name: "a probability's last bit in the decoder", canBeForged: true) {
            guard let count = $0.routes?.decoder?.probabilities.count, count > 0 else { return false }
            $0.routes?.decoder?.probabilities[count - 1].flipLastBit()
            return true
        },
        Change(name: "a drop that was not", canBeForged: true) { receipt in
            guard receipt.drops.isEmpty, let layer = receipt.routes?.encoder?.layers.first else { return false }
            receipt.drops = [ReceiptDrop(stack: .encoder, token: 2, layer: layer, reason: .timeout)]
            return true
        },
        Change(name: "a drop that is left out", canBeForged: true) { receipt in
            // One before a later router, which sees the difference. The last row of a beam that is given up changes nothing, so that a
            // receipt without its drop would be true.
            guard let last = receipt.routes?.encoder?.layers.last,
                let index = receipt.drops.firstIndex(where: { $0.stack == .encoder && $0.layer < last })
            else { return false }
            receipt.drops.remove(at: index)
            return true
        },
        Change(name: "a drop's reason", canBeForged: false) {
            guard !$0.drops.isEmpty else { return false }
            $0.drops[0].reason = $0.drops[0].reason == .timeout ? .overloaded : .timeout
            return true
        },
        Change(name: "a drop for capacity", canBeForged: true) { receipt in
            guard receipt.drops.isEmpty, let layer = receipt.routes?.decoder?.layers.last else { return false }
            receipt.drops = [ReceiptDrop(stack: .decoder, token: 0, layer: layer, reason: .capacity)]
            return true
        },
    ]

    private static let claims: [Change] = [
        Change(name: "the fingerprint", canBeForged: true) {
            $0.model?.fingerprint = "0123456789abcdef"
            return true
        },
        Change(name: "the experts' weights", canBeForged: true) {
            let type = $0.model?.expertWeights
            $0.model?.expertWeights = type == .int8 ? .bfloat16 : .int8
            return true
        },
        Change(name: "the gateway's weights", canBeForged: true) {
            let type = $0.model?.gatewayWeights
            $0.model?.gatewayWeights = type == .int8 ? .bfloat16 : .int8
            return true
        },
        Change(name: "the rows' type", canBeForged: true) {
            let type = $0.model?.rowDType
            $0.model?.rowDType = type == .bfloat16 ? .float32 : .bfloat16
            return true
        },
        Change(name: "the capacity", canBeForged: false) {
            $0.model?.capacity = "unlimited"
            return true
        },
        Change(name: "an input token", canBeForged: true) { receipt in
            guard case .tokenIDs(var ids) = receipt.request?.input else { return false }
            ids[1] ^= 1
            receipt.request?.input = .tokenIDs(ids)
            return true
        },
        Change(name: "the version", canBeForged: true) {
            $0.version = 2
            return true
        },
    ]

    private static let parameters: [Change] = [
        Change(name: "the seed", canBeForged: false) {
            guard let seed = $0.request?.parameters?.seed else { return false }
            $0.request?.parameters?.seed = seed ^ 1
            return true
        },
        Change(name: "the greatest length", canBeForged: false) {
            $0.request?.parameters?.maxNewTokens = 3
            return true
        },
        Change(name: "the beams", canBeForged: false) {
            let beams = $0.request?.parameters?.numBeams ?? 1
            $0.request?.parameters?.numBeams = beams + 1
            return true
        },
        Change(name: "a penalty's last bit", canBeForged: false) {
            $0.request?.parameters?.repetitionPenalty?.flipLastBit()
            return true
        },
        Change(name: "a parameter that is left out", canBeForged: true) {
            $0.request?.parameters?.numBeams = nil
            return true
        },
        Change(name: "the policy on drops", canBeForged: false) {
            $0.request?.dropPolicy = DropPolicy(strict: true)
            return true
        },
    ]

    private static let digests: [Change] = [
        Change(name: "a bit of the digest of routes", canBeForged: false) {
            $0.digests?.routes[7] ^= 4
            return true
        },
        Change(name: "a bit of the digest of all", canBeForged: false) {
            $0.digests?.receipt[31] ^= 1
            return true
        },
    ]

    /// Changes receipts; the same number gives the same changes.
    ///
    /// - Parameters:
    ///   - receipts: Receipts that are verified.
    ///   - count: How many changes.
    /// - Returns: The changed receipts: fields without and with new digests in turn, and single bits of files.
    /// - Throws: ``FaultError`` where the receipts have too few fields; `ReceiptError` where digests cannot be computed.
    static func cases(of receipts: [Receipt], count: Int) throws -> [Case] {
        var plans = Self.changes.map { (change: $0, isForged: false) }
        plans += Self.changes.filter(\.canBeForged).map { (change: $0, isForged: true) }
        var random = Draws(state: 7)
        var cases: [Case] = []
        var turn = 0
        while cases.count < count * 4 / 5 {
            let (change, isForged) = plans[turn % plans.count]
            // Not every receipt has drops, several answers or log-probabilities.
            for offset in 0..<receipts.count {
                var receipt = receipts[(turn * 31 + offset) % receipts.count]
                guard change.apply(&receipt) else { continue }
                if isForged { receipt = try receipt.sealed() }
                cases.append(Case(name: change.name, isForged: isForged, bytes: Array(ReceiptFile.text(receipt).utf8)))
                break
            }
            turn += 1
            guard turn < count * 100 else { throw FaultError("the receipts have no fields to change") }
        }
        while cases.count < count {
            var bytes = Array(ReceiptFile.text(receipts[random.below(receipts.count)]).utf8)
            bytes[random.below(bytes.count)] ^= UInt8(1 << random.below(8))
            cases.append(Case(name: "a bit of the file", isForged: false, bytes: bytes))
        }
        return cases
    }

    /// Numbers that look random, the same in every run (https://prng.di.unimi.it/splitmix64.c).
    struct Draws {
        var state: UInt64

        mutating func below(_ limit: Int) -> Int {
            self.state &+= 0x9E37_79B9_7F4A_7C15
            var value = self.state
            value = (value ^ (value >> 30)) &* 0xBF58_476D_1CE4_E5B9
            value = (value ^ (value >> 27)) &* 0x94D0_49BB_1331_11EB
            return Int((value ^ (value >> 31)) % UInt64(limit))
        }
    }
}

extension Float {
    fileprivate mutating func flipLastBit() { self = Float(bitPattern: self.bitPattern ^ 1) }
}
