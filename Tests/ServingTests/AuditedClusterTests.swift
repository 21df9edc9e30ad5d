// SPDX-License-Identifier: Apache-2.0

import ExpertPooling
import ExpertServing
import SwitchModel
import SwitchyardTypes
import Synchronization
import TensorKernels
import Testing

@testable import GatewayServing

/// Whether a lying host lies, as a test wants it.
private final class Lies: Sendable {
    private let isOn = Atomic(true)
    var areOn: Bool {
        get { self.isOn.load(ordering: .sequentiallyConsistent) }
        set { self.isOn.store(newValue, ordering: .sequentiallyConsistent) }
    }
}

/// Audited calls over sockets: one flipped mantissa bit is found, and never used.
@Suite("Audits of a cluster", .serialized)
struct AuditedClusterTests {
    private let model = TestModel.miniature

    /// Every value of a layer's outputs as bits, by row.
    private static func bits(_ outputs: ExpertOutputs, columns: Int) -> [Int: [UInt32]] {
        var rows: [Int: [UInt32]] = [:]
        for chunk in outputs.chunks {
            chunk.storage.withUnsafeBytes { bytes in
                for (index, row) in chunk.rows.enumerated() {
                    rows[row] = (0..<columns)
                        .map { bytes.loadUnaligned(fromByteOffset: 4 * (index * columns + $0), as: UInt32.self) }
                }
            }
        }
        return rows
    }

    private static func audit(_ configuration: inout ExpertClusterConfiguration, proofs: Int = 5) {
        configuration.choice.auditFraction = 1
        // One call for a layer and pool, which the tests count.
        configuration.choice.replicaChoice = .twoChoices
        configuration.choice.proofsToServe = proofs
        configuration.choice.firstEjection = .milliseconds(10)
        configuration.choice.longestEjection = .milliseconds(40)
    }

    @Test("a host that lies by one bit is caught in its first audited call, and serves again once it has proved itself")
    func liar() async throws {
        let loaded = try self.model.load()
        let request = ExpertExecutorContractTests.layerRequest(loaded, tokens: 40)
        let right = Self.bits(try loaded.experts.execute(request), columns: request.hidden.columns)
        let lies = Lies()
        try await withHosts(self.model, pools: 1) { hosts, pools in
            try await withLyingHost(like: hosts[0].port, isWrong: { lies.areOn }) { port in
                let targets = pools[0].targets + [.address(host: "127.0.0.1", port: port)]
                let both = PoolSpecification(name: "pool-0", targets: targets)
                try await withRemoteExperts([both], of: loaded, configure: { Self.audit(&$0) }) { experts, cluster in
                    func liar() -> ReplicaReport? { cluster.view.reports.first { $0.id.port == port } }
                    #expect(await eventually { cluster.view.reports.allSatisfy { $0.state == .ready } })
                    func layer() async throws {
                        let outputs = try await onThread { try experts.execute(request) }
                        #expect(outputs.dropped.isEmpty)
                        #expect(Self.bits(outputs, columns: request.hidden.columns) == right)
                    }
                    try await layer()
                    #expect(liar()?.state == .quarantined)
                    #expect(liar()?.catches == 1)
                    #expect(cluster.view.counts["pool-0"]?.audits[.caught] == 1)
                    #expect(cluster.view.counts["pool-0"]?.audits.recomputed == 1)
                    // Its evidence is wrong too, so it stays where it is, whatever it is sent.
                    #expect(await eventually { (cluster.view.counts["pool-0"]?.audits.proofs[1] ?? 0) >= 3 })
                    try await layer()
                    #expect(liar()?.state == .quarantined)
                    lies.areOn = false
                    // The evidence is one proof, the others are calls of the pool.
                    while liar()?.state != .ready {
                        try await layer()
                        await Task.yield()
                    }
                    #expect((cluster.view.counts["pool-0"]?.audits.proofs[0] ?? 0) >= 5)
                    try await layer()
                    #expect(liar()?.state == .ready)
                }
            }
        }
    }

    @Test("the last host of a pool is audited by the gateway: its tokens are dropped, and none is wrong")
    func onlyHost() async throws {
        let loaded = try self.model.load()
        let request = ExpertExecutorContractTests.layerRequest(loaded, tokens: 40)
        let right = Self.bits(try loaded.experts.execute(request), columns: request.hidden.columns)
        try await withHosts(self.model, pools: 1) { hosts, _ in
            try await withLyingHost(like: hosts[0].port, isWrong: { true }) { port in
                let pool = PoolSpecification(name: "pool-0", targets: [.address(host: "127.0.0.1", port: port)])
                try await withRemoteExperts([pool], of: loaded, configure: { Self.audit(&$0) }) { experts, cluster in
                    let outputs = try await onThread { try experts.execute(request) }
                    #expect(Self.bits(outputs, columns: request.hidden.columns) == right)
                    #expect(cluster.view.reports.first?.state == .quarantined)
                    let next = try await onThread { try experts.execute(request) }
                    #expect(next.chunks.isEmpty)
                    #expect(Set(next.dropped.map(\.reason)) == [.unavailable])
                }
            }
        }
    }

    @Test(
        "without the gateway's opinion, a third host finds the one that lies; with two hosts only equal rows are used"
    )
    func withoutOwnExperts() async throws {
        let loaded = try self.model.load()
        let request = ExpertExecutorContractTests.layerRequest(loaded, tokens: 40)
        let right = Self.bits(try loaded.experts.execute(request), columns: request.hidden.columns)
        try await withHosts(self.model, pools: 1, replicas: 2) { hosts, pools in
            try await withLyingHost(like: hosts[0].port, isWrong: { true }) { port in
                let liar = PoolTarget.address(host: "127.0.0.1", port: port)
                let three = PoolSpecification(name: "pool-0", targets: pools[0].targets + [liar])
                try await withRemoteExperts([three], of: loaded, ownExperts: false, configure: { Self.audit(&$0) }) {
                    experts,
                    cluster in
                    #expect(await eventually { cluster.view.reports.allSatisfy { $0.state == .ready } })
                    while cluster.view.counts["pool-0"]?.audits[.caught] == 0 {
                        let outputs = try await onThread { try experts.execute(request) }
                        #expect(Self.bits(outputs, columns: request.hidden.columns) == right)
                    }
                    #expect(cluster.view.reports.filter { $0.state == .quarantined }.map(\.id.port) == [port])
                }
                let two = PoolSpecification(name: "pool-0", targets: [pools[0].targets[0], liar])
                try await withRemoteExperts([two], of: loaded, ownExperts: false, configure: { Self.audit(&$0) }) {
                    experts,
                    cluster in
                    #expect(await eventually { cluster.view.reports.allSatisfy { $0.state == .ready } })
                    let outputs = try await onThread { try experts.execute(request) }
                    let rows = Self.bits(outputs, columns: request.hidden.columns)
                    #expect(rows.allSatisfy { right[$0.key] == $0.value })
                    #expect(outputs.dropped.map(\.rows.count).reduce(0, +) == 1)
                    #expect(rows.count == right.count - 1)
                    #expect(outputs.dropped.allSatisfy { $0.reason == .badReply })
                    #expect(cluster.view.disputed == ["pool-0"])
                }
            }
        }
    }

    @Test(
        "hosts that keep weights in another type than the checkpoint's are audited in theirs",
        arguments: [WeightStorage.int8, .float32, .bfloat16]
    )
    func weightTypes(storage: WeightStorage) async throws {
        let loaded = try self.model.load()
        let request = ExpertExecutorContractTests.layerRequest(loaded, tokens: 40)
        for wire in [DType.float32, .bfloat16] {
            func keep(_ configuration: inout ExpertHostConfiguration) { configuration.storage = storage }
            try await withHosts(self.model, pools: 2, configure: keep) { _, pools in
                func configure(_ configuration: inout ExpertClusterConfiguration) {
                    Self.audit(&configuration)
                    configuration.wireType = wire
                }
                try await withRemoteExperts(pools, of: loaded, configure: configure) { experts, cluster in
                    for _ in 0..<4 { _ = try await onThread { try experts.execute(request) } }
                    for pool in ["pool-0", "pool-1"] {
                        let audits = try #require(cluster.view.counts[pool]?.audits)
                        #expect(audits[.agreed] == 4 && audits.recomputed == 4 && audits[.caught] == 0)
                    }
                }
            }
        }
    }
}
