// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import CommandKit
import Foundation
import SwitchyardClient
import SwitchyardProtos
import SwitchyardTypes

/// `switchyard-bench cluster`: tokens per second through a gateway and expert hosts.
struct BenchClusterCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cluster",
        abstract: "Tokens per second through a cluster of processes on this machine.",
        discussion: """
            One GenerateStream call per sequence of the batch, all made at once, on the inputs of `model`. Decode tokens per
            second count what came while all calls decoded, as `model` decodes a whole batch; all tokens per second
            count from the start of the calls, encoding included; encode tokens per second are measured with Encode calls.
            Medians of the runs.

            EXAMPLE
              switchyard-bench cluster deploy/models/switch-mini --pools 2 --batch 8
              switchyard-bench cluster google/switch-base-8 --dtype bfloat16 --packed --wire-dtype bfloat16
            """
    )

    @Argument(help: "A folder in Hugging Face layout, or a hub id in the local cache.")
    var model: String

    @Option(help: "Number of pools.")
    var pools: Int = 2

    @Option(help: "Expert hosts of each pool.")
    var replicas: Int = 1

    @OptionGroup var work: BenchWorkOptions

    @Option(help: "Compute threads of the gateway.")
    var threads: Int?

    @Option(help: "Compute threads of each expert host.")
    var hostThreads: Int?

    @Option(help: ArgumentHelp("Keep the shards in this folder, and reuse them on the next start.", valueName: "dir"))
    var shards: String?

    @Flag(help: "Reach the expert hosts over TCP on the loopback, in place of Unix sockets.")
    var tcp = false

    @Option(help: "The name of the figures' system in the file of --json.")
    var name: String = "Switchyard, cluster"

    @OptionGroup(title: "Precision") var precision: ClusterPrecisionOptions

    @OptionGroup(title: "Output") var output: BenchOutputOptions

    func run() async throws {
        let workspace = try ShardWorkspace.prepare(
            model: self.model,
            pools: self.pools,
            folder: self.shards,
            packing: self.precision.packing
        )
        defer { workspace.discard() }
        var layout = LocalCluster.Layout(shards: workspace.folder, pools: workspace.pools)
        layout.hostsUseSockets = !self.tcp
        layout.replicas = self.replicas
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
        try await LocalCluster.run(layout, executable: BenchPrograms.switchyard(), events: events) { cluster in
            let up = start.duration(to: .now)
            try await GatewayClient.with(endpoint: Endpoint(parsing: cluster.gatewayAddress)) { client in
                if options.work.turns {
                    try await options.takeTurns(client)
                } else {
                    try await options.measure(client, cluster: cluster, up: up)
                }
            }
        }
    }

    private func takeTurns(_ client: GatewayClient) async throws {
        let vocabulary = Int(try await client.describeModel().vocabularySize)
        let cases = ["decode", "encode"].flatMap { work in self.work.batches.map { TurnCase(work: work, size: $0) } }
        try await TurnServer(cases: cases)
            .serve { one in
                guard one.work == "decode" else {
                    return TurnResult(value: try await self.encode(one.size, vocabulary, client), unit: "tokens/s")
                }
                let run = try await self.decode(one.size, vocabulary, client)
                return TurnResult(value: run.decode, unit: "tokens/s", details: ["dropped": Double(run.dropped)])
            }
    }

    private func measure(_ client: GatewayClient, cluster: LocalCluster, up: Duration) async throws {
        let vocabulary = Int(try await client.describeModel().vocabularySize)
        let hosts = cluster.hosts.running
        var report = BenchReport(
            title: "A model in a cluster of processes",
            sizeName: "batch",
            conditions: "1 gateway and \(hosts.count) expert hosts, \(self.work.inputTokens) input tokens, "
                + "\(self.work.newTokens) new tokens, \(self.precision.words), medians of \(self.work.runs) runs"
        )
        for run in 0...self.work.runs {
            for size in self.work.batches {
                let encode = try await self.encode(size, vocabulary, client)
                let decode = try await self.decode(size, vocabulary, client)
                // The first round touches everything once and is discarded.
                guard run > 0 else { continue }
                report.add(encode, to: self.figure("encode", size, "tokens/s"))
                report.add(decode.decode, to: self.figure("decode", size, "tokens/s"))
                report.add(decode.total, to: self.figure("decode with encoding", size, "tokens/s"))
                report.add(decode.seconds * 1000, to: self.figure("slowest call", size, "ms"))
                report.add(Double(decode.dropped), to: self.figure("dropped", size, "rows"))
            }
        }
        Terminal.print(report.conditions)
        Terminal.print(report.machine)
        let memory = cluster.processes.map { "\($0.name) \(ProcessMemory.resident(of: $0.processIdentifier) ?? "?")" }
        Terminal.print("up in \(Terminal.time(up)); resident: \(memory.joined(separator: ", "))")
        self.output.print(self.table(report))
        try report.write(to: self.output.json)
    }

    private func figure(_ work: String, _ size: Int, _ unit: String) -> BenchFigure {
        BenchFigure(work: work, size: size, system: self.name, unit: unit, values: [])
    }

    private func table(_ report: BenchReport) -> TextTable {
        var table = TextTable([
            ("batch", .right), ("encode tokens/s", .right), ("decode tokens/s", .right), ("all tokens/s", .right),
            ("slowest call", .right),
            ("dropped", .right),
        ])
        for size in self.work.batches {
            let cells = ["encode", "decode", "decode with encoding", "slowest call", "dropped"]
                .compactMap { report.figure($0, size, self.name) }
            guard cells.count == 5 else { continue }
            table.add([
                "\(size)", BenchModelCommand.spread(cells[0]), BenchModelCommand.spread(cells[1]),
                BenchModelCommand.spread(cells[2]), String(format: "%.0f ms", cells[3].median),
                String(format: "%.0f", cells[4].values.reduce(0, +)),
            ])
        }
        return table
    }

    /// The result of one batch of calls.
    private struct Run {
        /// Tokens per second over the longest decode time of the calls.
        var decode: Double
        /// New tokens per second over the time of the whole batch.
        var total: Double
        var seconds: Double
        var dropped: UInt64
    }

    /// Tokens per second of a batch of calls that encode one input each; the answers carry one row per sequence.
    private func encode(_ size: Int, _ vocabulary: Int, _ client: GatewayClient) async throws -> Double {
        let inputs = BenchInputs.sequences(count: size, tokens: self.work.inputTokens, vocabulary: vocabulary)
        let start = ContinuousClock.now
        try await withThrowingTaskGroup(of: Void.self) { group in
            for input in inputs {
                let request = EncodeRequest(input: .tokenIDs(input.map { UInt32($0) }), pooling: .mean)
                group.addTask { _ = try await client.encode(request) }
            }
            try await group.waitForAll()
        }
        return Double(size * self.work.inputTokens) / start.duration(to: .now).inSeconds
    }

    /// The result of one call of a batch.
    private struct Stream {
        var tokens: [ContinuousClock.Instant] = []
        var usage: Usage?
    }

    /// Generates for a batch of calls at once.
    private func decode(_ size: Int, _ vocabulary: Int, _ client: GatewayClient) async throws -> Run {
        let inputs = BenchInputs.sequences(count: size, tokens: self.work.inputTokens, vocabulary: vocabulary)
        let start = ContinuousClock.now
        let streams = try await self.generateAll(inputs, client)
        let time = start.duration(to: .now).inSeconds
        let tokens = streams.reduce(0) { $0 + Double($1.usage?.outputTokens ?? 0) }
        return Run(
            decode: Self.steadyRate(streams.map(\.tokens)),
            total: tokens / time,
            seconds: time,
            dropped: streams.reduce(0) { $0 + ($1.usage?.dropped ?? []).reduce(0) { $0 + $1.tokens } }
        )
    }

    /// Tokens per second from the moment the last stream begins until the first one ends.
    private static func steadyRate(_ streams: [[ContinuousClock.Instant]]) -> Double {
        guard let from = streams.compactMap(\.first).max(), let to = streams.compactMap(\.last).min(), from < to else {
            return 0
        }
        let count = streams.joined().count { $0 > from && $0 <= to }
        return Double(count) / from.duration(to: to).inSeconds
    }

    private func generateAll(_ inputs: [[Int32]], _ client: GatewayClient) async throws -> [Stream] {
        let count = UInt32(self.work.newTokens)
        return try await withThrowingTaskGroup(of: Stream.self) { group in
            for input in inputs {
                let request = GenerateRequest(
                    input: .tokenIDs(input.map { UInt32($0) }),
                    parameters: GenerationParameters(maxNewTokens: count, minNewTokens: count, skipScores: true)
                )
                group.addTask {
                    var stream = Stream()
                    for try await event in try await client.generateStream(request) {
                        switch event {
                        case .token: stream.tokens.append(.now)
                        case .response(let response): stream.usage = response.usage
                        }
                    }
                    return stream
                }
            }
            return try await group.reduce(into: []) { $0.append($1) }
        }
    }
}
