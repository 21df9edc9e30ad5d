// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import CommandKit
import Foundation
import Logging
import NIOCore
import NIOPosix
import RPCTransport
import SwitchyardTypes

/// `switchyard-bench count-calls`: calls whose work is counted from outside, or by a preloaded library.
struct CountCallsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "count-calls",
        abstract: "Make calls within this process, for tools that count instructions and allocations.",
        discussion: """
            Client and server share one event loop, so that the counts are the same each time. Two runs that differ in --calls
            alone differ by what the calls between them cost: run both under `valgrind --tool=none` or `callgrind`. With
            Tests/Allocations/count_allocations.c preloaded, the allocations of a warm call are printed.

            EXAMPLE
              switchyard-bench count-calls --calls 4000 --in-flight 64 --bytes 64
            """
    )

    @Option(help: "Calls in all.")
    var calls: Int = 2000

    @Option(help: "Calls that are not counted; they teach the connection its header blocks, and grow its buffers.")
    var warmUp: Int = 256

    @Option(help: "Calls at a time.")
    var inFlight: Int = 64

    @Option(help: "Bytes of a message, each way.")
    var bytes: Int = 64

    func validate() throws {
        for (option, value, limit) in [
            ("--calls", self.calls, 1...10_000_000), ("--warm-up", self.warmUp, 1...10_000_000),
            ("--in-flight", self.inFlight, 1...100),
            ("--bytes", self.bytes, 0...(1 << 20)),
        ] where !limit.contains(value) {
            throw ValidationError("\(option) is \(value); set a value from \(limit.lowerBound) to \(limit.upperBound)")
        }
    }

    func run() async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let logger = Logger(label: "bench") { _ in SwiftLogNoOpLogHandler() }
        let server = RPCServer(
            configuration: RPCServerConfiguration(eventLoopGroup: group, limits: .dataPlane, drainGrace: .seconds(1)),
            methods: [EchoService.echo],
            logger: logger
        )
        let options = self
        try await withThrowingTaskGroup(of: Void.self) { tasks in
            tasks.addTask { try await server.run() }
            let port = try await server.boundAddress().port
            var configuration = RPCChannelConfiguration(limits: .dataPlane)
            configuration.eventLoopGroup = group
            let channel = RPCChannel(target: ("127.0.0.1", port), configuration: configuration, logger: logger)
            tasks.addTask { try await channel.run() }
            try await options.measure(channel)
            channel.shutdown()
            server.beginGracefulShutdown()
            try await tasks.waitForAll()
        }
        try await group.shutdownGracefully()
    }

    private func measure(_ channel: RPCChannel) async throws {
        let payload = Payload(ByteBuffer(repeating: 7, count: self.bytes))
        _ = try await channel.unary(EchoService.method, payload, options: CallOptions(waitForReady: true))
        try await Self.make(self.warmUp, inFlight: self.inFlight, channel, payload)
        let before = AllocationCounter.total
        try await Self.make(self.calls, inFlight: self.inFlight, channel, payload)
        guard let before, let after = AllocationCounter.total else {
            Terminal.print("\(self.calls) calls of \(self.bytes) B, \(self.inFlight) at a time")
            return
        }
        let each = Double(after - before) / Double(self.calls)
        Terminal.print(String(format: "%d in flight: %.1f allocations per call, both ends", self.inFlight, each))
    }

    /// Makes calls, a given number at a time, and waits for them all.
    private static func make(_ calls: Int, inFlight: Int, _ channel: RPCChannel, _ payload: Payload) async throws {
        let chains = min(inFlight, calls)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for chain in 0..<chains {
                let each = calls / chains + (chain < calls % chains ? 1 : 0)
                group.addTask { _ = try await CallChain(channel: channel, payload: payload, calls: each).run() }
            }
            try await group.waitForAll()
        }
    }
}
