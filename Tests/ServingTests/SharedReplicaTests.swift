// SPDX-License-Identifier: Apache-2.0

import ExpertPooling
import SwitchModel
import SwitchyardTypes
import Testing

@testable import ExpertServing
@testable import GatewayServing

/// Gateways that share replicas without knowing each other.
@Suite(.serialized)
struct SharedReplicaTests {
    private let model = TestModel.miniature

    /// Rows that each host has computed, by expert, for a request of two gateways that know the hosts in another order.
    private func rows(_ choice: ReplicaChoice) async throws -> [[UInt64]] {
        let loaded = try self.model.load()
        let request = ExpertExecutorContractTests.layerRequest(loaded, tokens: 40)
        func configure(_ configuration: inout ExpertClusterConfiguration) {
            configuration.choice.replicaChoice = choice
            configuration.choice.hedgeFraction = 0
        }
        return try await withHosts(self.model, pools: 1, replicas: 2) { hosts, pools in
            let backwards = PoolSpecification(name: pools[0].name, targets: pools[0].targets.reversed())
            for pool in [pools[0], backwards] {
                try await withRemoteExperts([pool], of: loaded, configure: configure) { experts, cluster in
                    let joined = await eventually { cluster.view.reports.count { $0.state == .ready } == 2 }
                    #expect(joined)
                    for _ in 0..<8 {
                        let outputs = try await onThread { try experts.execute(request) }
                        #expect(outputs.dropped.isEmpty)
                    }
                    let counts = try #require(cluster.view.counts[pool.name])
                    #expect((counts.keptExperts > 0) == (choice == .affinity))
                    #expect(counts.calls == (choice == .affinity ? 16 : 8))
                }
            }
            // A host counts a call's rows after it has answered.
            func counts() -> [[UInt64]] { hosts.map { $0.host.expertRows.current[request.layer] ?? [] } }
            _ = await eventually { counts().joined().reduce(0, +) == 640 }
            return counts()
        }
    }

    @Test("each expert's rows are computed by one host, whichever gateway asks")
    func affinity() async throws {
        let rows = try await self.rows(.affinity)
        #expect(rows.joined().reduce(0, +) == 640)
        #expect(rows.allSatisfy { $0.reduce(0, +) > 0 })
        for (first, second) in zip(rows[0], rows[1]) { #expect(first == 0 || second == 0) }
    }

    @Test("without affinity a call takes all of a layer's experts to one host")
    func twoChoices() async throws {
        let rows = try await self.rows(.twoChoices)
        #expect(rows.joined().reduce(0, +) == 640)
        // Sixteen calls all go to one of two hosts once in 32,768 times.
        #expect(zip(rows[0], rows[1]).contains { $0 > 0 && $1 > 0 })
    }
}
