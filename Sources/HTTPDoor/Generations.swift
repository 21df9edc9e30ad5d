// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardProtos

/// What happened to one of the generations that a body asks for.
enum GenerationEvent: Sendable {
    /// A sequence of the request at an index has one more token.
    case token(Int, GeneratedToken)
    /// The request at an index is done.
    case response(Int, GenerateResponse)
}

extension GenerateResponse {
    /// Tokens of the encoder's input.
    var inputTokens: Int { Int(self.usage?.inputTokens ?? 0) }

    /// Tokens of all sequences.
    var outputTokens: Int { self.generations.reduce(0) { $0 + $1.tokenIDs.count } }

    /// The most likely sequences, by the mean of their tokens' log-probabilities; of equal ones the first.
    func best(_ count: Int) -> [Generation] {
        guard count < self.generations.count else { return self.generations }
        let order = self.generations.indices.sorted {
            (-self.generations[$0].score, $0) < (-self.generations[$1].score, $1)
        }
        return order.prefix(count).map { self.generations[$0] }
    }
}
