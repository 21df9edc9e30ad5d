// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import CommandKit
import Foundation
import Receipts
import ServiceKit
import SwitchyardClient
import SwitchyardProtos
import SwitchyardTypes

/// `switchyard generate`: asks a gateway, or a model in this process, to continue a text.
struct GenerateCommand: AsyncParsableCommand, ThreadedCommand {
    static let configuration = CommandConfiguration(
        commandName: "generate",
        abstract: "Generate text through a gateway, or with a model in this process.",
        discussion: """
            Special tokens stay in the answer, since T5's sentinels structure it. A flag that is left out takes the setting in
            the model's generation_config.json; a zero is a zero. Ids of several tokens are written like 17,4.

            EXAMPLES
              switchyard generate "A horse! a horse! my <extra_id_0> for a horse!"
              switchyard generate --endpoint gateway:7400 --stream --max-new-tokens 64 "summarize: ..."
              switchyard generate --beams 4 --return-sequences 2 "my <extra_id_0> for a horse!"
              switchyard generate --sample --top-p 0.9 --seed 7 --return-sequences 3 "my <extra_id_0> for a horse!"
              switchyard generate --no-sample --no-repeat-ngram-size 3 --bad-words 17,4 "summarize: ..."
              switchyard generate --decoder-text "<extra_id_0> kingdom" "my <extra_id_0> for a horse!"
              switchyard generate --local deploy/models/switch-mini "my <extra_id_0> for a horse!"
              switchyard generate --local google/switch-base-8 --dtype bfloat16 "my <extra_id_0> for a horse!"
              switchyard generate --receipt answer.json "my <extra_id_0> for a horse!"
              echo "my <extra_id_0> for a horse!" | switchyard generate --json -
            """
    )

    @OptionGroup var client: ClientOptions

    @Option(
        name: .customLong("local"),
        help: ArgumentHelp("Run this whole checkpoint in this process, without a network.", valueName: "model")
    )
    var localModel: String?

    @Flag(help: "Print tokens as they arrive.")
    var stream = false

    @Flag(help: "Print the whole response as JSON.")
    var json = false

    @Flag(help: "Print which expert each token went to at each sparse layer, and with which probability.")
    var routes = false

    @Option(
        help: ArgumentHelp(
            "Write a receipt, with which `switchyard verify` computes the answer again to the same bits.",
            valueName: "file"
        )
    )
    var receipt: String?

    @OptionGroup var parameters: GenerationOptions

    @OptionGroup(title: "Weights with --local") var precision: LocalPrecisionOptions

    @Option(help: "Compute threads with --local. (default: all processors)")
    var threads: Int?

    @Option(
        help: ArgumentHelp(
            "Override a value in config.json with --local; may be given several times.",
            valueName: "key=value"
        )
    )
    var override: [String] = []

    @Option(
        help: ArgumentHelp(
            "Merge this LoRA adapter into the weights with --local: a folder, or a hub id.",
            valueName: "dir"
        )
    )
    var mergeAdapter: String?

    @Argument(help: "The input text; - reads it from standard input.")
    var text: String

    func validate() throws {
        if self.stream, (self.parameters.search.beams ?? 0) > 1 {
            throw ValidationError("--stream shows nothing with --beams: no token is final before the end")
        }
        if self.stream, self.json {
            throw ValidationError("--stream prints text as it arrives and --json the whole response; choose one")
        }
        if self.localModel != nil {
            if let flag = self.client.connectionFlag {
                throw ValidationError("\(flag) is for a gateway, and --local needs none; leave one of them out")
            }
            if let threads, !(1...1_024).contains(threads) {
                throw ValidationError("--threads is \(threads), but must be from 1 to 1024")
            }
        } else {
            if self.precision.isGiven {
                throw ValidationError(
                    "--dtype and --expert-dtype are for --local; a gateway and its hosts have their own"
                )
            }
            if !self.override.isEmpty {
                throw ValidationError("--override is for --local; a gateway has its own")
            }
            if self.mergeAdapter != nil {
                throw ValidationError("--merge-adapter is for --local; for a cluster, merge it with shard or up")
            }
            if self.threads != nil {
                throw ValidationError("--threads is for --local; a gateway and its hosts have their own")
            }
        }
    }

    func run() async throws {
        let text = self.text == "-" ? try Self.readStandardInput() : self.text
        let request = GenerateRequest(
            input: .text(text),
            parameters: self.parameters.message,
            dropPolicy: self.parameters.dropPolicy,
            decoderPrefix: self.parameters.decoderPrefix,
            returnRoutes: self.routes,
            returnReceipt: self.receipt != nil,
            priority: self.parameters.priority?.message ?? .unspecified,
            queueTimeoutMilliseconds: self.parameters.queueTimeoutMs
        )
        if let model = self.localModel {
            try await self.answer(request, with: model)
        } else {
            try await self.client.withClient { try await self.answer(request, from: $0) }
        }
    }

    private func answer(_ request: GenerateRequest, with model: String) async throws {
        let local = try LocalModel(
            name: model,
            overrides: try ModelSettings.overrides(self.override),
            adapter: self.mergeAdapter,
            threads: self.threads,
            precision: self.precision,
            timeout: try self.client.chosenTimeout
        )
        guard self.stream else {
            try self.show(try await local.generate(request))
            return
        }
        var text = StreamedText()
        let response = try await local.generate(request) { Terminal.print(text.add($0), terminator: "") }
        Self.end(text, response)
        try self.keep(response.receipt)
    }

    private func answer(_ request: GenerateRequest, from client: GatewayClient) async throws {
        guard self.stream else {
            try self.show(try await client.generate(request))
            return
        }
        var text = StreamedText()
        for try await event in try await client.generateStream(request) {
            switch event {
            case .token(let token): Terminal.print(text.add(token), terminator: "")
            case .response(let response):
                Self.end(text, response)
                try self.keep(response.receipt)
                try self.judgeLosses(response.usage)
            }
        }
    }

    private func show(_ response: GenerateResponse) throws {
        if self.json {
            Terminal.print(try GenerationReport(response).json())
        } else {
            for generation in response.generations { Terminal.print(generation.text) }
            Self.showRoutes(response)
            Self.warnOfDrops(response.usage)
        }
        try self.keep(response.receipt)
        try self.judgeLosses(response.usage)
    }

    /// Writes the receipt where one was asked for.
    private func keep(_ receipt: Receipt?) throws {
        guard let file = self.receipt else { return }
        guard let receipt else {
            Terminal.printError(
                "error: the gateway gives no receipts, so \(file) was not written; ask one of a newer version"
            )
            throw ExitCode.failure
        }
        do {
            try Data(ReceiptFile.text(receipt).utf8).write(to: URL(fileURLWithPath: file), options: .atomic)
        } catch {
            Terminal.printError("error: the receipt \(file) cannot be written: \(error.localizedDescription)")
            throw ExitCode.failure
        }
    }

    /// Ends with status 1 if hosts lost more than the request accepts, which a gateway may have let pass.
    private func judgeLosses(_ usage: Usage?) throws {
        guard let line = Self.heavyLoss(usage, accepted: self.parameters.acceptedLoss) else { return }
        Terminal.printError(line)
        throw ExitCode.failure
    }

    /// `error: hosts lost 60.0% of ...`.
    ///
    /// - Parameters:
    ///   - usage: What the call cost.
    ///   - accepted: The largest fraction of routed tokens that hosts may lose.
    /// - Returns: Nil if hosts lost no more; what an expert's capacity dropped does not count.
    static func heavyLoss(_ usage: Usage?, accepted: Float) -> String? {
        guard let usage, usage.routedTokens > 0 else { return nil }
        let lost = usage.dropped.reduce(0) { $1.reason == .capacity ? $0 : $0 + $1.tokens }
        guard Float(lost) / Float(usage.routedTokens) > accepted else { return nil }
        let percent = (Double(lost) * 1000 / Double(usage.routedTokens)).rounded() / 10
        return
            "error: expert hosts lost \(percent)% of the routed tokens (\(lost) of \(usage.routedTokens)), so the answer is "
            + "worth little; see `switchyard status`, or accept it with --max-dropped-fraction 1"
    }

    /// Prints what a stream has not shown.
    private static func end(_ text: StreamedText, _ response: GenerateResponse) {
        Terminal.print(text.rest(of: response))
        Self.showRoutes(response)
        if let note = text.note { Terminal.printError(note) }
        Self.warnOfDrops(response.usage)
    }

    /// Prints the ways through the sparse layers, if they were asked for.
    private static func showRoutes(_ response: GenerateResponse) {
        let text = RoutesReport.text(response)
        if !text.isEmpty { Terminal.print("\n" + text) }
    }

    /// Dropped tokens make an answer worse, so report them even unasked.
    private static func warnOfDrops(_ usage: Usage?) {
        if let note = Self.noteOnDrops(usage) { Terminal.printError(note) }
    }

    /// `note: 3 of 64 routed tokens were dropped (encoder 1 TIMEOUT: 3)`.
    ///
    /// - Parameter usage: What the call cost.
    /// - Returns: Nil if no token was dropped.
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

/// The text of a stream: the first answer's tokens as they arrive, then the other answers, whole.
struct StreamedText {
    private var shown = ""
    private var hasTokens = false

    /// Adds a token.
    ///
    /// - Parameter token: The token, of any of the answers.
    /// - Returns: The text to print.
    mutating func add(_ token: GeneratedToken) -> String {
        self.hasTokens = true
        guard token.sequence == 0 else { return "" }
        self.shown += token.text
        return token.text
    }

    /// The end of the stream.
    ///
    /// - Parameter response: The whole answer.
    /// - Returns: The text not yet printed, without the last line break.
    func rest(of response: GenerateResponse) -> String {
        var lines = response.generations.map(\.text)
        if let first = lines.first {
            // By bytes: a character may consist of code points of several tokens.
            let shown = self.shown.utf8
            lines[0] =
                first.utf8.starts(with: shown)
                ? String(decoding: first.utf8.dropFirst(shown.count), as: UTF8.self) : "\n" + first
        }
        return lines.joined(separator: "\n")
    }

    /// Why nothing was shown before the end; nil if something was.
    var note: String? {
        self.hasTokens
            ? nil
            : "note: nothing could be shown before the end, since the model's default is beam search; pass --beams 1 to "
                + "see tokens as they arrive"
    }
}
