// SPDX-License-Identifier: Apache-2.0

import InteropCases
import Logging
import NIOCore
import NIOPosix
import PeerTools
import RPCCore
import RPCTransport
import Testing

let quietLogger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

/// Runs this project's interop server on a free port and gives the port to the body.
func withInteropServer<Result: Sendable>(
    limits: TransportLimits = .defaults,
    _ body: @Sendable (Int) async throws -> Result
) async throws -> Result {
    let server = InteropService.server(limits: limits, logger: quietLogger)
    return try await withThrowingTaskGroup(of: Void.self) { tasks in
        tasks.addTask { try await server.run() }
        let port = try await server.boundAddress().port
        let outcome: Swift.Result<Result, any Error>
        do { outcome = .success(try await body(port)) } catch { outcome = .failure(error) }
        server.beginGracefulShutdown()
        try await tasks.waitForAll()
        return try outcome.get()
    }
}

/// Runs all cases of this project's client against a server.
///
/// A case that needs a server which sees compression is left out where the server does not.
func runEveryCase(port: Int, seesCompression: Bool = true) async throws {
    let (channel, log) = InteropCase.channel(port: port, logger: quietLogger)
    try await withThrowingTaskGroup(of: Void.self) { tasks in
        tasks.addTask { try await channel.run() }
        for one in InteropCase.allCases where seesCompression || !one.needsServerThatSeesCompression {
            await #expect(throws: Never.self, "\(one.rawValue)") { try await one.run(on: channel, log: log) }
        }
        channel.shutdown()
        try await tasks.waitForAll()
    }
}

/// Runs nghttpx as a proxy to a port and gives its own port to the body.
func withProxy<Result: Sendable>(
    to port: Int,
    _ body: @escaping @Sendable (Int) async throws -> Result
) async throws -> Result {
    let front = try await unusedPort()
    let arguments = [
        "--conf=/dev/null", "--frontend=127.0.0.1,\(front);no-tls", "--backend=127.0.0.1,\(port);;proto=h2",
        "--workers=1", "--errorlog-file=/dev/stderr", "--accesslog-file=/dev/null",
    ]
    return try await PeerProcess.serve(try Peers.path("nghttpx"), arguments, readyPrefix: nil) { _ in
        try await body(front)
    }
}

/// A port that was free a moment ago, for a program that cannot choose one itself.
func unusedPort() async throws -> Int {
    let channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
        .bind(host: "127.0.0.1", port: 0).get()
    let port = channel.localAddress?.port ?? 0
    try await channel.close()
    return port
}

/// Fails for each case of a peer's report that did not pass.
func expectPasses(_ report: [String: Any], atLeast count: Int) {
    #expect(report.count >= count)
    for (name, outcome) in report.sorted(by: { $0.key < $1.key }) {
        #expect(outcome as? String == "pass", "\(name)")
    }
}
