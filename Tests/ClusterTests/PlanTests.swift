// SPDX-License-Identifier: Apache-2.0

import CommandKit
import ExpertPooling
import Foundation
import SwitchyardClient
import SwitchyardProtos
import SwitchyardTypes
import Testing

@testable import switchyard

@Suite("Plans and simulations", .serialized)
struct PlanTests {
    /// Four pools of two experts in one decoder layer; expert 0 takes most rows.
    private static func cluster(spare: Bool, rows: UInt64 = 1000) -> ClusterDescription {
        var cluster = ClusterDescription()
        cluster.pools = (0..<4)
            .map { pool in
                var replica = ReplicaDescription()
                replica.address = "10.0.0.\(pool):7401"
                replica.state = .ready
                let own: [UInt32] = [UInt32(2 * pool), UInt32(2 * pool + 1)]
                let others = (0..<8).map { UInt32($0) }.filter { !own.contains($0) }
                return PoolDescription(
                    name: "pool-\(pool)",
                    experts: [LayerExperts(stack: .decoder, layer: 1, experts: own)],
                    replicas: [replica],
                    spare: spare ? [LayerExperts(stack: .decoder, layer: 1, experts: others)] : []
                )
            }
        let shares: [UInt64] = [60, 5, 10, 5, 5, 5, 10, 0]
        cluster.expertLoad = [
            LayerLoad(
                stack: .decoder,
                layer: 1,
                rows: shares.map { $0 * rows },
                rowsPerSecond: shares.map { Float($0) }
            )
        ]
        return cluster
    }

    @Test("a hot expert's additional pools are printed with their gain")
    func hot() throws {
        let report = PlanReport(Self.cluster(spare: true))
        let lines = report.text.split(separator: "\n")
        let layer = try #require(lines.first { $0.hasPrefix("decoder 1") })
        #expect(layer.contains("pool-0"))
        #expect(layer.contains("65.0 %"))
        #expect(report.text.contains("relieves pool-0"))
        #expect(!report.text.contains("expert-host"))
        let json = try JSONSerialization.jsonObject(with: Data(try report.json().utf8)) as? [String: Any]
        let change = try #require((json?["changes"] as? [[String: Any]])?.first)
        #expect(change["expert"] as? Int == 0)
        #expect(change["before"] as? [String] == ["pool-0"])
        #expect((change["after"] as? [String])?.count ?? 0 > 1)
    }

    @Test("if nothing is spare, the shard to load is named with its hosts")
    func advice() {
        let report = PlanReport(Self.cluster(spare: false))
        #expect(report.text.contains("nothing to change"))
        #expect(report.text.contains("load the shard of pool-0 on the hosts of pool-"))
        #expect(report.text.contains("10.0.0."))
    }

    @Test("too few rows, or none at all, are reported")
    func few() {
        let few = PlanReport(Self.cluster(spare: true, rows: 1))
        #expect(few.text.contains("1 of 1 layers have had fewer than 2000 rows"))
        #expect(few.plan.changes.isEmpty)
        #expect(PlanReport(ClusterDescription()).text.contains("no token has been routed yet"))
    }

    @Test("extras in force are kept, and a gateway without averages is planned from its counters")
    func inForce() {
        var cluster = Self.cluster(spare: true)
        cluster.expertLoad[0].rowsPerSecond = []
        let first = PlanReport(cluster)
        #expect(first.plan.isChange)
        for (pool, description) in cluster.pools.enumerated() {
            let extra = first.plan.extras.values.flatMap { $0 }.filter { $0.value.contains(description.name) }
            guard !extra.isEmpty else { continue }
            cluster.pools[pool].extra = [
                LayerExperts(stack: .decoder, layer: 1, experts: extra.map { UInt32($0.key) }.sorted())
            ]
        }
        let second = PlanReport(cluster)
        let before = first.plan.extras.mapValues { $0.mapValues { Set($0) } }
        let after = second.plan.extras.mapValues { $0.mapValues { Set($0) } }
        #expect(after == before)
        #expect(second.text.contains("are in force"))
    }

    @Test("plan asks a running gateway")
    func running() async throws {
        let prompts = try TestCluster.prompts()
        try await TestCluster.run(pools: 2) { client, cluster in
            for prompt in prompts.prefix(4) {
                _ = try await client.generate(GenerateRequest(input: .text(prompt.prompt)))
            }
            let output = try await Commands.run(
                TestCluster.executable,
                ["plan", "--json", "--endpoint", cluster.gatewayAddress]
            )
            #expect(output.status == 0, "\(output.errors)")
            let report = try JSONSerialization.jsonObject(with: Data(output.text.utf8)) as? [String: Any]
            let layers = try #require(report?["layers"] as? [[String: Any]])
            #expect(!layers.isEmpty)
            #expect(layers.allSatisfy { ($0["worstBefore"] as? Double ?? 0) > 0 })
            // The averages are the gateway's own.
            let description = try await client.describeCluster()
            #expect(description.expertLoad.allSatisfy { $0.rowsPerSecond.count == $0.rows.count })
        }
    }
}
