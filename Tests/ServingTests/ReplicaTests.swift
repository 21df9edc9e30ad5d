// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import ExpertPooling
import ExpertServing
import Foundation
import RPCCore
import RPCTransport
import SwitchModel
import SwitchyardProtos
import SwitchyardTypes
import Synchronization
import Testing

@testable import GatewayServing

/// The purpose of replicas: layers that continue while one of them does not, and pools that grow and shrink.
@Suite(.serialized)
struct ReplicaTests {
    private let model = TestModel.miniature

    private func description(port: Int) async throws -> HostDescription {
        try await withChannel(port: port) { channel in
            try await channel.call(ExpertHostMethods.describe, DescribeHostRequest(), as: HostDescription.self)
        }
    }

    @Test("A replica that never answers is hedged, overtaken and ejected; no row is lost at a deadline")
    func stalledReplica() async throws {
        let loaded = try self.model.load()
        let request = ExpertExecutorContractTests.layerRequest(loaded, tokens: 40)
        try await withHosts(self.model, pools: 1) { hosts, pools in
            let description = try await self.description(port: hosts[0].port)
            try await withIllHost(describing: description, .stalls) { port in
                let targets = pools[0].targets + [.address(host: "127.0.0.1", port: port)]
                let both = PoolSpecification(name: "pool-0", targets: targets)
                try await withRemoteExperts([both], of: loaded) { experts, cluster in
                    let joined = await eventually { cluster.view.reports.count { $0.state == .ready } == 2 }
                    #expect(joined)
                    var calls = 0
                    while cluster.view.reports.allSatisfy({ $0.ejections == 0 }), calls < 200 {
                        let outputs = try await onThread { try experts.execute(request) }
                        #expect(outputs.dropped.isEmpty)
                        calls += 1
                    }
                    let stalled = cluster.view.reports.first { $0.id.port == port }
                    #expect(stalled?.ejections == 1)
                    #expect(stalled?.outstanding == 0)
                    let counts = try #require(cluster.view.counts["pool-0"])
                    #expect(counts.hedgesWon == 5)
                    #expect(counts.retries == 0)
                }
            }
        }
    }

    @Test("A host that pushes back gets no calls for the time it asks for")
    func pushback() async throws {
        let loaded = try self.model.load()
        let request = ExpertExecutorContractTests.layerRequest(loaded, tokens: 40)
        try await withHosts(self.model, pools: 1) { hosts, _ in
            let described = try await self.description(port: hosts[0].port).serialized()
            let times = TimeList()
            let server = RPCServer(
                configuration: RPCServerConfiguration(limits: .dataPlane, drainGrace: .zero),
                methods: [
                    .unaryOnEventLoop(.init(service: ExpertHostMethods.service, name: "Describe")) { _, _, responder in
                        responder.finish(.success(Payload(bytes: described)))
                    },
                    .unaryOnEventLoop(.init(service: ExpertHostMethods.service, name: "Forward")) { _, _, responder in
                        times.add(.now)
                        var error = RPCError(.resourceExhausted, "too many rows wait")
                        try? error.metadata.add("120", forKey: "grpc-retry-pushback-ms")
                        responder.finish(.failure(error))
                    },
                ],
                logger: quietLogger
            )
            let task = Task { try await server.run() }
            let port = try await server.boundAddress().port
            let pool = PoolSpecification(name: "pool-0", targets: [.address(host: "127.0.0.1", port: port)])
            try await withRemoteExperts([pool], of: loaded) { experts, _ in
                let outputs = try await onThread { try experts.execute(request) }
                #expect(Set(outputs.dropped.map(\.reason)) == [.overloaded])
            }
            task.cancel()
            _ = await task.result
            let seen = times.all
            let attempts = ExpertPoolsConfiguration.defaults.policy(of: request.layer).attempts
            #expect(seen.count == attempts)
            for (earlier, later) in zip(seen, seen.dropFirst()) {
                let pause = earlier.duration(to: later)
                #expect(pause >= .milliseconds(115))
            }
        }
    }

    @Test("A watched file grows and shrinks a pool while it is used")
    func watchedFile() async throws {
        let loaded = try self.model.load()
        let request = ExpertExecutorContractTests.layerRequest(loaded, tokens: 40)
        let file = FileManager.default.temporaryDirectory.appendingPathComponent("targets-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: file) }
        func write(_ ports: [Int]) throws {
            let lines = ports.map { "127.0.0.1:\($0)" }
            try Data(("# pool-0\n" + lines.joined(separator: "\n")).utf8).write(to: file, options: .atomic)
        }
        try await withHosts(self.model, pools: 1, replicas: 3) { hosts, _ in
            try write([hosts[0].port])
            let pool = PoolSpecification(name: "pool-0", targets: [.file(path: file.path)])
            try await withRemoteExperts(
                [pool],
                of: loaded,
                configure: { $0.fileInterval = .milliseconds(20) }
            ) { experts, cluster in
                func readyCount() -> Int { cluster.view.reports.count { $0.state == .ready } }
                func execute() async throws {
                    let outputs = try await onThread { try experts.execute(request) }
                    #expect(outputs.dropped.isEmpty)
                }
                try await execute()
                try write(hosts.map(\.port))
                while readyCount() < 3 { try await execute() }
                while cluster.view.reports.contains(where: { $0.succeeded == 0 }) { try await execute() }
                // A list that cannot be read changes nothing, and a wrong line makes it unreadable.
                try Data("127.0.0.1".utf8).write(to: file, options: .atomic)
                for _ in 0..<10 { try await execute() }
                #expect(readyCount() == 3)
                try write([hosts[2].port])
                while cluster.view.reports.count > 1 { try await execute() }
                #expect(cluster.view.reports.map(\.id.port) == [hosts[2].port])
                try await execute()
            }
        }
    }

    @Test("A list never sends plaintext off this machine unless a setting allows it")
    func plaintextList() async throws {
        let file = FileManager.default.temporaryDirectory.appendingPathComponent("targets-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: file) }
        try Data("127.0.0.1:1\n192.0.2.1:7401\n".utf8).write(to: file)
        let error = await #expect(throws: TargetsUnknown.self) {
            _ = try await FileFinder(path: file.path, mayLeaveThisMachine: false).find()
        }
        #expect(error?.description.contains("192.0.2.1:7401 would be reached in plaintext") == true)
        let found = try await FileFinder(path: file.path, mayLeaveThisMachine: true).find()
        #expect(found.map(\.port) == [1, 7401])
        try Data(repeating: 10, count: FileFinder.sizeLimit + 1).write(to: file)
        await #expect(throws: TargetsUnknown.self) {
            _ = try await FileFinder(path: file.path, mayLeaveThisMachine: true).find()
        }
    }
}

/// When something happened.
private final class TimeList: Sendable {
    private let times = Mutex<[ContinuousClock.Instant]>([])

    var all: [ContinuousClock.Instant] { self.times.withLock { $0 } }

    func add(_ time: ContinuousClock.Instant) { self.times.withLock { $0.append(time) } }
}
