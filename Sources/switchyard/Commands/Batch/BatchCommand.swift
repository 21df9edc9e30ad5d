// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Batches
import Checkpoints
import CommandKit
import Foundation
import GatewayServing
import HTTPDoor
import Logging
import ServiceKit
import SwitchyardClient
import SwitchyardProtos
import SwitchyardTypes
import TensorKernels
import TrainingData

/// `switchyard batch`: asks every line of a file.
struct BatchCommand: AsyncParsableCommand, ThreadedCommand {
    static let configuration = CommandConfiguration(
        commandName: "batch",
        abstract: "Generate, score or encode every line of a file, through a gateway or with a model in this process.",
        discussion: """
            Answers are JSON lines in the order of the input. A line that fails has an error in place of a response. Until
            the last answer they are in OUTPUT.partial; the same command goes on from there after any end, and the file
            has the same bytes as if there had been none.

            A line is a text (.txt), or a JSON object (.jsonl) with the fields of the gateway's request by protobuf's JSON
            mapping, and an id if you like:

              {"id": "a", "text": "my <extra_id_0> for a horse!", "parameters": {"maxNewTokens": 8}}
              {"id": "b", "inputIds": {"ids": [261, 28, 1]}, "targetText": "<extra_id_0> kingdom"}

            Flags hold for lines that do not say otherwise.

            With --format openai a line is one of OpenAI's batch format, for /v1/completions or /v1/embeddings, and the
            output has that format too:

              {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"model": "...", "prompt": "..."}}

            EXAMPLES
              switchyard batch prompts.txt answers.jsonl --max-new-tokens 32
              switchyard batch requests.jsonl answers.jsonl --endpoint gateway:7400 --beams 4
              switchyard batch requests.jsonl answers.jsonl --format openai
              switchyard batch pairs.jsonl scores.jsonl --task score
              switchyard batch texts.txt vectors.jsonl --task encode --pooling mean --local google/switch-base-8
            """
    )

    @Argument(help: "The file of lines.")
    var input: String

    @Argument(help: "The file to write.")
    var output: String

    @Option(
        name: .customLong("task"),
        help: "What is asked of each line: generate, score or encode. (default: generate)"
    )
    var givenTask: BatchTask?

    @Option(help: "How a line is read: text, jsonl or openai. (default: by the file's name: .txt, .jsonl)")
    var format: BatchFileFormat?

    @Flag(help: "Replace the output if it is there, and give up an unfinished batch.")
    var overwrite = false

    @Option(
        help: ArgumentHelp(
            "Lines in flight at most. (1 to 10000; default: as many as the gateway runs and a half more)",
            valueName: "lines"
        )
    )
    var inFlight: Int?

    @Option(
        help: ArgumentHelp(
            "Give up when no line was answered for this long. (1 to 604800)",
            valueName: "seconds"
        )
    )
    var waitSeconds = 600

    @OptionGroup var client: ClientOptions

    @Option(
        name: .customLong("local"),
        help: ArgumentHelp("Run this whole checkpoint in this process, without a network.", valueName: "model")
    )
    var localModel: String?

    @OptionGroup(title: "Weights with --local") var precision: LocalPrecisionOptions

    @Option(help: "Compute threads with --local. (default: all processors)")
    var threads: Int?

    @OptionGroup var parameters: GenerationOptions

    @Option(help: "With --task encode: none for a row per token, or mean for one row.")
    var pooling: PoolingChoice?

    private var task: BatchTask { self.givenTask ?? .generate }

    func validate() throws {
        if self.format == .openAI { try self.validateOpenAI() }
        if let inFlight, !(1...10_000).contains(inFlight) {
            throw ValidationError("--in-flight is \(inFlight), but must be from 1 to 10000")
        }
        guard (1...604_800).contains(self.waitSeconds) else {
            throw ValidationError("--wait-seconds is \(self.waitSeconds), but must be from 1 to 604800")
        }
        if self.task != .generate, self.parameters.isGiven {
            throw ValidationError(
                "flags of generation are for --task generate; leave them out with --task \(self.task.rawValue)"
            )
        }
        if self.task != .encode, self.pooling != nil {
            throw ValidationError("--pooling is for --task encode")
        }
        if self.task == .score, try self.chosenFormat() == .text {
            throw ValidationError("a line of text has no target to score; give JSON lines with text and targetText")
        }
        if self.localModel != nil {
            if let flag = self.client.connectionFlag {
                throw ValidationError("\(flag) is for a gateway, and --local needs none; leave one of them out")
            }
            if let threads, !(1...1_024).contains(threads) {
                throw ValidationError("--threads is \(threads), but must be from 1 to 1024")
            }
        } else if self.precision.isGiven || self.threads != nil {
            throw ValidationError("--dtype, --expert-dtype and --threads are for --local; a gateway has its own")
        }
    }

    /// The lines of OpenAI's format say what is asked; flags say what holds for the whole batch.
    private func validateOpenAI() throws {
        if self.givenTask != nil {
            throw ValidationError("the lines of --format openai say what is asked; leave out --task")
        }
        var others = self.parameters
        others.sampling.seed = nil
        if others.isGiven {
            throw ValidationError(
                "the lines of --format openai say how to generate; of these flags it takes --seed, --strict, "
                    + "--max-dropped-fraction, --priority and --queue-timeout-ms"
            )
        }
    }

    private func chosenFormat() throws -> BatchFileFormat {
        if let format { return format }
        switch (self.input as NSString).pathExtension.lowercased() {
        case "txt": return .text
        case "jsonl", "ndjson", "json": return .jsonl
        default:
            throw ValidationError(
                "\(self.input) does not say by its name what its lines are; add --format text, jsonl or openai"
            )
        }
    }

    func run() async throws {
        try BatchOutput.prepare(self.output, overwrite: self.overwrite)
        let lines = try FileLines([self.input], maximumLineBytes: 1 << 24)
        guard let model = self.localModel else {
            // A call may wait for its turn as long as it takes, unless a flag says otherwise.
            try await self.client.withClient(defaultTimeout: 0) { client in
                let load = try await client.describeCluster().gateway
                let slots = Int(load?.batchSlots ?? 0)
                let room = slots + Int(load?.queueLimit ?? 0)
                let atOnce = max(1, min(slots + (slots + 1) / 2, max(room, 1)))
                try await self.run(lines, GatewayBatchAsker(client: client), atOnce: self.inFlight ?? atOnce)
            }
            return
        }
        var configuration = LocalGatewayConfiguration(modelDirectory: try ModelSettings.directory(model))
        configuration.threads = self.threads ?? Processors.count
        configuration.storage = self.precision.model
        configuration.expertStorage = self.precision.experts
        let bar = ProgressBar()
        let gateway = try LocalGateway(
            configuration: configuration,
            logger: Logger(label: "switchyard") { _ in SwiftLogNoOpLogHandler() }
        ) { bar.show($0) }
        let asker = LocalBatchAsker(gateway: gateway, timeout: try self.client.chosenTimeout)
        try await gateway.whileRunning { try await self.run(lines, asker, atOnce: self.inFlight ?? 32) }
    }

    private func run(_ lines: FileLines, _ asker: any BatchAsker, atOnce: Int) async throws {
        let model = try await asker.model()
        let format = try self.chosenFormat()
        let defaults = self.defaults
        let unfinished = try BatchOutput.unfinished(self.output)
        let seed = self.parameters.sampling.seed ?? unfinished?.seed ?? UInt64.random(in: 0..<(1 << 53))
        let identity = BatchIdentity(
            lines: lines.count,
            input: lines.fingerprint,
            model: model.fingerprint,
            task: self.task.rawValue,
            format: format.rawValue,
            defaults: BatchReader.text(of: defaults),
            seed: seed,
            created: format == .openAI ? unfinished?.created ?? Int(Date().timeIntervalSince1970) : nil
        )
        let output = try BatchOutput(self.output, of: identity)
        let before = output.lines
        if before > 0 { Terminal.printError("Going on after \(before) of \(lines.count) lines.") }
        let run = BatchRun(
            questions: BatchQuestions(
                lines: lines,
                reader: try self.reader(of: lines, identity, model: model, asker: asker),
                asker: asker
            ),
            output: output,
            fingerprint: model.fingerprint,
            atOnce: atOnce,
            patience: .seconds(self.waitSeconds)
        )
        let start = ContinuousClock.now
        let failures = try await run()
        try output.finish()
        let seconds = start.duration(to: .now).inSeconds
        Terminal.print(
            "\(self.output): \(lines.count) lines, \(lines.count - before) of them now in \(String(format: "%.1f", seconds)) s"
                + (failures == 0 ? "" : "; \(failures) of these have an error")
        )
    }

    /// How lines are read.
    private func reader(
        of lines: FileLines,
        _ identity: BatchIdentity,
        model: ModelDescription,
        asker: any BatchAsker
    ) throws -> BatchLines {
        guard let format = try self.chosenFormat().own else {
            return .openAI(
                OpenAIBatchReader(
                    model: model,
                    texts: asker.texts,
                    seed: identity.seed,
                    created: identity.created ?? 0,
                    repeated: try OpenAIBatchReader.repeatedNames(in: lines),
                    dropPolicy: self.acceptedDrops,
                    priority: self.parameters.priority?.message ?? .low,
                    queueTimeoutMilliseconds: self.parameters.queueTimeoutMs ?? 0
                )
            )
        }
        return .own(BatchReader(task: self.task, format: format, defaults: self.defaults, seed: identity.seed))
    }

    /// Which losses are accepted.
    private var acceptedDrops: SwitchyardProtos.DropPolicy {
        var policy = self.parameters.dropPolicy
        if self.parameters.maxDroppedFraction == nil { policy.strict = true }
        return policy
    }

    /// What holds for lines that do not say otherwise.
    ///
    /// Tokens that hosts lose would differ from run to run, so they are not accepted unless a flag says so.
    private var defaults: BatchRequest {
        let policy = self.acceptedDrops
        switch self.task {
        case .generate:
            var parameters = self.parameters.message
            // Each line has its own, from the seed and its number.
            parameters.seed = nil
            var request = GenerateRequest(input: nil, parameters: parameters)
            request.dropPolicy = policy
            request.decoderPrefix = self.parameters.decoderPrefix
            request.priority = self.parameters.priority?.message ?? .low
            request.queueTimeoutMilliseconds = self.parameters.queueTimeoutMs ?? 0
            return .generate(request)
        case .score:
            return .score(ScoreRequest(dropPolicy: policy, priority: .low, queueTimeoutMilliseconds: 0))
        case .encode:
            var request = EncodeRequest(dropPolicy: policy, priority: .low, queueTimeoutMilliseconds: 0)
            request.pooling = self.pooling?.message ?? .perToken
            return .encode(request)
        }
    }
}

extension BatchTask: ExpressibleByArgument {}

/// How `batch` reads a line.
enum BatchFileFormat: String, ExpressibleByArgument, CaseIterable {
    case jsonl
    case text
    case openAI = "openai"

    /// The format as ``BatchReader`` knows it; nil for OpenAI's.
    var own: BatchFormat? {
        switch self {
        case .jsonl: .jsonl
        case .text: .text
        case .openAI: nil
        }
    }
}

/// How `batch` pools hidden states.
enum PoolingChoice: String, ExpressibleByArgument, CaseIterable {
    case none
    case mean

    /// The request's form.
    var message: Pooling { self == .mean ? .mean : .perToken }
}
