// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Foundation
import SwitchyardClient
import SwitchyardProtos

/// `switchyard bench cluster`: tokens a second through a gateway and expert hosts.
struct BenchClusterCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cluster",
        abstract: "Tokens a second through a cluster of processes on this machine.",
        discussion: """
            So many Generate calls as the batch is wide, made at once, on the inputs of bench model. Decode tokens a
            second are all tokens over the longest decode time of the calls. Medians of the runs.

            EXAMPLE
              switchyard bench cluster deploy/models/switch-mini --pools 2 --batch 8
              switchyard bench cluster google/switch-base-8 --dtype bfloat16 --packed --wire-dtype bfloat16
            """
    )

    @Argument(help: "A folder in Hugging Face layout, or a hub id in the local cache.")
    var model: String

    @Option(help: "Number of pools.")
    var pools: Int = 2

    @Option(help: "Batch size; may be given several times. (default: 1, 8 and 32)")
    var batch: [Int] = []

    @Option(help: "Tokens of each input.")
    var inputTokens: Int = 64

    @Option(help: "Tokens to decode for each sequence.")
    var newTokens: Int = 32

    @Option(help: "Runs of each row.")
    var runs: Int = 3

    @Option(help: "Compute threads of the gateway.")
    var threads: Int?

    @Option(help: "Compute threads of each expert host.")
    var hostThreads: Int?

    @Option(help: ArgumentHelp("Keep the shards in this folder; used again if it holds them.", valueName: "dir"))
    var shards: String?

    @OptionGroup(title: "Precision") var precision: ClusterPrecisionOptions

    @Flag(help: "Print the table as Markdown.")
    var markdown = false

    func run() async throws {
        let workspace = try ShardWorkspace.prepare(
            model: self.model,
            pools: self.pools,
            folder: self.shards,
            packing: self.precision.packing
        )
        defer { workspace.discard() }
        var layout = LocalCluster.Layout(shards: workspace.folder, pools: workspace.pools)
        layout.gatewayThreads = self.threads
        layout.hostThreads = self.hostThreads
        self.precision.apply(to: &layout)
        let options = self
        let start = ContinuousClock.now
        let events: @Sendable (ChildEvent) -> Void = { event in
            if case .line(let name, let text) = event, text.contains("error") {
                Terminal.printError("[\(name)] \(text)")
            }
        }
        try await LocalCluster.run(layout, events: events) { cluster in
            let up = start.duration(to: .now)
            try await GatewayClient.with(endpoint: Endpoint(parsing: cluster.gatewayAddress)) { client in
                try await options.measure(client, cluster: cluster, up: up)
            }
        }
    }

    private func measure(_ client: GatewayClient, cluster: LocalCluster, up: Duration) async throws {
        let vocabulary = Int(try await client.describeModel().vocabularySize)
        var table = TextTable([
            ("batch", .right), ("decode tokens/s", .right), ("all tokens/s", .right), ("slowest call", .right),
            ("dropped", .right),
        ])
        for size in self.batch.isEmpty ? [1, 8, 32] : self.batch {
            let inputs = BenchInputs.sequences(count: size, tokens: self.inputTokens, vocabulary: vocabulary)
            var decodes: [Double] = []
            var totals: [Double] = []
            var slowest: [Double] = []
            var dropped: UInt64 = 0
            for _ in 0..<max(1, self.runs) {
                let start = ContinuousClock.now
                let responses = try await self.generateAll(inputs, client)
                let time = start.duration(to: .now).inSeconds
                let tokens = responses.reduce(0) { $0 + Double($1.usage?.outputTokens ?? 0) }
                let decodeTime = responses.map { Double($0.usage?.decodeMicroseconds ?? 0) * 1e-6 }.max() ?? 0
                dropped += responses.reduce(0) { $0 + ($1.usage?.dropped ?? []).reduce(0) { $0 + $1.tokens } }
                decodes.append(decodeTime > 0 ? tokens / decodeTime : 0)
                totals.append(tokens / time)
                slowest.append(time)
            }
            table.add([
                "\(size)", String(format: "%.1f", median(decodes)), String(format: "%.1f", median(totals)),
                String(format: "%.0f ms", median(slowest) * 1000), "\(dropped)",
            ])
        }
        let hosts = cluster.hosts.running
        Terminal.print(
            "1 gateway and \(hosts.count) expert hosts, \(self.inputTokens) input tokens, "
                + "\(self.newTokens) new tokens, \(self.precision.words), median of \(self.runs)"
        )
        Terminal.print(BenchCommand.machine)
        let memory = cluster.processes.map { "\($0.name) \(ProcessMemory.resident(of: $0.processIdentifier) ?? "?")" }
        Terminal.print("up in \(Terminal.time(up)); resident: \(memory.joined(separator: ", "))")
        Terminal.print(self.markdown ? table.markdown : table.text)
    }

    private func generateAll(_ inputs: [[Int32]], _ client: GatewayClient) async throws -> [GenerateResponse] {
        let count = UInt32(self.newTokens)
        return try await withThrowingTaskGroup(of: GenerateResponse.self) { group in
            for input in inputs {
                let request = GenerateRequest(
                    input: .tokenIDs(input.map { UInt32($0) }),
                    parameters: GenerationParameters(maxNewTokens: count, minNewTokens: count)
                )
                group.addTask { try await client.generate(request) }
            }
            return try await group.reduce(into: []) { $0.append($1) }
        }
    }
}
