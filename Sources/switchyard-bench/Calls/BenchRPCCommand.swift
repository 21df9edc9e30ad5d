// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import CommandKit
import Foundation
import Logging
import NIOCore
import NIOPosix
import RPCCore
import RPCTransport
import SwitchyardClient
import SwitchyardTypes
import Synchronization
import TensorKernels

/// `switchyard-bench rpc`: unary calls over the loopback between two processes.
struct BenchRPCCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rpc",
        abstract: "Unary calls between two processes: p50, p99, and calls per second with 64 in flight.",
        discussion: """
            One connection; the server echoes the message. Two placements: both processes bound to one processor, and
            one processor each. A call is made from the completion of the one before it, on the event loop.

            Beside it in every round are raw sockets: two processes on the same processors that write and read as many bytes,
            with system calls that block and no protocol. That is the limit; it has no calls in flight.

            EXAMPLES
              switchyard-bench rpc --calls 20000
              switchyard-bench rpc --bytes 64 --placement one
              switchyard-bench rpc --unix --rounds 5
              switchyard-bench rpc --peer "gRPC C++=.build/peers/grpc-cpp" --rounds 5
            """
    )

    /// On which processors the two processes run.
    enum Placement: String, CaseIterable, ExpressibleByArgument {
        case one
        case two

        var name: String { self == .one ? "one processor" : "two processors" }
        var serverCPU: Int { self == .one ? 0 : 1 }
    }

    @Option(help: "Calls of each row.")
    var calls: Int = 10_000

    @Option(help: ArgumentHelp("Message sizes. (default: 64 3072 49152)", valueName: "n"))
    var bytes: [Int] = []

    @Option(help: "Only this placement.")
    var placement: Placement?

    @Option(help: "Runs of each row, taking turns with the others; medians are printed.")
    var rounds: Int = 1

    @Flag(help: "Also measure over Unix sockets, in turn with TCP.")
    var unix = false

    @Option(
        help: ArgumentHelp(
            "A program that does the same with another implementation (Tests/Peers/bench-*); may be given several times.",
            valueName: "name=path"
        )
    )
    var peer: [String] = []

    @Flag(help: "Print the table as Markdown.")
    var markdown = false

    func validate() throws {
        guard self.calls >= 10 else { throw ValidationError("--calls is \(self.calls); set 10 or more") }
        guard self.rounds >= 1 else { throw ValidationError("--rounds is \(self.rounds); set 1 or more") }
        for text in self.peer where RPCPeer(text) == nil {
            throw ValidationError("--peer \(text) is not name=path")
        }
        let limit = 32 << 20
        for bytes in self.bytes where !(0...limit).contains(bytes) {
            throw ValidationError("--bytes is \(bytes), outside 0...\(limit); set a value in that range")
        }
    }

    /// One of the systems that take turns.
    private enum System {
        case raw(isUnix: Bool)
        case switchyard(isUnix: Bool)
        case peer(RPCPeer)

        var name: String {
            switch self {
            case .raw(let isUnix): isUnix ? "raw unix:" : BenchRPCCommand.baseline
            case .switchyard(let isUnix): isUnix ? "Switchyard, unix:" : "Switchyard"
            case .peer(let peer): peer.name
            }
        }

        /// Whether it can be measured; without a protocol there are no messages without bytes.
        func has(bytes: Int) -> Bool {
            if case .raw = self { bytes > 0 } else { true }
        }
    }

    /// What all others are compared with.
    private static let baseline = "raw TCP"

    private var systems: [System] {
        let kinds = self.unix ? [false, true] : [false]
        return kinds.flatMap { [System.raw(isUnix: $0), System.switchyard(isUnix: $0)] }
            + self.peer.compactMap { RPCPeer($0) }.map { System.peer($0) }
    }

    func run() async throws {
        var table = TextTable([
            ("", .left), ("placement", .left), ("bytes each way", .right), ("p50", .right),
            ("x \(Self.baseline)", .right), ("p99", .right), ("calls/s, 64 in flight", .right),
        ])
        let placements = self.placement.map { [$0] } ?? Placement.allCases
        for placement in placements where placement.serverCPU < Processors.count {
            for bytes in self.bytes.isEmpty ? [64, 3 << 10, 48 << 10] : self.bytes {
                let systems = self.systems.filter { $0.has(bytes: bytes) }
                var results: [[RPCFigures]] = Array(repeating: [], count: systems.count)
                for _ in 0..<self.rounds {
                    for (index, system) in systems.enumerated() {
                        results[index]
                            .append(
                                try await self.measure(system, bytes: bytes, server: placement.serverCPU)
                            )
                    }
                }
                let names = systems.map(\.name)
                let raw = names.firstIndex(of: Self.baseline).map { median(results[$0].map(\.p50)) }
                for (name, rounds) in zip(names, results) {
                    table.add([name, placement.name, Self.size(bytes)] + Self.cells(rounds, raw: raw))
                }
            }
        }
        Terminal.print(SwitchyardBench.machine)
        Terminal.print(self.markdown ? table.markdown : table.text)
    }

    /// A row's figures: medians of the rounds, with the range of the p50 where there are several.
    ///
    /// - Parameters:
    ///   - rounds: What each round found; at least one.
    ///   - raw: The p50 of the baseline, in microseconds; nil where it was not measured.
    /// - Returns: The cells from the p50 on.
    static func cells(_ rounds: [RPCFigures], raw: Double?) -> [String] {
        let halves = rounds.map(\.p50)
        let half = median(halves)
        var shown = String(format: "%.1f us", half)
        if rounds.count > 1, let low = halves.min(), let high = halves.max() {
            shown += String(format: " (%.1f to %.1f)", low, high)
        }
        let rates = rounds.compactMap(\.callsPerSecond)
        return [
            shown, raw.map { String(format: "%.2f", half / $0) } ?? "-",
            String(format: "%.1f us", median(rounds.map(\.p99))),
            rates.isEmpty ? "-" : String(format: "%.0f", median(rates)),
        ]
    }

    private static func size(_ bytes: Int) -> String {
        bytes < 1024 ? "\(bytes) B" : "\(bytes / 1024) KiB"
    }

    private func measure(_ system: System, bytes: Int, server cpu: Int) async throws -> RPCFigures {
        let calls = self.calls
        let (client, place) = (0, ["--cpu", "\(cpu)"])
        switch system {
        case .raw(let isUnix):
            let arguments = ["raw-server", "--bytes", "\(bytes)"] + place
            return try await Self.withServer(arguments, isUnix: isUnix) { server in
                try await RawEcho.measure(server, bytes: bytes, cpu: client, calls: calls)
            }
        case .switchyard(let isUnix):
            return try await Self.withServer(["rpc-server"] + place, isUnix: isUnix) { server in
                try await Self.measure(server, bytes: bytes, cpu: client, calls: calls)
            }
        case .peer(let peer):
            return try await peer.measure(bytes: bytes, calls: calls, server: cpu)
        }
    }

    /// Runs this program as a server for as long as a body takes.
    private static func withServer(
        _ arguments: [String],
        isUnix: Bool,
        _ body: @escaping @Sendable (Endpoint) async throws -> RPCFigures
    ) async throws -> RPCFigures {
        let file = FileManager.default.temporaryDirectory.appendingPathComponent("switchyard-\(UUID().uuidString)").path
        defer { for path in [file, "\(file).sock"] { try? FileManager.default.removeItem(atPath: path) } }
        let child = ChildSpecification(
            name: "echo server",
            arguments: arguments + ["--address-file", file] + (isUnix ? ["--unix"] : []),
            addressFile: file
        )
        let ignore: @Sendable (ChildEvent) -> Void = { _ in }
        return try await ChildProcesses.run(
            [child],
            executable: Programs.this,
            onExit: .fail,
            startTimeout: .seconds(30),
            events: ignore
        ) { children in
            guard let address = children.running.first?.address else {
                throw ChildProcessError(description: "the echo server ended")
            }
            return try await body(try Endpoint(parsing: address))
        }
    }

    private static func measure(_ server: Endpoint, bytes: Int, cpu: Int, calls: Int) async throws -> RPCFigures {
        let group = try await PinnedEventLoop.make(cpu: cpu)
        var configuration = RPCChannelConfiguration(limits: .dataPlane)
        configuration.eventLoopGroup = group
        let channel = RPCChannel(
            target: (server.host, server.port),
            configuration: configuration,
            logger: Logger(label: "bench") { _ in SwiftLogNoOpLogHandler() }
        )
        let result = try await withThrowingTaskGroup(of: Void.self) { tasks in
            tasks.addTask { try await channel.run() }
            defer { channel.shutdown() }
            let payload = Payload(ByteBuffer(repeating: 7, count: bytes))
            _ = try await channel.unary(EchoService.method, payload, options: CallOptions(waitForReady: true))
            _ = try await CallChain(channel: channel, payload: payload, calls: calls / 10).run()
            let alone = try await CallChain(channel: channel, payload: payload, calls: calls).run()
            let start = ContinuousClock.now
            let chains = 64
            let each = max(1, calls / chains)
            try await withThrowingTaskGroup(of: Void.self) { inner in
                for _ in 0..<chains {
                    inner.addTask { _ = try await CallChain(channel: channel, payload: payload, calls: each).run() }
                }
                try await inner.waitForAll()
            }
            let time = start.duration(to: .now).inSeconds
            let percentiles = Percentiles(alone)
            return RPCFigures(
                p50: percentiles.at(0.5).inMicroseconds,
                p99: percentiles.at(0.99).inMicroseconds,
                callsPerSecond: Double(chains * each) / time
            )
        }
        try await group.shutdownGracefully()
        return result
    }
}

/// The echo that both ends of the benchmark speak.
enum EchoService {
    static let method = Method(service: "switchyard.bench.v1.Echo", name: "Echo")

    /// Answers with what it got, on the event loop.
    static let echo = ServiceMethod.unaryOnEventLoop(Self.method) { message, _, responder in
        responder.finish(.success(Payload(message)))
    }
}

/// Calls one after another, each made from the completion of the one before it, without changing threads.
final class CallChain: Sendable {
    private let channel: RPCChannel
    private let payload: Payload
    private let calls: Int
    private let times = Mutex<[Duration]>([])

    init(channel: RPCChannel, payload: Payload, calls: Int) {
        self.channel = channel
        self.payload = payload
        self.calls = calls
        self.times.withLock { $0.reserveCapacity(calls) }
    }

    /// Makes the calls.
    ///
    /// - Returns: How long each took.
    func run() async throws -> [Duration] {
        try await withCheckedThrowingContinuation { continuation in self.next(continuation) }
    }

    private func next(_ continuation: CheckedContinuation<[Duration], any Error>) {
        let start = ContinuousClock.now
        self.channel.unary(EchoService.method, self.payload) { result in
            switch result {
            case .success:
                let all: [Duration]? = self.times.withLock { times in
                    times.append(start.duration(to: .now))
                    return times.count >= self.calls ? times : nil
                }
                if let all { continuation.resume(returning: all) } else { self.next(continuation) }
            case .failure(let error): continuation.resume(throwing: error)
            }
        }
    }
}

/// An event loop on a thread bound to one processor.
enum PinnedEventLoop {
    /// Starts one event loop.
    ///
    /// - Parameter cpu: Index of the processor.
    /// - Returns: A group of that loop.
    /// - Throws: Where the loop cannot run a task.
    static func make(cpu: Int) async throws -> MultiThreadedEventLoopGroup {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        try await group.next().submit { _ = ThreadPlacement.bind(to: cpu) }.get()
        return group
    }
}

/// `switchyard-bench rpc-server`: the server's end of `switchyard-bench rpc`.
struct BenchRPCServerCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rpc-server",
        abstract: "The server's end of `rpc`.",
        shouldDisplay: false
    )

    @Option var cpu: Int = 0
    @Option var addressFile: String
    @Flag(help: "Listen on a Unix socket beside the address file.") var unix = false

    func run() async throws {
        let group = try await PinnedEventLoop.make(cpu: self.cpu)
        var configuration = RPCServerConfiguration(
            eventLoopGroup: group,
            limits: .dataPlane,
            drainGrace: .seconds(1)
        )
        if self.unix { configuration.host = try UnixAddress(parsing: "unix:\(self.addressFile).sock").host }
        let server = RPCServer(
            configuration: configuration,
            methods: [EchoService.echo],
            logger: Logger(label: "bench") { _ in SwiftLogNoOpLogHandler() }
        )
        let path = self.addressFile
        try await withThrowingTaskGroup(of: Void.self) { tasks in
            tasks.addTask { try await server.run() }
            tasks.addTask {
                let address = try await server.boundAddress()
                try Data("\(AddressText.of(host: address.host, port: address.port))\n".utf8)
                    .write(to: URL(fileURLWithPath: path), options: .atomic)
                // The parent's pipe closes when it is done, however it ends.
                try await NIOThreadPool.singleton.runIfActive {
                    while !FileHandle.standardInput.availableData.isEmpty {}
                }
                server.beginGracefulShutdown()
            }
            try await tasks.waitForAll()
        }
    }
}
