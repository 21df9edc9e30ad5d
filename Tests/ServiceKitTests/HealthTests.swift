// SPDX-License-Identifier: Apache-2.0

import Logging
import NIOCore
import RPCCore
import RPCTransport
import SwitchyardProtos
import Testing

@testable import ServiceKit

private let gateway = "switchyard.v1.Gateway"
private let quiet = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

@Suite("Health table")
struct HealthTableTests {
    @Test("a service takes no calls until set to, and watchers get only changes")
    func changes() {
        var table = HealthTable(services: [gateway])
        #expect(table.statuses == ["": .notServing, gateway: .notServing])
        let first = table.watch(gateway)
        #expect(first.status == .notServing)
        let other = table.watch("")
        #expect(other.watcher != first.watcher)
        #expect(table.set(.serving, for: gateway) == [HealthTable.News(watcher: first.watcher, status: .serving)])
        #expect(table.set(.serving, for: gateway).isEmpty)
        #expect(table.statuses == ["": .notServing, gateway: .serving])
        table.unwatched(first.watcher)
        #expect(table.set(.notServing, for: gateway).isEmpty)
    }

    @Test("an unknown service may be watched, and may appear later")
    func unknownService() {
        var table = HealthTable(services: [])
        let news = table.watch("later")
        #expect(news.status == .serviceUnknown)
        #expect(table.set(.serving, for: "later") == [HealthTable.News(watcher: news.watcher, status: .serving)])
    }

    @Test("draining is final")
    func draining() {
        var table = HealthTable(services: [gateway])
        _ = table.set(.serving, for: gateway)
        let known = table.watch(gateway)
        let unknown = table.watch("other")
        #expect(
            table.beginDraining() == [
                HealthTable.News(watcher: known.watcher, status: .notServing),
                HealthTable.News(watcher: unknown.watcher, status: .serviceUnknown),
            ]
        )
        #expect(table.beginDraining().isEmpty)
        #expect(table.set(.serving, for: gateway).isEmpty)
        #expect(table.statuses[gateway] == .notServing)
        #expect(table.watch(gateway).status == .notServing)
    }
}

@Suite("Health service", .timeLimit(.minutes(10)))
struct HealthServiceTests {
    private static func method(_ name: String) -> Method {
        Method(service: "grpc.health.v1.Health", name: name)
    }

    /// A server with the health service and a channel to it.
    private func withHealth(
        _ registry: HealthRegistry,
        _ body: (RPCChannel) async throws -> Void
    ) async throws {
        let server = RPCServer(
            configuration: RPCServerConfiguration(drainGrace: .seconds(30)),
            methods: HealthService(registry: registry).methods,
            logger: quiet
        )
        try await withThrowingTaskGroup(of: Void.self) { tasks in
            tasks.addTask { try await server.run() }
            let port = try await server.boundAddress().port
            let channel = RPCChannel(target: ("127.0.0.1", port), logger: quiet)
            tasks.addTask { try await channel.run() }
            let outcome: Result<Void, any Error>
            do { outcome = .success(try await body(channel)) } catch { outcome = .failure(error) }
            registry.beginDraining()
            channel.shutdown()
            server.beginGracefulShutdown()
            try await tasks.waitForAll()
            try outcome.get()
        }
    }

    private func check(_ service: String, _ channel: RPCChannel) async throws -> HealthRegistry.Status {
        let request = Payload(bytes: HealthCheckRequest(service: service).serialized())
        let reply = try await channel.unary(Self.method("Check"), request, options: CallOptions(waitForReady: true))
        return try HealthCheckResponse(serialized: Array(reply.message.readableBytesView)).status
    }

    @Test("Check returns the status of known services, and NOT_FOUND for others")
    func checking() async throws {
        let registry = HealthRegistry(services: [gateway])
        try await self.withHealth(registry) { channel async throws in
            #expect(try await self.check(gateway, channel) == .notServing)
            registry.setAll(.serving)
            #expect(try await self.check(gateway, channel) == .serving)
            #expect(try await self.check("", channel) == .serving)
            let error = await #expect(throws: RPCError.self) { try await self.check("other", channel) }
            #expect(error?.code == .notFound)
            #expect(error?.message.contains("\"other\"") == true)
        }
    }

    @Test("a malformed request is INVALID_ARGUMENT", arguments: ["Check", "Watch"])
    func malformedRequest(method: String) async throws {
        try await self.withHealth(HealthRegistry(services: [])) { channel async throws in
            // A field of ten bytes that has one.
            let request = Payload(bytes: [0x0A, 0x0A, 0x61])
            let options = CallOptions(waitForReady: true)
            let error = await #expect(throws: RPCError.self) {
                if method == "Check" {
                    _ = try await channel.unary(Self.method(method), request, options: options)
                } else {
                    for try await _ in channel.serverStreaming(Self.method(method), request, options: options) {}
                }
            }
            #expect(error?.code == .invalidArgument)
        }
    }

    @Test("List returns the status of every service")
    func listing() async throws {
        let registry = HealthRegistry(services: ["a"])
        registry.set(.serving, for: "a")
        try await self.withHealth(registry) { channel async throws in
            let options = CallOptions(waitForReady: true)
            let reply = try await channel.unary(Self.method("List"), Payload(bytes: []), options: options)
            let response = try HealthListResponse(serialized: Array(reply.message.readableBytesView))
            #expect(response.statuses.mapValues(\.status) == ["": .notServing, "a": .serving])
        }
    }

    @Test("Watch sends the status at once and after every change, and ends when the server drains")
    func watching() async throws {
        let registry = HealthRegistry(services: [gateway])
        try await self.withHealth(registry) { channel async throws in
            let request = Payload(bytes: HealthCheckRequest(service: gateway).serialized())
            let options = CallOptions(waitForReady: true)
            var stream = channel.serverStreaming(Self.method("Watch"), request, options: options).makeAsyncIterator()
            func next() async throws -> HealthRegistry.Status? {
                try await stream.next().map { try HealthCheckResponse(serialized: Array($0.readableBytesView)).status }
            }
            #expect(try await next() == .notServing)
            registry.set(.serving, for: gateway)
            #expect(try await next() == .serving)
            registry.beginDraining()
            #expect(try await next() == .notServing)
            let error = await #expect(throws: RPCError.self) { try await next() }
            #expect(error?.code == .unavailable)
        }
    }

    @Test("a watcher that leaves is forgotten")
    func leaving() async throws {
        let registry = HealthRegistry(services: [gateway])
        var stream: AsyncStream<HealthRegistry.Status>? = registry.watch(gateway)
        #expect(registry.watcherCount == 1)
        var iterator = stream?.makeAsyncIterator()
        #expect(await iterator?.next() == .notServing)
        iterator = nil
        stream = nil
        #expect(registry.watcherCount == 0)
        registry.beginDraining()
        var late: [HealthRegistry.Status] = []
        for await status in registry.watch(gateway) { late.append(status) }
        #expect(late == [.notServing])
        #expect(registry.watcherCount == 0)
    }
}
