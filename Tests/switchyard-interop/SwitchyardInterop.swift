// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Foundation
import InteropCases
import Logging
import NIOCore
import RPCCore
import RPCTransport

/// gRPC's interop suite over this project's transport, to be run by hand against other clients or servers.
@main
struct SwitchyardInterop: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "switchyard-interop",
        abstract: "gRPC's interop cases over this project's transport.",
        subcommands: [ServerCommand.self, ClientCommand.self, ConformanceCommand.self]
    )
}

struct ServerCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "server",
        abstract: "Serve grpc.testing.TestService; prints its port once it listens."
    )

    @Option(help: "The port to listen on; 0 takes a free one.")
    var port = 0

    @Option(help: "How many calls a client may reset in one burst.")
    var resetBurst = TransportLimits.defaults.resetBurst

    @Option(help: "How many milliseconds a client has for its preface and settings.")
    var handshakeTimeout = 10_000

    @Option(help: "How many reset calls per second a client earns back.")
    var resetsPerSecond = TransportLimits.defaults.resetsPerSecond

    @Option(help: "How many bytes of requests all clients may leave unfinished.")
    var receiveBudgetBytes = TransportLimits.defaults.receiveBudgetBytes

    @Flag(help: "Print the process identifier after the port.")
    var announceProcess = false

    @Flag(help: "Log how many frames and bytes a client had sent when its connection ends.")
    var logConnections = false

    func run() async throws {
        var logger = Logger(label: "interop")
        if self.logConnections { logger.logLevel = .debug }
        let server = InteropService.server(
            port: self.port,
            limits: TransportLimits(
                receiveBudgetBytes: self.receiveBudgetBytes,
                resetBurst: self.resetBurst,
                resetsPerSecond: self.resetsPerSecond
            ),
            timing: ConnectionTiming(handshakeTimeout: .milliseconds(self.handshakeTimeout)),
            logger: logger
        )
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await server.run() }
            // Not by print(), which buffers the line when the output is a pipe.
            let identifier = self.announceProcess ? " \(ProcessInfo.processInfo.processIdentifier)" : ""
            let line = "listening on \(try await server.boundAddress().port)\(identifier)\n"
            try FileHandle.standardOutput.write(contentsOf: Data(line.utf8))
            try await group.waitForAll()
        }
    }
}

struct ConformanceCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "conformance",
        abstract: "Answer every plain HTTP/2 request with 200 and a body, for suites that test HTTP/2 and know no gRPC."
    )

    @Option(help: "The port to listen on; 0 takes a free one.")
    var port = 0

    func run() async throws {
        // The suites assume the protocol's own frame limit.
        var configuration = RPCServerConfiguration(port: self.port, limits: TransportLimits(maxFrameBytes: 16_384))
        configuration.conformanceBody = ByteBuffer(repeating: UInt8(ascii: "x"), count: 256)
        let server = RPCServer(
            configuration: configuration,
            methods: InteropService().methods,
            logger: Logger(label: "conformance")
        )
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await server.run() }
            let line = "listening on \(try await server.boundAddress().port)\n"
            try FileHandle.standardOutput.write(contentsOf: Data(line.utf8))
            try await group.waitForAll()
        }
    }
}

struct ClientCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "client",
        abstract: "Run cases against a server; prints one line per case and fails if one fails."
    )

    @Option(help: "The server's host.")
    var host = "127.0.0.1"

    @Option(help: "The server's port.")
    var port: Int

    @Argument(help: "The cases; all of them if none is named.")
    var cases: [String] = []

    func run() async throws {
        let wanted = try self.cases.map { name in
            guard let wanted = InteropCase(rawValue: name) else {
                let known = InteropCase.allCases.map(\.rawValue).joined(separator: ", ")
                throw ValidationError("there is no case \(name); the cases are \(known)")
            }
            return wanted
        }
        let (channel, log) = InteropCase.channel(host: self.host, port: self.port, logger: Logger(label: "interop"))
        let failures = try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await channel.run() }
            var failures = 0
            for one in wanted.isEmpty ? InteropCase.allCases : wanted {
                do {
                    try await one.run(on: channel, log: log)
                    print("pass \(one.rawValue)")
                } catch {
                    failures += 1
                    print("FAIL \(one.rawValue): \(error)")
                }
            }
            channel.shutdown()
            try await group.waitForAll()
            return failures
        }
        if failures > 0 { throw ExitCode.failure }
    }
}
