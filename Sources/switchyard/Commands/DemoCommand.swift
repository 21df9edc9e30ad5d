// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import CommandKit
import Foundation
import ServiceKit
import SwitchyardClient
import SwitchyardProtos
import SwitchyardTypes
import Synchronization

/// `switchyard demo`: a cluster on the miniature, a few prompts, and where their tokens went.
struct DemoCommand: AsyncParsableCommand, ThreadedCommand {
    static let configuration = CommandConfiguration(
        commandName: "demo",
        abstract: "Show a whole cluster at work on the miniature model.",
        discussion: """
            EXAMPLE
              switchyard demo --model deploy/models/switch-mini --pools 4
              switchyard demo --expert-dtype bfloat16 --packed --wire-dtype bfloat16
              switchyard demo --text-model none
            """
    )

    @Option(help: "A folder with a model and a prompts.json.")
    var model: String = "deploy/models/switch-mini"

    @Option(help: "Number of pools, one expert host each.")
    var pools: Int = 4

    @Option(help: "Number of prompts.")
    var prompts: Int = 7

    @Option(
        help: ArgumentHelp(
            "A decoder-only model with a prompts.json, shown after the other; none shows the first alone. By default "
                + "labml-mini beside --model, if it is there.",
            valueName: "dir"
        )
    )
    var textModel: String?

    @OptionGroup(title: "Precision") var precision: ClusterPrecisionOptions

    /// The pools of the decoder-only model, which has four experts a layer.
    private static let textPools = 2

    /// One entry of `prompts.json`.
    struct Prompt: Decodable, Sendable {
        var prompt: String
        var expected: [String]
        var answer: String
        var tokenIDs: [UInt32]

        enum CodingKeys: String, CodingKey {
            case prompt
            case expected
            case answer
            case tokenIDs = "token_ids"
        }
    }

    func run() async throws {
        // What nobody reads must hold up neither signals nor the processes.
        StandardStream.writeBehind(note: { StandardStream.note($0) + "\n" }, endsWithOutput: true)
        let prompts = try Self.prompts(of: self.model)
        let second = try self.secondModel().map { (model: $0, prompts: try Self.prompts(of: $0)) }
        Terminal.print(Terminal.styled("\nSwitchyard", .bold) + "  a Switch Transformer served as a cluster\n")
        let children = ChildSignals()
        let ending = try await StopSignals.run(
            children: children,
            onSignal: { _ in Terminal.print("\nstopping") },
            work: {
                let chosen = Array(prompts.prefix(max(1, self.prompts)))
                try await self.run(self.model, pools: self.pools, children) { try await Self.ask(chosen, $0) }
                if let second {
                    Terminal.print(
                        "\nThe same with labml's decoder-only Switch Transformer, character by character, through "
                            + "\(Self.textPools) expert hosts:\n"
                    )
                    try await self.run(second.model, pools: Self.textPools, children) {
                        try await Self.goOn(Array(second.prompts.prefix(1)), $0)
                    }
                }
                Terminal.print(
                    "Next: switchyard up \(self.model), then switchyard generate \"...\" from another terminal.\n"
                )
            }
        )
        guard ending == .finished else { throw ExitCode.failure }
    }

    private static func prompts(of model: String) throws -> [Prompt] {
        let file = URL(fileURLWithPath: "\(model)/prompts.json")
        return try JSONDecoder().decode([Prompt].self, from: Data(contentsOf: file))
    }

    /// The decoder-only model to show, if there is one.
    private func secondModel() -> String? {
        switch self.textModel {
        case "none": return nil
        case let given?: return given
        case nil:
            let beside = URL(fileURLWithPath: self.model).deletingLastPathComponent()
                .appendingPathComponent("labml-mini").path
            return FileManager.default.fileExists(atPath: "\(beside)/prompts.json") ? beside : nil
        }
    }

    /// Runs a cluster of one expert host a pool while `body` talks to its gateway.
    private func run(
        _ model: String,
        pools: Int,
        _ children: ChildSignals,
        _ body: @escaping @Sendable (GatewayClient) async throws -> Void
    ) async throws {
        let workspace = try await StopSignals.interruptible {
            try ShardWorkspace.prepare(
                model: model,
                pools: pools,
                folder: nil,
                packing: self.precision.packing
            )
        }
        defer { workspace.discard() }

        var layout = LocalCluster.Layout(shards: workspace.folder, pools: workspace.pools)
        layout.hostsUseSockets = true
        // One prompt at a time: more threads would only wake and sleep.
        layout.gatewayThreads = 1
        layout.hostThreads = 1
        layout.signals = children
        try await layout.readDrains(ProcessInfo.processInfo.environment)
        self.precision.apply(to: &layout)
        let log = Mutex<[String]>([])
        let start = ContinuousClock.now
        let events: @Sendable (ChildEvent) -> Void = { event in Self.show(event, log: log) }
        let stopping: ContinuousClock.Instant
        do {
            stopping = try await LocalCluster.run(layout, executable: Programs.this, events: events) { cluster in
                Terminal.print("  up in \(Terminal.time(start.duration(to: .now))), each in its own process\n")
                try await GatewayClient.with(endpoint: Endpoint(parsing: cluster.gatewayAddress)) { client in
                    try await body(client)
                }
                return .now
            }
        } catch {
            for line in log.withLock({ $0.suffix(30) }) { Terminal.printError(line) }
            throw error
        }
        Terminal.print("\nAll \(pools + 1) processes stopped in \(Terminal.time(stopping.duration(to: .now))).")
    }

    private static func show(_ event: ChildEvent, log: borrowing Mutex<[String]>) {
        switch event {
        case .started(let child):
            let kind = child.name == "gateway" ? "gateway    " : "expert host"
            let memory = ProcessMemory.resident(of: child.processIdentifier) ?? ""
            Terminal.print(
                "  \(kind)  \(child.name.padding(toLength: 9, withPad: " ", startingAt: 0))  \(child.address)  "
                    + Terminal.styled("process \(child.processIdentifier), \(memory)", .dim)
            )
        case .line(let name, let text): log.withLock { $0.append("[\(name)] \(text)") }
        case .exited(let name, let status): Terminal.print("  \(name) exited: \(status)")
        }
    }

    private static func ask(_ prompts: [Prompt], _ client: GatewayClient) async throws {
        var same = 0
        var tokens = 0.0
        var seconds = 0.0
        for prompt in prompts {
            let response = try await client.generate(GenerateRequest(input: .text(prompt.prompt)))
            guard let answer = response.generations.first else { continue }
            let isSame = answer.tokenIDs == prompt.tokenIDs
            same += isSame ? 1 : 0
            let usage = response.usage ?? Usage()
            tokens += Double(usage.outputTokens)
            seconds += Double(usage.encodeMicroseconds + usage.decodeMicroseconds) * 1e-6
            let mark = isSame ? Terminal.styled("same", .green) : Terminal.styled("DIFFERS", .red)
            Terminal.print("  \(Terminal.styled(Self.readable(prompt.prompt), .dim))")
            Terminal.print("    answer        \(Terminal.styled(Self.words(answer.text), .bold))")
            Terminal.print("    transformers  \(Self.words(prompt.answer))  \(mark)")
            Terminal.print("    the text      \(prompt.expected.joined(separator: " / "))\n")
        }
        let model = try await client.describeModel()
        let cluster = try await client.describeCluster()
        Terminal.print("Where the tokens went (rows per expert, by sparse layer):\n")
        Terminal.print(ClusterReport(model: model, cluster: cluster).picture.text.indented(by: 2))
        let dropped = cluster.dropped.reduce(0) { $0 + $1.tokens }
        Terminal.print(
            "\n\(same) of \(prompts.count) answers match transformers, token for token; "
                + "\(dropped) of \(cluster.routedTokens) routed tokens dropped; "
                + String(format: "%.0f tokens/s.", tokens / max(seconds, 1e-9))
        )
    }

    /// Lets a decoder-only model go on with its prompts.
    private static func goOn(_ prompts: [Prompt], _ client: GatewayClient) async throws {
        for prompt in prompts {
            let parameters = GenerationParameters(maxNewTokens: UInt32(prompt.tokenIDs.count))
            let request = GenerateRequest(input: .text(prompt.prompt), parameters: parameters)
            let response = try await client.generate(request)
            guard let answer = response.generations.first else { continue }
            let isSame = answer.tokenIDs == prompt.tokenIDs
            let mark =
                isSame
                ? Terminal.styled("the same as labml_nn's", .green) : Terminal.styled("DIFFERS from labml_nn's", .red)
            for line in (Terminal.styled(prompt.prompt, .dim) + Terminal.styled(answer.text, .bold))
                .split(separator: "\n")
            {
                Terminal.print("  \(line)")
            }
            Terminal.print("\n\(answer.tokenIDs.count) characters, \(mark).")
        }
    }

    /// Sentinels as gaps: what a person would fill in.
    private static func readable(_ text: String) -> String {
        text.replacingOccurrences(of: "<extra_id_[0-9]+>", with: "____", options: .regularExpression)
    }

    /// The words between the sentinels of an answer.
    private static func words(_ text: String) -> String {
        text.replacingOccurrences(of: "</s>", with: "")
            .replacingOccurrences(of: "<extra_id_[0-9]+>", with: "|", options: .regularExpression)
            .split(separator: "|").map { $0.trimmingCharacters(in: .whitespaces) }.filter { !$0.isEmpty }
            .joined(separator: " / ")
    }
}

extension String {
    /// Every line indented.
    func indented(by count: Int) -> String {
        self.split(separator: "\n", omittingEmptySubsequences: false)
            .map { String(repeating: " ", count: count) + $0 }.joined(separator: "\n")
    }
}
