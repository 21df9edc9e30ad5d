// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import ExpertPooling
import ExpertServing
import NIOCore
import NIOPosix
import RPCCore
import RPCTransport
import SwitchModel
import SwitchyardProtos
import SwitchyardTypes
import Testing

@testable import GatewayServing

/// Hosts that are hostile at the level of connections, and hosts with several addresses, over sockets.
@Suite(.serialized)
struct HostileReplicaTests {
    private let model = TestModel.miniature

    private func description(port: Int) async throws -> HostDescription {
        try await withChannel(port: port) { channel in
            try await channel.call(ExpertHostMethods.describe, DescribeHostRequest(), as: HostDescription.self)
        }
    }

    @Test("GOAWAY on every connection, then silence: ejected after three missed deadlines, not later")
    func goAwayThenSilence() async throws {
        let loaded = try self.model.load()
        let request = ExpertExecutorContractTests.layerRequest(loaded, tokens: 40)
        var timing = ConnectionTiming.dataPlane
        timing.maxAge = .milliseconds(100)
        timing.maxAgeGrace = .seconds(3600)
        try await withHosts(self.model, pools: 1) { hosts, _ in
            let description = try await self.description(port: hosts[0].port)
            try await withIllHost(describing: description, .stalls, timing: timing) { port in
                let pool = PoolSpecification(name: "pool-0", targets: [.address(host: "127.0.0.1", port: port)])
                try await withRemoteExperts([pool], of: loaded, deadline: .milliseconds(400)) { experts, cluster in
                    func report() -> ReplicaReport? { cluster.view.reports.first }
                    // A layer without a host to ask ends at once; what counts is what waits.
                    while report()?.ejections == 0 {
                        let outputs = try await onThread { try experts.execute(request) }
                        #expect(outputs.chunks.isEmpty)
                        await Task.yield()
                    }
                    let misses = report()?.attempts[.failed(.deadline)] ?? 0
                    #expect(misses == 3)
                    // The connections that follow end no ejection: the next call is its trial.
                    while report()?.ejections == 1 {
                        _ = try await onThread { try experts.execute(request) }
                        await Task.yield()
                    }
                    #expect(report()?.attempts[.failed(.deadline)] == 4)
                }
            }
        }
    }

    /// Sends bytes when a connection begins, and reads whatever comes.
    private final class Greeter: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        typealias OutboundOut = ByteBuffer

        private let greeting: [UInt8]?

        init(_ greeting: [UInt8]?) {
            self.greeting = greeting
        }

        func channelActive(context: ChannelHandlerContext) {
            guard let greeting = self.greeting else { return context.close(promise: nil) }
            context.writeAndFlush(self.wrapOutboundOut(ByteBuffer(bytes: greeting)), promise: nil)
        }

        func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
    }

    /// What a host says that is never ready, and the reason that status gives.
    static let mute: [(name: String, greeting: [UInt8]?, detail: String)] = [
        ("allows no stream", [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0], "SETTINGS_MAX_CONCURRENT_STREAMS is 0"),
        ("closes at once", nil, "no connection: "),
        ("says nothing", [], "no HTTP/2 handshake within"),
    ]

    @Test("A host that is never ready gets no call and costs no row beside another; status says why", arguments: 0..<3)
    func neverReady(index: Int) async throws {
        let kind = Self.mute[index]
        let loaded = try self.model.load()
        let request = ExpertExecutorContractTests.layerRequest(loaded, tokens: 40)
        let listener = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(Greeter(kind.greeting))
                }
            }
            .bind(host: "127.0.0.1", port: 0)
            .get()
        let port = try #require(listener.localAddress?.port)
        try await withHosts(self.model, pools: 1) { _, pools in
            let targets = [.address(host: "127.0.0.1", port: port)] + pools[0].targets
            let both = PoolSpecification(name: "pool-0", targets: targets)
            try await withRemoteExperts([both], of: loaded) { experts, cluster in
                func detail() -> String? {
                    let view = cluster.view
                    guard let report = view.reports.first(where: { $0.id.port == port }) else { return nil }
                    return report.message(trouble: view.troubles[report.id]).detail
                }
                #expect(await eventually { detail()?.contains(kind.detail) == true }, "\(detail() ?? "")")
                for _ in 0..<8 {
                    let outputs = try await onThread { try experts.execute(request) }
                    #expect(outputs.dropped.isEmpty)
                }
                #expect(cluster.view.reports.first { $0.id.port == port }?.attempts.total { _ in true } == 0)
            }
        }
        try await listener.close()
    }

    @Test("A host that never describes itself is unverified, with the reason")
    func neverDescribed() async throws {
        let loaded = try self.model.load()
        let server = RPCServer(
            configuration: RPCServerConfiguration(limits: .dataPlane, drainGrace: .zero),
            methods: [
                .unaryOnEventLoop(.init(service: ExpertHostMethods.service, name: "Describe")) { _, _, _ in }
            ],
            logger: quietLogger
        )
        let task = Task { try await server.run() }
        let port = try await server.boundAddress().port
        try await withHosts(self.model, pools: 1) { _, pools in
            let targets = pools[0].targets + [.address(host: "127.0.0.1", port: port)]
            let both = PoolSpecification(name: "pool-0", targets: targets)
            try await withRemoteExperts([both], of: loaded) { _, cluster in
                let isTold = await eventually {
                    cluster.view.reports.contains { report in
                        report.id.port == port && report.state == .unverified
                            && report.message(trouble: nil).detail.contains("deadline")
                    }
                }
                #expect(isTold, "\(cluster.view.reports.map { $0.message(trouble: nil).detail })")
            }
        }
        task.cancel()
        _ = await task.result
    }

    @Test(
        "One host under two addresses is one replica with a spare one, which takes over when the first connection is lost"
    )
    func twoAddresses() async throws {
        let loaded = try self.model.load()
        let request = ExpertExecutorContractTests.layerRequest(loaded, tokens: 40)
        try await withHosts(self.model, pools: 1) { hosts, _ in
            let names = ["127.0.0.1", "localhost"]
            let targets = names.map { PoolTarget.address(host: $0, port: hosts[0].port) }
            let pool = PoolSpecification(name: "pool-0", targets: targets)
            try await withRemoteExperts([pool], of: loaded) { experts, cluster in
                func states() -> [String] { cluster.view.reports.map(\.state.name).sorted() }
                #expect(await eventually { states() == ["ready", "spare"] })
                let reports = cluster.view.reports
                let instances = Set(reports.compactMap(\.description?.instance))
                #expect(instances.count == 1)
                #expect(instances.first?.count == 32)
                let spare = try #require(reports.first { $0.state != .ready })
                #expect(spare.message(trouble: nil).detail.contains("another address of"))
                for _ in 0..<20 { _ = try await onThread { try experts.execute(request) } }
                #expect(cluster.view.reports.first { $0.id == spare.id }?.succeeded == 0)
                // The first address leaves its pool.
                for report in reports where report.id != spare.id { cluster.lost(report.id) }
                #expect(await eventually { states() == ["ready"] })
                let outputs = try await onThread { try experts.execute(request) }
                #expect(outputs.dropped.isEmpty)
                #expect(cluster.view.reports.map(\.id) == [spare.id])
            }
        }
    }

    @Test("Each start of a host has an id of its own")
    func otherStart() async throws {
        try await withHosts(self.model, pools: 1, replicas: 2) { hosts, _ in
            var ids: [String] = []
            for host in hosts { ids.append(try await self.description(port: host.port).instanceID) }
            #expect(Set(ids).count == 2)
            #expect(try await self.description(port: hosts[0].port).instanceID == ids[0])
        }
    }
}
