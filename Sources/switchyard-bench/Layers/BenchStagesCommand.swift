// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Checkpoints
import CommandKit
import ExpertPooling
import ExpertServing
import Foundation
import GatewayServing
import Logging
import NIOPosix
import RPCTransport
import SwitchModel
import SwitchyardTypes
import TensorKernels

/// `switchyard-bench stages`: where the time of one remote sparse layer goes.
struct BenchStagesCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "stages",
        abstract: "Where the microseconds of a remote sparse layer go, stage by stage.",
        discussion: """
            One token, two expert hosts. Gateway and hosts are threads of this process, none of which serves both ends, so
            that one clock stamps both ends of a call; between them are sockets, as between processes. Experts are random and
            of switch-base-8's size; with small ones (--inner 64) little is left but what a call costs.

            After each layer, the token's row goes to another thread and back over a raw socket, without a protocol, and the same
            layer is run in this process. The two together and 60 us are the limit that the layer is compared with.

            EXAMPLES
              switchyard-bench stages --markdown
              switchyard-bench stages --inner 64 --calls 2000 --unix
              switchyard-bench stages --hand-over --event-loops
            """
    )

    @Option(help: "Elements of a token.")
    var width: Int = 768

    @Option(help: "Elements between an expert's two matrices.")
    var inner: Int = 3072

    @Option(help: "Compute threads of each expert host.")
    var hostThreads: Int = 1

    @Flag(help: "Leave all calls to the hosts' compute threads, as large ones are.")
    var handOver = false

    @Flag(help: "Connect over Unix sockets, in place of TCP.")
    var unix = false

    @Flag(help: "Leave the gateway's sockets to an event loop, in place of the engine's thread.")
    var eventLoops = false

    @Option(help: "Calls; a tenth as many before them are not counted.")
    var calls: Int = 500

    @Flag(help: "Print the table as Markdown.")
    var markdown = false

    func validate() throws {
        let checks: [(String, Int, ClosedRange<Int>)] = [
            ("--width", self.width, 1...65_536), ("--inner", self.inner, 1...65_536),
            ("--host-threads", self.hostThreads, 1...1024), ("--calls", self.calls, 1...1_000_000),
        ]
        for (option, value, limit) in checks where !limit.contains(value) {
            throw ValidationError("\(option) is \(value); set a value from \(limit.lowerBound) to \(limit.upperBound)")
        }
    }

    func run() async throws {
        let folder = try BenchFolder()
        defer { folder.remove() }
        let model = "\(folder.path)/model"
        try SyntheticCheckpoint.oneSparseLayer(experts: 8, width: self.width, inner: self.inner).write(to: model)
        let shards = "\(folder.path)/shards"
        let placement = try CheckpointSharder.shard(model: model, output: shards, pools: 2)
        let stages = CallStages()
        let logger = Logger(label: "bench") { _ in SwiftLogNoOpLogHandler() }
        let hosts = try placement.pools.map { part in
            var configuration = ExpertHostConfiguration(shardDirectories: ["\(shards)/\(part.directory)"])
            configuration.port = 0
            configuration.threads = self.hostThreads
            configuration.drainTimeout = .seconds(1)
            configuration.stages = stages
            configuration.computesOnEventLoops = !self.handOver
            if self.unix { configuration.host = try UnixAddress(parsing: "unix:\(folder.path)/\(part.name).sock").host }
            return (name: part.name, host: try ExpertHost(configuration: configuration, logger: logger))
        }
        let options = self
        try await withThrowingTaskGroup(of: Void.self) { group in
            defer { group.cancelAll() }
            let pools = try await BenchHosts(hosts: hosts).run(in: &group)
            try await options.measure(pools, model: model, stages: stages, logger: logger, in: &group)
        }
    }

    private func measure(
        _ pools: [PoolSpecification],
        model: String,
        stages: CallStages,
        logger: Logger,
        in group: inout ThrowingTaskGroup<Void, any Error>
    ) async throws {
        let checkpoint = try Checkpoint.open(model)
        let pool = WorkPool(threads: 1)
        let bench = try ExpertLayerBench(checkpoint: checkpoint, pool: pool, tokens: 1)
        let local = try LocalExperts(checkpoint: checkpoint, pool: pool)
        var configuration = ExpertClusterConfiguration(pools: pools)
        configuration.sockets = .engine
        if self.eventLoops {
            configuration.channel.eventLoopGroup = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        }
        configuration.channel.stages = stages
        let remote = await BenchHosts.experts(configuration, of: checkpoint, logger: logger, in: &group)
        let calls = self.calls
        let bytes = self.rowBytes
        let ends = try RawSocket.pair(isUnix: self.unix)
        // Whatever happens, the thread at the other end reads the end of the connection.
        defer { ends.client.end() }
        group.addTask { try await BlockingWork.run { try RawEcho.serve(ends.server, bytes: bytes) } }
        let found = try await BlockingWork.run {
            var found = StageFigures()
            let raw = RawEcho.Caller(ends.client, bytes: bytes)
            for call in 0..<(calls + calls / 10 + 1) {
                _ = stages.take()
                let whole = try bench.run(tokens: 1, call: call, experts: remote).time
                let times = CallStages.times(stages.take())
                let way = try raw.roundTrip()
                let here = try bench.run(tokens: 1, call: call, experts: local).time
                // The first calls open files of code and teach the connections their header blocks.
                guard call > calls / 10 else { continue }
                if let times { found.layers.append(LayerTimes(whole: whole, stages: times)) }
                found.alone.append(here)
                found.raw.append(way)
            }
            return found
        }
        guard !found.layers.isEmpty else { throw BenchError("no call went through all of its stages") }
        self.show(found)
    }

    /// The bytes of a token's row, which a request and its answer hold each, in float32.
    private var rowBytes: Int { self.width * MemoryLayout<Float>.size }

    private func show(_ found: StageFigures) {
        let layers = found.layers
        var table = TextTable([("stage", .left), ("thread", .left), ("p50", .right), ("p90", .right)])
        func add(_ name: String, _ thread: String, _ times: [Duration]) {
            let times = Percentiles(times)
            table.add([name, thread, Self.microseconds(times.at(0.5)), Self.microseconds(times.at(0.9))])
        }
        add("router, dispatch, combine", "engine", layers.map(\.rest))
        for (index, stage) in layers[0].stages.map(\.stage).enumerated() {
            add(stage.work, stage.thread(isEngines: !self.eventLoops), layers.map { $0.stages[index].time })
        }
        add("the whole layer", "", layers.map(\.whole))
        add("the same layer in this process, one thread", "engine", found.alone)
        add("raw \(self.unix ? "unix:" : "TCP"), \(self.rowBytes) B there and back", "engine to another", found.raw)
        table.add(["in process + raw + 60 us, the limit", "", Self.microseconds(found.limit)])
        table.add(["the whole layer, x the limit", "", String(format: "%.2f", found.ofLimit)])
        let way =
            (self.unix ? "Unix sockets" : "TCP") + (self.handOver ? ", compute threads" : "")
            + (self.eventLoops ? ", event loops" : "")
        Terminal.print(
            "\(layers.count) layers of one token, experts of \(self.width)-\(self.inner)-\(self.width), \(way)"
        )
        Terminal.print(SwitchyardBench.machine)
        Terminal.print(self.markdown ? table.markdown : table.text)
    }

    private static func microseconds(_ time: Duration) -> String {
        let tenths = Int((time.inMicroseconds * 10).rounded())
        return "\(tenths / 10).\(tenths % 10) us"
    }
}

/// What was measured in turn.
struct StageFigures: Sendable {
    /// The layers whose calls went through all of their stages.
    var layers: [LayerTimes] = []
    /// The same layer in this process.
    var alone: [Duration] = []
    /// A token's row to another thread and back, without a protocol.
    var raw: [Duration] = []

    /// What a remote layer may take beyond the layer in process and the bytes' way: protocol, checks and wake-ups.
    static let allowance = Duration.microseconds(60)

    /// What the layer's p50 is compared with.
    var limit: Duration { Percentiles(self.alone).at(0.5) + Percentiles(self.raw).at(0.5) + Self.allowance }

    /// The layer's p50 as a multiple of the limit; at most 1 keeps it.
    var ofLimit: Double { Percentiles(self.layers.map(\.whole)).at(0.5) / self.limit }
}

/// The times of one layer.
struct LayerTimes: Sendable {
    let whole: Duration
    let stages: [(stage: CallStages.Stage, time: Duration)]

    /// What is left of the layer without its call.
    var rest: Duration { self.whole - self.stages.reduce(.zero) { $0 + $1.time } }
}

extension CallStages.Stage {
    /// What happens between the stage before and this one.
    fileprivate var work: String {
        switch self {
        case .called, .opened: "the call is handed to an event loop"
        case .sent: "a stream is opened, frames are made"
        case .arrived: "write, socket, wake-up, read"
        case .queued: "frames are read, the request is checked"
        case .begun: "the call is handed to a thread that computes"
        case .computed: "the expert is computed"
        case .answered: "the answer is handed to an event loop"
        case .replied: "frames are made"
        case .read: "write, socket, wake-up, read"
        case .recorded: "frames are read"
        case .woken: "the answer is handed to the engine"
        }
    }

    /// Whose thread that happens on.
    ///
    /// - Parameter isEngines: Whether the engine's thread has the gateway's sockets.
    /// - Returns: The thread, or the two that the stage goes between.
    fileprivate func thread(isEngines: Bool) -> String {
        let loop = isEngines ? "engine" : "gateway's loop"
        return switch self {
        case .called, .opened: isEngines ? loop : "engine to \(loop)"
        case .sent, .recorded: loop
        case .arrived: "\(loop) to host's loop"
        case .queued, .replied: "host's loop"
        case .begun: "host's loop to compute"
        case .computed: "compute"
        case .answered: "compute to host's loop"
        case .read: "host's loop to \(loop)"
        case .woken: isEngines ? loop : "\(loop) to engine"
        }
    }
}
