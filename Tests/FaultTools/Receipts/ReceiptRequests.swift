// SPDX-License-Identifier: Apache-2.0

package import SwitchyardClient

/// Requests of every kind of search over passages, each with a receipt.
package enum ReceiptRequests {
    /// The kinds, by name.
    package static let kinds = ["greedy", "draws", "beams", "drawn beams", "groups", "stops", "prefix", "rules"]

    /// A request; the same number gives the same one.
    ///
    /// - Parameters:
    ///   - number: Which.
    ///   - texts: Inputs, at least one.
    /// - Returns: The request and its kind.
    package static func request(_ number: Int, texts: [String]) -> (kind: String, request: GenerateRequest) {
        let kind = Self.kinds[number % Self.kinds.count]
        var parameters = GenerationParameters(maxNewTokens: UInt32(8 + number % 17), minNewTokens: 4)
        switch kind {
        case "greedy": parameters.topLogprobs = 3
        case "draws", "rules":
            parameters.doSample = true
            parameters.temperature = 1.5
            parameters.topK = 0
            parameters.seed = UInt64(number) &* 0x9E37_79B9_7F4A_7C15
            parameters.numReturnSequences = 2
            if kind == "rules" {
                parameters.topP = 0.9
                parameters.repetitionPenalty = 1.3
                parameters.noRepeatNgramSize = 2
                parameters.sequenceBias = SequenceBiases(biases: [SequenceBias(tokens: [9], bias: 4)])
                parameters.exponentialDecayLengthPenalty = LengthDecay(startIndex: 2, factor: 1.1)
            }
        case "beams":
            parameters.numBeams = 3
            parameters.numReturnSequences = 2
            parameters.earlyStopping = .never
        case "drawn beams":
            parameters.numBeams = 3
            parameters.doSample = true
            parameters.seed = UInt64(number)
        case "groups":
            parameters.numBeams = 4
            parameters.numBeamGroups = 2
            parameters.diversityPenalty = 0.6
        case "stops":
            parameters.stop = ["<extra_id_1>"]
            parameters.skipScores = true
        default: break
        }
        var request = GenerateRequest(
            input: .text(texts[number % texts.count]),
            parameters: parameters,
            returnReceipt: true
        )
        request.dropPolicy = DropPolicy(maxDroppedFraction: 1)
        if kind == "prefix" { request.decoderPrefix = .text("<extra_id_0> the") }
        return (kind, request)
    }
}
