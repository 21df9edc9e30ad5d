// SPDX-License-Identifier: Apache-2.0

import Foundation
import Logging
import NIOCore
import NIOPosix
import ServiceLifecycle
import Synchronization
import Testing

@testable import Telemetry

@Suite("The admin port")
struct AdminServerTests {
    private static let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

    private static let pages = AdminPages(
        metrics: { Array("metric 1\n".utf8) },
        readiness: { Readiness(isReady: false, notes: ["waiting for expert hosts"]) }
    )

    private static func with<Result: Sendable>(
        _ configuration: AdminServerConfiguration = AdminServerConfiguration(host: "127.0.0.1", port: 0),
        pages: AdminPages = AdminServerTests.pages,
        body: (Int) async throws -> Result
    ) async throws -> Result {
        let server = AdminServer(configuration: configuration, pages: pages, logger: Self.logger)
        let life = Task { try await server.run() }
        let address = try await server.boundAddress()
        let port = try #require(address).port
        let result: Swift.Result<Result, any Error>
        do { result = .success(try await body(port)) } catch { result = .failure(error) }
        life.cancel()
        try await life.value
        return try result.get()
    }

    @Test(
        "requests are answered, whatever they ask for",
        arguments: [
            ("GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "200", "metric 1\n"),
            ("GET /livez HTTP/1.0\r\n\r\n", "200", "ok\n"),
            (
                "GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "503",
                "not ready\nwaiting for expert hosts\n"
            ),
            ("HEAD /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "200", ""),
            ("GET /secret HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "404", nil),
            ("POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\nconnection: close\r\n\r\nbody", "405", nil),
            ("nonsense\r\n\r\n", "400", nil),
            ("GET /metrics HTTP/9.9\r\n\r\n", "400", nil),
            ("GET /metrics HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", "400", nil),
            ("GET /metrics HTTP/1.1\r\n" + String(repeating: "x: y\r\n", count: 3000), "431", nil),
            ("GET /" + String(repeating: "x", count: 20_000), "431", nil),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "400", nil),
        ]
    )
    func requests(request: String, status: String, body: String?) async throws {
        let answer = try await Self.with { port in
            try await RawClient.ask(port: port, [request])
        }
        #expect(answer.hasPrefix("HTTP/1.1 \(status) "), "\(answer)")
        if let body { #expect(answer.hasSuffix("\r\n\r\n" + body), "\(answer)") }
    }

    @Test("requests on one connection are answered in order, even if sent at once")
    func pipelined() async throws {
        let answer = try await Self.with { port in
            try await RawClient.ask(
                port: port,
                [
                    "GET /livez HTTP/1.1\r\nhost: x\r\n\r\nGET /metrics HTTP/1.1\r\nhost: x\r\n\r\n",
                    "GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
                ]
            )
        }
        let bodies = answer.components(separatedBy: "HTTP/1.1 200 OK").dropFirst()
            .map { $0.split(separator: "\r\n").last }
        #expect(bodies == ["ok\n", "metric 1\n", "ok\n"])
    }

    @Test("random bytes never end the server")
    func garbage() async throws {
        try await Self.with { port in
            var random = SystemRandomNumberGenerator()
            for size in [1, 10, 100, 1000, 30_000] {
                let bytes = (0..<size).map { _ in UInt8.random(in: 0...255, using: &random) }
                _ = try? await RawClient.ask(port: port, bytes: bytes, closesOutput: true)
            }
            let answer = try await RawClient.ask(port: port, ["GET /livez HTTP/1.0\r\n\r\n"])
            #expect(answer.hasPrefix("HTTP/1.1 200 "))
        }
    }

    @Test("a request that never ends is abandoned, and so is an idle connection")
    func timeouts() async throws {
        var configuration = AdminServerConfiguration(host: "127.0.0.1", port: 0)
        configuration.limits.idle = .milliseconds(100)
        try await Self.with(configuration) { port in
            let idle = try await RawClient.ask(port: port, ["GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"])
            #expect(idle.hasPrefix("HTTP/1.1 200 "))
        }
        configuration.limits.idle = .seconds(3600)
        configuration.limits.exchange = .milliseconds(100)
        try await Self.with(configuration) { port in
            let silent = try await RawClient.ask(port: port, [])
            #expect(silent == "")
            let unfinished = try await RawClient.ask(port: port, ["GET /livez HT"])
            #expect(unfinished == "")
        }
    }

    @Test(
        "sockets that say nothing, or half a request, keep no peer out: the idlest leaves for each newcomer",
        arguments: ["", "GET /livez HT"]
    )
    func silentSockets(half: String) async throws {
        var configuration = AdminServerConfiguration(host: "127.0.0.1", port: 0)
        configuration.maxConnections = 3
        configuration.maxConnectionsPerPeer = 2
        try await Self.with(configuration) { port in
            try await RawClient.holding(8, port: port, half) {
                for _ in 0..<5 {
                    let answer = try await RawClient.ask(port: port, ["GET /livez HTTP/1.0\r\n\r\n"])
                    #expect(answer.hasPrefix("HTTP/1.1 200 "))
                }
            }
        }
    }

    @Test("an address in use is an error if it was set, and a warning if not")
    func taken() async throws {
        try await Self.with { port in
            let required = AdminServer(
                configuration: AdminServerConfiguration(host: "127.0.0.1", port: port),
                pages: Self.pages,
                logger: Self.logger
            )
            let error = await #expect(throws: AdminServerError.self) { try await required.run() }
            #expect(
                error?.description
                    .hasPrefix(
                        "the admin port: cannot listen on 127.0.0.1:\(port): another process listens there"
                    ) == true
            )
            #expect(error?.description.contains("--admin-listen off") == true)
            await #expect(throws: AdminServerError.self) { _ = try await required.boundAddress() }
            let optional = AdminServer(
                configuration: AdminServerConfiguration(host: "127.0.0.1", port: port, isRequired: false),
                pages: Self.pages,
                logger: Self.logger
            )
            let life = Task { try await optional.run() }
            let address = try await optional.boundAddress()
            #expect(address == nil)
            life.cancel()
            try await life.value
        }
    }

    @Test("a graceful stop closes idle connections and lets an answer finish")
    func gracefulStop() async throws {
        let (asked, askedSource) = AsyncStream.makeStream(of: Void.self)
        let release = Mutex<Bool>(false)
        let pages = AdminPages(
            metrics: {
                askedSource.yield()
                while !release.withLock({ $0 }) {}
                return Array("late 1\n".utf8)
            },
            readiness: { Readiness(isReady: true) }
        )
        let server = AdminServer(
            configuration: AdminServerConfiguration(host: "127.0.0.1", port: 0),
            pages: pages,
            logger: Self.logger
        )
        let group = ServiceGroup(services: [server], logger: Self.logger)
        let life = Task { try await group.run() }
        let port = try #require(try await server.boundAddress()).port
        let idle = Task { try await RawClient.ask(port: port, []) }
        let busy = Task { try await RawClient.ask(port: port, ["GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n"]) }
        for await _ in asked { break }
        await group.triggerGracefulShutdown()
        let silence = try await idle.value
        #expect(silence == "")
        release.withLock { $0 = true }
        let answer = try await busy.value
        #expect(answer.hasSuffix("late 1\n"))
        #expect(answer.contains("connection: close"))
        try await life.value
    }
}

/// A client that knows nothing of HTTP.
enum RawClient {
    /// Sends texts one after another and reads until the server closes.
    static func ask(port: Int, _ texts: [String]) async throws -> String {
        let channel = try await Self.connect(port)
        return try await channel.executeThenClose { inbound, outbound in
            for text in texts { try? await outbound.write(ByteBuffer(string: text)) }
            return try await Self.read(inbound)
        }
    }

    /// Sends bytes, ends its side and reads until the server closes.
    static func ask(port: Int, bytes: [UInt8], closesOutput: Bool) async throws -> String {
        let channel = try await Self.connect(port)
        return try await channel.executeThenClose { inbound, outbound in
            try? await outbound.write(ByteBuffer(bytes: bytes))
            if closesOutput { outbound.finish() }
            return try await Self.read(inbound)
        }
    }

    /// Keeps a connection open, on which one request was answered, while a body runs.
    static func holding(port: Int, body: () async throws -> Void) async throws {
        let channel = try await Self.connect(port)
        try await channel.executeThenClose { inbound, outbound in
            try await outbound.write(ByteBuffer(string: "GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"))
            var iterator = inbound.makeAsyncIterator()
            _ = try await iterator.next()
            try await body()
        }
    }

    /// Keeps connections open that have sent no whole request, while a body runs.
    static func holding(_ count: Int, port: Int, _ text: String, body: () async throws -> Void) async throws {
        var channels: [any Channel] = []
        for _ in 0..<count {
            let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                .connect(host: "127.0.0.1", port: port).get()
            // The server may have closed it already, for the next one.
            if !text.isEmpty { try? await channel.writeAndFlush(ByteBuffer(string: text)) }
            channels.append(channel)
        }
        try await body()
        for channel in channels { channel.close(promise: nil) }
    }

    private static func read(_ inbound: NIOAsyncChannelInboundStream<ByteBuffer>) async throws -> String {
        var text = ByteBuffer()
        do {
            for try await part in inbound { text.writeImmutableBuffer(part) }
        } catch is IOError {
            // A server that closes with bytes of ours unread resets the connection.
        }
        return String(buffer: text)
    }

    private static func connect(_ port: Int) async throws -> NIOAsyncChannel<ByteBuffer, ByteBuffer> {
        try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .channelOption(.allowRemoteHalfClosure, value: true)
            .connect(host: "127.0.0.1", port: port) { channel in
                channel.eventLoop.makeCompletedFuture { try NIOAsyncChannel(wrappingChannelSynchronously: channel) }
            }
    }
}
