// SPDX-License-Identifier: Apache-2.0

import BatchScheduling
import ExpertPooling
import RPCCore
import RPCTransport
import SwitchModel
import SwitchyardProtos
import SwitchyardTypes
import Testing

@testable import GatewayServing

/// The fate of requests when hosts are lost, clients cancel and queues are full.
@Suite(.serialized)
struct GatewayFaultTests {
    private let model = TestModel.miniature
    private let request = GenerateRequest(input: .text("Now is the winter of our <extra_id_0> Made glorious summer"))

    private func request(_ policy: SwitchyardProtos.DropPolicy) -> GenerateRequest {
        var request = self.request
        request.dropPolicy = policy
        return request
    }

    @Test("A lost host's tokens are dropped, and the request's policy decides what follows")
    func policies() async throws {
        try await withHosts(self.model, pools: 2) { hosts, pools in
            try await withGateway(pools) { _, channel in
                let whole = try await channel.generate(self.request(.init(strict: true, maxDroppedFraction: 0.01)))
                #expect(whole.usage?.dropped == [])
                await hosts[1].kill()

                let degraded = try await channel.generate(self.request)
                let dropped = degraded.usage?.dropped ?? []
                #expect(!dropped.isEmpty)
                #expect(dropped.allSatisfy { $0.reason == .unavailable })
                #expect(degraded.generations.first?.tokenIDs.isEmpty == false)

                let strict = await rpcError { _ = try await channel.generate(self.request(.init(strict: true))) }
                #expect(strict?.code == .unavailable)
                #expect(strict?.message.contains("strict") == true)

                let little = self.request(.init(maxDroppedFraction: 0.001))
                let limited = await rpcError { _ = try await channel.generate(little) }
                #expect(limited?.code == .unavailable)
                #expect(limited?.message.contains("max_dropped_fraction") == true)

                let generous = try await channel.generate(self.request(.init(maxDroppedFraction: 1)))
                #expect(generous.usage?.dropped.isEmpty == false)
            }
        }
    }

    @Test("Strict and lenient requests in one batch do not disturb each other")
    func mixedBatch() async throws {
        try await withHosts(self.model, pools: 2) { hosts, pools in
            try await withGateway(pools) { gateway, channel in
                await hosts[1].kill()
                await withTaskGroup(of: (Bool, RPCError?).self) { group in
                    for index in 0..<8 {
                        let strict = index.isMultiple(of: 2)
                        let request = self.request(.init(strict: strict))
                        group.addTask { (strict, await rpcError { _ = try await channel.generate(request) }) }
                    }
                    for await (strict, error) in group {
                        #expect(error?.code == (strict ? .unavailable : nil))
                    }
                }
                let freed = await eventually { gateway.engine.load.usedSlots == 0 }
                #expect(freed)
            }
        }
    }

    /// Runs a gateway whose only host never answers.
    private func withStalledGateway(
        deadline: Duration = .seconds(120),
        slots: Int = 8,
        queue: Int = 8,
        _ body: (Gateway, RPCChannel) async throws -> Void
    ) async throws {
        try await withHosts(self.model, pools: 1) { hosts, pools in
            let description = try await withChannel(port: hosts[0].port) { channel in
                try await channel.call(ExpertHostMethods.describe, DescribeHostRequest(), as: HostDescription.self)
            }
            try await withIllHost(describing: description, .stalls) { port in
                let stalled = PoolSpecification(name: "pool-0", targets: [.address(host: "127.0.0.1", port: port)])
                try await withGateway(
                    [stalled],
                    configure: { configuration in
                        configuration.cluster.choice.encoder.deadline = deadline
                        configuration.cluster.choice.decoder.deadline = deadline
                        configuration.engine.scheduler.batchSlots = slots
                        configuration.engine.scheduler.queueLimit = queue
                    },
                    body
                )
            }
        }
    }

    @Test("A host that never answers costs a strict request one layer's deadline")
    func strictTimeout() async throws {
        try await self.withStalledGateway(deadline: .milliseconds(200)) { _, channel in
            let error = await rpcError { _ = try await channel.generate(self.request(.init(strict: true))) }
            #expect(error?.code == .deadlineExceeded)
            #expect(error?.message.contains("encoder layer 1") == true)
            let degraded = try await channel.generate(self.request)
            let reasons = Set(degraded.usage?.dropped.map(\.reason) ?? [])
            // The first layers wait in vain; then the host is ejected.
            #expect(reasons.contains(.unavailable) || reasons.contains(.timeout))
            #expect(degraded.generations.first?.tokenIDs.isEmpty == false)
        }
    }

    @Test("A client that cancels frees its batch slots and ends the calls to the hosts")
    func cancellation() async throws {
        try await self.withStalledGateway { gateway, channel in
            let call = Task { try await channel.generate(self.request) }
            let running = await eventually { gateway.cluster.view.reports.contains { $0.outstanding > 0 } }
            #expect(running)
            #expect(gateway.engine.load.usedSlots == 1)
            call.cancel()
            let error = await rpcError { _ = try await call.value }
            #expect(error?.code == .cancelled)
            let freed = await eventually {
                gateway.engine.load.usedSlots == 0 && gateway.cluster.view.reports.allSatisfy { $0.outstanding == 0 }
            }
            #expect(freed)
        }
    }

    @Test("A client's deadline ends its request")
    func deadline() async throws {
        try await self.withStalledGateway { gateway, channel in
            let error = await rpcError {
                _ = try await channel.generate(self.request, timeout: .milliseconds(300))
            }
            #expect(error?.code == .deadlineExceeded)
            let freed = await eventually { gateway.engine.load.usedSlots == 0 }
            #expect(freed)
        }
    }

    @Test("A full queue refuses requests at once, with a retry hint")
    func queueFull() async throws {
        try await self.withStalledGateway(slots: 1, queue: 1) { gateway, channel in
            let running = Task { try await channel.generate(self.request) }
            let runs = await eventually { gateway.engine.load.running == 1 }
            #expect(runs)
            let waiting = Task { try await channel.generate(self.request) }
            let waits = await eventually { gateway.engine.load.queued == 1 }
            #expect(waits)
            let error = await rpcError { _ = try await channel.generate(self.request) }
            #expect(error?.code == .resourceExhausted)
            let pushback = error?.metadata.first("grpc-retry-pushback-ms").flatMap { Int($0) }
            #expect((pushback ?? 0) > 0)
            // The waiting one leaves the queue without having run.
            waiting.cancel()
            let left = await eventually { gateway.engine.load.queued == 0 }
            #expect(left)
            running.cancel()
            _ = await running.result
            _ = await waiting.result
        }
    }

    @Test("A gateway without hosts answers with an error by default, unless the request accepts any loss")
    func nonsense() async throws {
        let nowhere = PoolSpecification(name: "pool-0", targets: [.address(host: "127.0.0.1", port: 1)])
        func usual(_ configuration: inout GatewayConfiguration) {
            configuration.readyTimeout = .milliseconds(50)
            configuration.limits.maxDroppedFraction = RequestLimits().maxDroppedFraction
        }
        try await withGateway([nowhere], configure: usual) { _, channel in
            for request in [self.request, self.request(.init())] {
                let error = await rpcError { _ = try await channel.generate(request) }
                #expect(error?.code == .unavailable)
                #expect(
                    error?.message.contains(" exceeds the gateway's max-dropped-fraction 0.5; ") == true,
                    "\(error?.message ?? "no error")"
                )
            }
            let encoding = EncodeRequest(input: .text("Now is the winter"))
            let encoded = await rpcError {
                _ = try await channel.call(GatewayMethods.encode, encoding, as: EncodeResponse.self)
            }
            #expect(encoded?.code == .unavailable)
            let accepted = try await channel.generate(self.request(.init(maxDroppedFraction: 1)))
            #expect(accepted.usage?.dropped.reduce(0) { $0 + $1.tokens } == accepted.usage?.routedTokens)
        }
    }

    @Test("A gateway without hosts takes requests after a while, and reports dropped tokens")
    func incomplete() async throws {
        let nowhere = PoolSpecification(name: "pool-0", targets: [.address(host: "127.0.0.1", port: 1)])
        func impatient(_ configuration: inout GatewayConfiguration) {
            configuration.readyTimeout = .milliseconds(50)
        }
        try await withGateway([nowhere], configure: impatient) { _, channel in
            let response = try await channel.generate(self.request)
            #expect(response.usage?.dropped.isEmpty == false)
            let lost = response.usage?.dropped.reduce(0) { $0 + $1.tokens }
            #expect(lost == response.usage?.routedTokens)
            let cluster = try await channel.call(
                GatewayMethods.describeCluster,
                DescribeClusterRequest(),
                as: ClusterDescription.self
            )
            #expect(!cluster.complete)
            #expect(cluster.pools.first?.replicas.first?.state == .disconnected)
        }
    }

    @Test("A draining gateway finishes its requests in flight and refuses new ones")
    func draining() async throws {
        try await withHosts(self.model, pools: 1) { _, pools in
            var configuration = GatewayConfiguration(modelDirectory: self.model.directory, pools: pools)
            configuration.port = 0
            let gateway = try Gateway(configuration: configuration, logger: quietLogger)
            let life = Task { try await gateway.run() }
            let port = try await gateway.boundAddress().port
            try await gateway.waitUntilServing()
            try await withChannel(port: port) { channel in
                _ = try await channel.generate(self.request)
                async let last = channel.generate(self.request)
                _ = await eventually { gateway.engine.load.running + gateway.engine.load.queued > 0 }
                gateway.beginDraining()
                let response = try await last
                #expect(response.generations.count == 1)
            }
            try await life.value
        }
    }
}
