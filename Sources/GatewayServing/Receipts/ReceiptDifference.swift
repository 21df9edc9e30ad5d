// SPDX-License-Identifier: Apache-2.0

internal import Receipts
internal import SwitchyardProtos
internal import SwitchyardTypes

/// The first thing in which a receipt and its replay differ.
public struct ReceiptDifference: Sendable, Hashable, CustomStringConvertible {
    /// The field of the receipt, such as `routes.decoder.probabilities`.
    public var field: String
    /// Where in it, for people: `step 3, decoder layer 1, token 5`; empty if the field has no places.
    public var place: String
    /// What the receipt says.
    public var expected: String
    /// What the replay gives.
    public var got: String

    /// The field, the place and both values.
    public var description: String {
        "\(self.field)\(self.place.isEmpty ? "" : " (\(self.place))"): expected \(self.expected), got \(self.got)"
    }

    init(_ field: String, _ place: String = "", expected: some Any, got: some Any) {
        self.field = field
        self.place = place
        self.expected = ErrorText.shown("\(expected)")
        self.got = ErrorText.shown("\(got)")
    }

    /// A number and its bits, since two numbers may look alike.
    static func bits(_ value: Float) -> String {
        let digits = String(value.bitPattern, radix: 16)
        return "\(value) (bits 0x\(String(repeating: "0", count: 8 - digits.count))\(digits))"
    }
}

/// Compares a receipt with what a replay gives, in the order in which things were computed.
struct ReceiptComparison {
    let stated: Receipt
    let replayed: Receipt

    /// The first difference; nil if there is none.
    func difference() -> ReceiptDifference? {
        guard let stated = self.stated.routes, let replayed = self.replayed.routes else { return nil }
        return self.routes(stated.encoder, replayed.encoder, .encoder, steps: [])
            ?? self.routes(stated.decoder, replayed.decoder, .decoder, steps: stated.stepTokens)
            ?? self.list("routes.step_tokens", stated.stepTokens, replayed.stepTokens) { "step \($0)" }
            ?? self.generations()
    }

    // MARK: - Routes

    private func routes(
        _ stated: ReceiptStackRoutes?,
        _ replayed: ReceiptStackRoutes?,
        _ stack: WireStack,
        steps: [UInt32]
    ) -> ReceiptDifference? {
        guard let stated, let replayed else { return nil }
        let field = "routes.\(stack)"
        guard stated.layers == replayed.layers else {
            return ReceiptDifference("\(field).layers", expected: stated.layers, got: replayed.layers)
        }
        let width = stated.layers.count
        let reasons = self.reasons(self.stated, stack)
        let again = self.reasons(self.replayed, stack)
        for entry in 0..<min(stated.experts.count, replayed.experts.count) {
            let place = Self.place(entry, layers: stated.layers, stack, steps: steps)
            if stated.experts[entry] != replayed.experts[entry] {
                return ReceiptDifference(
                    "\(field).experts",
                    place,
                    expected: stated.experts[entry],
                    got: replayed.experts[entry]
                )
            }
            let (one, other) = (stated.probabilities[entry], replayed.probabilities[entry])
            if one.bitPattern != other.bitPattern {
                return ReceiptDifference(
                    "\(field).probabilities",
                    place,
                    expected: ReceiptDifference.bits(one),
                    got: ReceiptDifference.bits(other)
                )
            }
            let key = Place(token: UInt32(entry / width), layer: stated.layers[entry % width])
            if reasons[key] != again[key] {
                return ReceiptDifference(
                    "drops",
                    place,
                    expected: reasons[key].map { ProtocolWords.name($0) } ?? "no drop",
                    got: again[key].map { ProtocolWords.name($0) } ?? "no drop"
                )
            }
        }
        guard stated.tokens == replayed.tokens else {
            return ReceiptDifference("\(field).tokens", expected: stated.tokens, got: replayed.tokens)
        }
        return nil
    }

    private struct Place: Hashable {
        var token: UInt32
        var layer: UInt32
    }

    private func reasons(_ receipt: Receipt, _ stack: WireStack) -> [Place: WireDropReason] {
        receipt.drops.reduce(into: [:]) { reasons, drop in
            if drop.stack == stack { reasons[Place(token: drop.token, layer: drop.layer)] = drop.reason }
        }
    }

    /// `step 3, decoder layer 1, row 0`, or `encoder layer 1, token 5`.
    private static func place(_ entry: Int, layers: [UInt32], _ stack: WireStack, steps: [UInt32]) -> String {
        let layer = "\(stack) layer \(layers[entry % layers.count])"
        var token = entry / layers.count
        for (step, tokens) in steps.enumerated() {
            guard token >= Int(tokens) else { return "step \(step), \(layer), token \(token)" }
            token -= Int(tokens)
        }
        return "\(layer), token \(token)"
    }

    // MARK: - Generations

    private func list<Element: Equatable>(
        _ field: String,
        _ stated: [Element],
        _ replayed: [Element],
        place: (Int) -> String
    ) -> ReceiptDifference? {
        for index in 0..<min(stated.count, replayed.count) where stated[index] != replayed[index] {
            return ReceiptDifference(field, place(index), expected: stated[index], got: replayed[index])
        }
        guard stated.count != replayed.count else { return nil }
        return ReceiptDifference("the length of \(field)", expected: stated.count, got: replayed.count)
    }

    private func generations() -> ReceiptDifference? {
        for (index, (one, other)) in zip(self.stated.generations, self.replayed.generations).enumerated() {
            if let difference = self.generation("generations[\(index)]", one, other) { return difference }
        }
        let (one, other) = (self.stated.generations.count, self.replayed.generations.count)
        return one == other ? nil : ReceiptDifference("the length of generations", expected: one, got: other)
    }

    private func generation(_ field: String, _ stated: Generation, _ replayed: Generation) -> ReceiptDifference? {
        if let difference = self.list(
            "\(field).token_ids",
            stated.tokenIDs,
            replayed.tokenIDs,
            place: { "step \($0), token \($0)" }
        ) {
            return difference
        }
        for (token, (one, other)) in zip(stated.logprobs, replayed.logprobs).enumerated() {
            if let difference = Self.logprob("\(field).logprobs[\(token)]", one, other) { return difference }
        }
        if stated.logprobs.count != replayed.logprobs.count {
            return ReceiptDifference(
                "the length of \(field).logprobs",
                expected: stated.logprobs.count,
                got: replayed.logprobs.count
            )
        }
        if stated.score.bitPattern != replayed.score.bitPattern {
            return ReceiptDifference(
                "\(field).score",
                expected: ReceiptDifference.bits(stated.score),
                got: ReceiptDifference.bits(replayed.score)
            )
        }
        if stated.finishReason != replayed.finishReason {
            return ReceiptDifference(
                "\(field).finish_reason",
                expected: ProtocolWords.name(stated.finishReason),
                got: ProtocolWords.name(replayed.finishReason)
            )
        }
        // Byte by byte: Swift takes some texts of other bytes for equal.
        if Array(stated.text.utf8) != Array(replayed.text.utf8) {
            return ReceiptDifference("\(field).text", expected: "\"\(stated.text)\"", got: "\"\(replayed.text)\"")
        }
        return nil
    }

    private static func logprob(
        _ field: String,
        _ stated: SwitchyardProtos.TokenLogprob,
        _ replayed: SwitchyardProtos.TokenLogprob
    ) -> ReceiptDifference? {
        if stated.tokenID != replayed.tokenID {
            return ReceiptDifference("\(field).token_id", expected: stated.tokenID, got: replayed.tokenID)
        }
        let one = [(stated.tokenID, stated.logprob)] + stated.top.map { ($0.tokenID, $0.logprob) }
        let other = [(replayed.tokenID, replayed.logprob)] + replayed.top.map { ($0.tokenID, $0.logprob) }
        for (rank, (left, right)) in zip(one, other).enumerated()
        where left.0 != right.0 || left.1.bitPattern != right.1.bitPattern {
            let name = rank == 0 ? "\(field).logprob" : "\(field).top[\(rank - 1)]"
            return ReceiptDifference(
                name,
                expected: "token \(left.0) with \(ReceiptDifference.bits(left.1))",
                got: "token \(right.0) with \(ReceiptDifference.bits(right.1))"
            )
        }
        guard one.count != other.count else { return nil }
        return ReceiptDifference("the length of \(field).top", expected: one.count - 1, got: other.count - 1)
    }
}

/// Names as the protocol writes them.
enum ProtocolWords {
    /// A value's name in capitals: `badReply` is `BAD_REPLY`.
    static func name(_ value: some Any) -> String {
        "\(value)"
            .reduce(into: "") { name, character in
                if character.isUppercase { name.append("_") }
                name += character.uppercased()
            }
    }
}
