// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import CommandKit
import Foundation
import ServiceKit
import SwitchModel
import SwitchyardClient
import SwitchyardProtos
import SwitchyardTypes

/// `switchyard generate`: asks a gateway, or a model in this process, to continue a text.
struct GenerateCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "generate",
        abstract: "Generate text through a gateway, or with a model in this process.",
        discussion: """
            Special tokens stay in the answer: with T5's sentinels they carry it.

            EXAMPLES
              switchyard generate "A horse! a horse! my <extra_id_0> for a horse!"
              switchyard generate --endpoint gateway:7400 --stream --max-new-tokens 64 "summarize: ..."
              switchyard generate --local deploy/models/switch-mini "my <extra_id_0> for a horse!"
              switchyard generate --local google/switch-base-8 --dtype bfloat16 "my <extra_id_0> for a horse!"
              echo "my <extra_id_0> for a horse!" | switchyard generate --json -
            """
    )

    @OptionGroup var client: ClientOptions

    @Option(
        name: .customLong("local"),
        help: ArgumentHelp("Use this checkpoint in this process; no network.", valueName: "model")
    )
    var localModel: String?

    @Flag(help: "Print tokens as they come.")
    var stream = false

    @Flag(help: "Print the whole response as JSON.")
    var json = false

    @OptionGroup var parameters: GenerationOptions

    @OptionGroup(title: "Weights with --local") var precision: LocalPrecisionOptions

    @Option(help: "Compute threads with --local; all processors when not given.")
    var threads: Int?

    @Argument(help: "The input text; - reads it from standard input.")
    var text: String

    func validate() throws {
        if self.stream, self.parameters.beams > 1 {
            throw ValidationError("--stream shows nothing with --beams: no token is certain before the end")
        }
    }

    func run() async throws {
        if self.precision.isGiven, self.localModel == nil {
            throw ValidationError("--dtype and --expert-dtype are for --local; a gateway and its hosts have their own")
        }
        let text = self.text == "-" ? try Self.readStandardInput() : self.text
        let request = GenerateRequest(
            input: .text(text),
            parameters: self.parameters.message,
            dropPolicy: self.parameters.dropPolicy
        )
        if let model = self.localModel {
            let local = try LocalModel(name: model, threads: self.threads, precision: self.precision)
            try self.show(try local.generate(text, self.parameters))
            return
        }
        try await self.client.withClient { client in
            guard self.stream, !self.json else {
                try self.show(try await client.generate(request))
                return
            }
            for try await event in try await client.generateStream(request) {
                switch event {
                case .token(let token): Terminal.print(token.text, terminator: "")
                case .response(let response):
                    Terminal.print("")
                    Self.warnOfDrops(response.usage)
                }
            }
        }
    }

    private func show(_ response: GenerateResponse) throws {
        if self.json {
            Terminal.print(try GenerationReport(response).json())
        } else {
            for generation in response.generations { Terminal.print(generation.text) }
            Self.warnOfDrops(response.usage)
        }
    }

    /// Dropped tokens make an answer worse than it could be, so people are told even when they did not ask.
    private static func warnOfDrops(_ usage: Usage?) {
        if let note = Self.noteOnDrops(usage) { Terminal.printError(note) }
    }

    /// `note: 3 of 64 routed tokens were dropped (encoder 1 TIMEOUT: 3)`.
    ///
    /// - Parameter usage: What the call cost.
    /// - Returns: Nil where no token was dropped.
    static func noteOnDrops(_ usage: Usage?) -> String? {
        guard let usage else { return nil }
        let dropped = usage.dropped.reduce(0) { $0 + $1.tokens }
        guard dropped > 0 else { return nil }
        let places = usage.dropped.map {
            "\($0.stack) \($0.layer) \(GenerationReport.protocolName($0.reason)): \($0.tokens)"
        }
        return
            "note: \(dropped) of \(usage.routedTokens) routed tokens were dropped (\(places.joined(separator: ", ")))"
    }

    private static func readStandardInput() throws -> String {
        let data = FileHandle.standardInput.readDataToEndOfFile()
        guard let text = String(data: data, encoding: .utf8) else {
            throw ValidationError("standard input is not UTF-8 text")
        }
        return text.hasSuffix("\n") ? String(text.dropLast()) : text
    }
}

/// How to generate, as flags.
struct GenerationOptions: ParsableArguments {
    @Option(help: "The most tokens to generate; 0 means the model's default, 20.")
    var maxNewTokens: UInt32 = 0

    @Option(help: "No end before so many tokens.")
    var minNewTokens: UInt32 = 0

    @Option(help: "Number of beams; 1 is greedy.")
    var beams: UInt32 = 1

    @Option(help: "Exponent of the length that beam scores are divided by; 0 means the model's default, 1.")
    var lengthPenalty: Float = 0

    @Flag(help: "Sample instead of taking the best token.")
    var sample = false

    @Option(help: "What logits are divided by before sampling.")
    var temperature: Float = 0

    @Option(help: "Sample from so many best tokens only.")
    var topK: UInt32 = 0

    @Option(help: "Sample from the best tokens of this probability only.")
    var topP: Float = 0

    @Option(help: "What the logits of earlier tokens are divided by.")
    var repetitionPenalty: Float = 0

    @Option(help: "Seed of sampling.")
    var seed: UInt64 = 0

    @Option(help: "A text that ends the answer; may be given several times.")
    var stop: [String] = []

    @Option(help: "Number of answers.")
    var returnSequences: UInt32 = 0

    @Flag(help: "Leave out the score, so that greedy search computes only the logits that can be the best.")
    var skipScores = false

    @Flag(help: "Fail instead of dropping tokens whose expert host does not answer.")
    var strict = false

    @Option(help: "Fail when hosts lose more than this fraction of the routed tokens; 0 means no limit.")
    var maxDroppedFraction: Float = 0

    /// The flags as the request's message.
    var message: SwitchyardProtos.GenerationParameters {
        SwitchyardProtos.GenerationParameters(
            maxNewTokens: self.maxNewTokens,
            minNewTokens: self.minNewTokens,
            numBeams: self.beams,
            lengthPenalty: self.lengthPenalty,
            doSample: self.sample,
            temperature: self.temperature,
            topK: self.topK,
            topP: self.topP,
            repetitionPenalty: self.repetitionPenalty,
            seed: self.seed,
            stop: self.stop,
            numReturnSequences: self.returnSequences,
            topLogprobs: 0,
            skipScores: self.skipScores
        )
    }

    /// The flags as the model's own parameters, for generating in this process.
    ///
    /// - Returns: The parameters; a zero takes the default.
    func parameters() throws -> SwitchModel.GenerationParameters {
        guard self.stop.isEmpty else {
            throw ValidationError("--stop needs a gateway; it has no meaning with --local")
        }
        var parameters = SwitchModel.GenerationParameters()
        if self.maxNewTokens > 0 { parameters.maxNewTokens = Int(self.maxNewTokens) }
        parameters.minNewTokens = Int(self.minNewTokens)
        parameters.skipsScores = self.skipScores
        parameters.beamCount = Int(max(1, self.beams))
        if self.lengthPenalty != 0 { parameters.lengthPenalty = self.lengthPenalty }
        parameters.sampling = self.sample
        if self.temperature != 0 { parameters.temperature = self.temperature }
        if self.topK > 0 { parameters.topK = Int(self.topK) }
        if self.topP != 0 { parameters.topP = self.topP }
        if self.repetitionPenalty != 0 { parameters.repetitionPenalty = self.repetitionPenalty }
        parameters.seed = self.seed
        parameters.returnedSequences = Int(max(1, self.returnSequences))
        return parameters
    }

    /// The flags as the request's drop policy.
    var dropPolicy: DropPolicy {
        DropPolicy(strict: self.strict, maxDroppedFraction: self.maxDroppedFraction)
    }
}

/// A response as the JSON that `--json` prints.
struct GenerationReport: Encodable {
    struct Answer: Encodable {
        var text: String
        var tokenIds: [UInt32]
        var finishReason: String
        var score: Float
    }

    struct Drop: Encodable {
        var stack: String
        var layer: UInt32
        var reason: String
        var tokens: UInt64
    }

    var generations: [Answer]
    var inputTokens: UInt32
    var outputTokens: UInt32
    var routedTokens: UInt64
    var dropped: [Drop]
    var queueMicroseconds: UInt64
    var encodeMicroseconds: UInt64
    var decodeMicroseconds: UInt64

    init(_ response: GenerateResponse) {
        let usage = response.usage ?? Usage()
        self.generations = response.generations.map {
            Answer(
                text: $0.text,
                tokenIds: $0.tokenIDs,
                finishReason: Self.protocolName($0.finishReason),
                score: $0.score
            )
        }
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
