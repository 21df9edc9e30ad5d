// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import ExpertPooling
import ExpertServing
import RPCCore
import RPCTransport
import SwitchModel
import SwitchyardProtos
import SwitchyardTypes
import TensorKernels
import Testing

@testable import GatewayServing

/// The fate of a layer's rows when hosts fail.
@Suite(.serialized)
struct RemoteExpertsFaultTests {
    private let model = TestModel.miniature

    /// The description of a healthy host of one pool.
    private func description(port: Int) async throws -> HostDescription {
        try await withChannel(port: port) { channel in
            try await channel.call(ExpertHostMethods.describe, DescribeHostRequest(), as: HostDescription.self)
        }
    }

    @Test(
        "A host that is not well loses its rows for the right reason",
        arguments: [
            (Illness.stalls, DropReason.timeout), (.notFinite, .badReply), (.wrongShape, .badReply),
            (.garbage, .badReply), (.overloaded, .overloaded), (.refuses, .badReply),
        ] as [(Illness, DropReason)]
    )
    func reasons(illness: Illness, reason: DropReason) async throws {
        let loaded = try self.model.load()
        try await withHosts(self.model, pools: 2) { hosts, pools in
            let description = try await self.description(port: hosts[1].port)
            try await withIllHost(describing: description, illness) { port in
                let ill = PoolSpecification(name: pools[1].name, targets: [.address(host: "127.0.0.1", port: port)])
                try await withRemoteExperts(
                    [pools[0], ill],
                    of: loaded,
                    // The test waits for the host only if it never answers; the other host has to be faster.
                    deadline: illness == .stalls ? .seconds(5) : .seconds(300)
                ) { experts, cluster in
                    let request = ExpertExecutorContractTests.layerRequest(loaded, tokens: 40)
                    let outputs = try await onThread { try experts.execute(request) }
                    #expect(Set(outputs.dropped.map(\.reason)) == [reason])
                    let lost = outputs.dropped.flatMap { Array($0.rows) }.sorted()
                    let kept = outputs.chunks.flatMap { Array($0.rows) }.sorted()
                    #expect((lost + kept).sorted() == Array(0..<request.plan.rowCount))
                    // Experts 4 to 7 are on the second pool.
                    let expected = request.plan.groups.filter { $0.expert >= 4 }.reduce(0) { $0 + $1.rows }
                    // One value of the last row is not finite: the other rows are good.
                    #expect(lost.count == (illness == .notFinite ? 1 : expected))
                    _ = cluster
                }
            }
        }
    }

    @Test(
        "Another replica computes what an ill one does not",
        arguments: [Illness.notFinite, .wrongShape, .garbage, .overloaded, .refuses]
    )
    func retry(illness: Illness) async throws {
        let loaded = try self.model.load()
        let request = ExpertExecutorContractTests.layerRequest(loaded, tokens: 40)
        try await withHosts(self.model, pools: 1) { hosts, pools in
            let description = try await self.description(port: hosts[0].port)
            try await withIllHost(describing: description, illness) { port in
                let targets = pools[0].targets + [.address(host: "127.0.0.1", port: port)]
                let both = PoolSpecification(name: "pool-0", targets: targets)
                try await withRemoteExperts([both], of: loaded) { experts, cluster in
                    let joined = await eventually {
                        cluster.view.reports.count { $0.state == .ready } == 2
                    }
                    #expect(joined)
                    // No row is lost, whichever host is drawn first.
                    for _ in 0..<8 {
                        let outputs = try await onThread { try experts.execute(request) }
                        #expect(outputs.dropped.isEmpty)
                    }
                }
            }
        }
    }

    @Test(
        "Rows that overflow cost no other row anything, and eject no host: clean rows have the bits that they have alone",
        arguments: [1, 2],
        [DType.float32, .bfloat16]
    )
    func dirtyRows(replicas: Int, wireType: DType) async throws {
        let loaded = try self.model.load()
        let clean = ExpertExecutorContractTests.layerRequest(loaded, tokens: 100)
        let dirty = ExpertExecutorContractTests.layerRequest(loaded, tokens: 100)
        let dirtyTokens: Set<Int32> = [3, 40, 41, 99]
        for token in dirtyTokens { dirty.hidden.row(Int(token))[5] = .infinity }
        let dirtyRows = Set(dirty.plan.sources.indices.filter { dirtyTokens.contains(dirty.plan.sources[$0]) })
        #expect(dirtyRows.count == 4)
        try await withHosts(self.model, pools: 2, replicas: replicas) { _, pools in
            try await withRemoteExperts(pools, of: loaded, configure: { $0.wireType = wireType }) { experts, cluster in
                #expect(await eventually { cluster.view.reports.allSatisfy { $0.state == .ready } })
                let alone = Self.rows(of: try await onThread { try experts.execute(clean) })
                #expect(alone.count == 100)
                for _ in 0..<8 {
                    let outputs = try await onThread { try experts.execute(dirty) }
                    #expect(Set(outputs.dropped.flatMap { Array($0.rows) }) == dirtyRows)
                    #expect(Set(outputs.dropped.map(\.reason)) == [.badReply])
                    #expect(Self.rows(of: outputs) == alone.filter { !dirtyRows.contains($0.key) })
                }
                #expect(cluster.view.reports.allSatisfy { $0.state == .ready && $0.ejections == 0 })
                #expect(cluster.view.counts.values.reduce(0) { $0 + $1.droppedRows } == 32)
            }
        }
    }

    /// The bits of each row of a layer's outputs.
    private static func rows(of outputs: ExpertOutputs) -> [Int: [UInt8]] {
        var rows: [Int: [UInt8]] = [:]
        for chunk in outputs.chunks {
            chunk.storage.withUnsafeBytes { bytes in
                let size = bytes.count / chunk.rows.count
                for (index, row) in chunk.rows.enumerated() {
                    #expect(rows[row] == nil)
                    rows[row] = Array(bytes[index * size..<(index + 1) * size])
                }
            }
        }
        return rows
    }

    @Test("A killed host costs its rows, and is used again when it is back")
    func killedHost() async throws {
        let loaded = try self.model.load()
        let request = ExpertExecutorContractTests.layerRequest(loaded, tokens: 40)
        let folder = try ShardCache.folder(of: self.model, pools: 2)
        try await withHosts(self.model, pools: 2) { hosts, pools in
            try await withRemoteExperts(pools, of: loaded) { experts, cluster in
                await hosts[1].kill()
                let outputs = try await onThread { try experts.execute(request) }
                #expect(Set(outputs.dropped.map(\.reason)) == [.unavailable])
                let again = try await RunningHost.start("\(folder)/pool-1") { $0.port = hosts[1].port }
                let rejoined = await eventually {
                    cluster.view.reports.allSatisfy { $0.state == .ready }
                }
                #expect(rejoined)
                let healed = try await onThread { try experts.execute(request) }
                #expect(healed.dropped.isEmpty)
                await again.kill()
            }
        }
    }

    @Test("A draining host answers its calls and loses no row if a replica is left")
    func drainedHost() async throws {
        let loaded = try self.model.load()
        let request = ExpertExecutorContractTests.layerRequest(loaded, tokens: 40)
        try await withHosts(self.model, pools: 1, replicas: 2) { hosts, pools in
            try await withRemoteExperts(pools, of: loaded) { experts, cluster in
                let joined = await eventually { cluster.view.reports.count { $0.state == .ready } == 2 }
                #expect(joined)
                async let drained: Void = hosts[0].drain()
                for _ in 0..<16 {
                    let outputs = try await onThread { try experts.execute(request) }
                    #expect(outputs.dropped.isEmpty)
                }
                try await drained
            }
        }
    }

    @Test("A host with another model's experts is never used")
    func wrongFingerprint() async throws {
        let loaded = try self.model.load()
        let request = ExpertExecutorContractTests.layerRequest(loaded, tokens: 40)
        try await withHosts(self.model, pools: 1) { hosts, pools in
            var description = try await self.description(port: hosts[0].port)
            description.modelFingerprint ^= 1
            try await withIllHost(describing: description, .notFinite) { port in
                let targets = pools[0].targets + [.address(host: "127.0.0.1", port: port)]
                let both = PoolSpecification(name: "pool-0", targets: targets)
                try await withRemoteExperts([both], of: loaded) { experts, cluster in
                    let mismatched = await eventually {
                        cluster.view.reports.contains {
                            guard case .mismatched(let reason) = $0.state else { return false }
                            return $0.id.port == port && reason.contains("model")
                        }
                    }
                    #expect(mismatched)
                    for _ in 0..<8 {
                        let outputs = try await onThread { try experts.execute(request) }
                        #expect(outputs.dropped.isEmpty)
                    }
                    #expect(cluster.view.reports.first { $0.id.port == port }?.succeeded == 0)
                }
            }
        }
    }

    @Test("Every address of a name is a replica")
    func names() async throws {
        let loaded = try self.model.load()
        let request = ExpertExecutorContractTests.layerRequest(loaded, tokens: 40)
        try await withHosts(self.model, pools: 1) { hosts, _ in
            let named = PoolSpecification(name: "pool-0", targets: [.name(host: "localhost", port: hosts[0].port)])
            try await withRemoteExperts([named], of: loaded) { experts, cluster in
                let outputs = try await onThread { try experts.execute(request) }
                #expect(outputs.dropped.isEmpty)
                #expect(cluster.view.reports.contains { $0.id.host == "127.0.0.1" && $0.state == .ready })
            }
        }
    }

    @Test("Cancelled work leaves no call behind, whether or not a thread waits for it")
    func cancellation() async throws {
        let loaded = try self.model.load()
        let request = ExpertExecutorContractTests.layerRequest(loaded, tokens: 40)
        try await withHosts(self.model, pools: 1) { hosts, pools in
            let description = try await self.description(port: hosts[0].port)
            try await withIllHost(describing: description, .stalls) { port in
                let stalled = PoolSpecification(name: "pool-0", targets: [.address(host: "127.0.0.1", port: port)])
                try await withRemoteExperts([stalled], of: loaded) { experts, cluster in
                    experts.begin(request).cancel()
                    #expect(cluster.view.reports.map(\.outstanding) == [0])
                    let waitedFor = experts.begin(request)
                    #expect(cluster.view.reports.map(\.outstanding) == [1])
                    async let interrupted = #expect(throws: StepInterrupted.self) {
                        try await onThread { try waitedFor.wait() }
                    }
                    waitedFor.cancel()
                    _ = await interrupted
                    #expect(cluster.view.reports.map(\.outstanding) == [0])
                    #expect(cluster.view.reports.map(\.outstandingRows) == [0])
                }
            }
        }
    }
}
