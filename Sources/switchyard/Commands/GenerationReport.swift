// SPDX-License-Identifier: Apache-2.0

import Foundation
import SwitchyardProtos
import SwitchyardTypes

/// A response as the JSON that `--json` prints.
struct GenerationReport: Encodable {
    struct Answer: Encodable {
        var text: String
        var tokenIds: [UInt32]
        var finishReason: String
        var score: Float
        var decoderRoutes: RoutesReport?
    }

    struct Drop: Encodable {
        var stack: String
        var layer: UInt32
        var reason: String
        var tokens: UInt64
    }

    var generations: [Answer]
    /// The seed that tokens were sampled with.
    var seed: UInt64?
    var encoderRoutes: RoutesReport?
    var inputTokens: UInt32
    var outputTokens: UInt32
    var routedTokens: UInt64
    var dropped: [Drop]
    var queueMicroseconds: UInt64
    var encodeMicroseconds: UInt64
    var decodeMicroseconds: UInt64
    /// The checkpoint that answered.
    var modelFingerprint: String

    init(_ response: GenerateResponse) {
        let usage = response.usage ?? Usage()
        self.generations = response.generations.map {
            Answer(
                text: $0.text,
                tokenIds: $0.tokenIDs,
                finishReason: Self.protocolName($0.finishReason),
                score: $0.score,
                decoderRoutes: $0.decoderRoutes.flatMap(RoutesReport.init)
            )
        }
        self.seed = response.seed
        self.encoderRoutes = response.encoderRoutes.flatMap(RoutesReport.init)
        self.inputTokens = usage.inputTokens
        self.outputTokens = usage.outputTokens
        self.routedTokens = usage.routedTokens
        self.dropped = usage.dropped.map {
            Drop(
                stack: Self.protocolName($0.stack),
                layer: $0.layer,
                reason: Self.protocolName($0.reason),
                tokens: $0.tokens
            )
        }
        self.queueMicroseconds = usage.queueMicroseconds
        self.encodeMicroseconds = usage.encodeMicroseconds
        self.decodeMicroseconds = usage.decodeMicroseconds
        self.modelFingerprint = usage.modelFingerprint.fingerprintText
    }

    /// A value's name as the protocol writes it: `endOfSequence` is `END_OF_SEQUENCE`.
    static func protocolName(_ value: some Any) -> String {
        "\(value)"
            .reduce(into: "") { name, character in
                if character.isUppercase { name.append("_") }
                name += character.uppercased()
            }
    }

    /// The report as JSON, keys in snake case and in order.
    func json() throws -> String {
        let encoder = JSONEncoder()
        encoder.keyEncodingStrategy = .convertToSnakeCase
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        return String(decoding: try encoder.encode(self), as: UTF8.self)
    }
}
