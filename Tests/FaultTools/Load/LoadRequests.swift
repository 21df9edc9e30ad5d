// SPDX-License-Identifier: Apache-2.0

internal import Foundation
package import SwitchyardClient

/// One of the requests that the load consists of.
package struct LoadRequest: Sendable {
    /// The input.
    package var text: String
    /// How many tokens to generate, no fewer and no more; nil leaves that to the model.
    package var tokens: UInt32?
    /// What transformers answers, if known.
    package var expected: [UInt32]?

    /// The call's message.
    ///
    /// - Parameter strict: Whether a token that a host loses fails the call.
    /// - Returns: The message.
    package func message(strict: Bool) -> GenerateRequest {
        var parameters = GenerationParameters()
        if let tokens {
            parameters.maxNewTokens = tokens
            parameters.minNewTokens = tokens
        }
        return GenerateRequest(
            input: .text(self.text),
            parameters: parameters,
            dropPolicy: strict ? DropPolicy(strict: true) : DropPolicy(maxDroppedFraction: 1)
        )
    }

    /// The miniature's prompts with their recorded answers, and passages of the scenes that it was trained on.
    ///
    /// - Parameters:
    ///   - model: The model's folder, with `prompts.json` and `scenes.txt`.
    ///   - passageTokens: How many tokens are generated for a passage.
    /// - Returns: The requests, always the same.
    /// - Throws: Errors of reading the files.
    package static func all(model: String, passageTokens: UInt32) throws -> [LoadRequest] {
        let file = URL(fileURLWithPath: "\(model)/prompts.json")
        let prompts = try JSONDecoder().decode([Prompt].self, from: Data(contentsOf: file))
        let scenes = try String(contentsOfFile: "\(model)/scenes.txt", encoding: .utf8)
        return prompts.map { LoadRequest(text: $0.prompt, tokens: nil, expected: $0.tokenIDs) }
            + Self.passages(of: scenes, count: 17).map { LoadRequest(text: $0, tokens: passageTokens, expected: nil) }
    }

    private struct Prompt: Decodable {
        var prompt: String
        var tokenIDs: [UInt32]

        enum CodingKeys: String, CodingKey {
            case prompt
            case tokenIDs = "token_ids"
        }
    }

    /// Speeches of medium length, evenly spread, each with one word removed.
    static func passages(of scenes: String, count: Int) -> [String] {
        let speeches = scenes.components(separatedBy: "\n\n")
            .map { $0.split(separator: "\n").dropFirst().joined(separator: " ") }
            .filter { (60...220).contains($0.count) }
        guard speeches.count > count else { return speeches }
        return (0..<count)
            .map { index in
                var words = speeches[index * speeches.count / count].split(separator: " ").map(String.init)
                words[words.count / 2] = "<extra_id_0>"
                return words.joined(separator: " ")
            }
    }
}
