// SPDX-License-Identifier: Apache-2.0

import CommandKit
import Foundation
import SwitchyardProtos
import Testing

@testable import switchyard

@Suite("top", .serialized)
struct TopTests {
    private static func cluster(tokens: UInt64, uptime: UInt64, rows: [UInt64]) -> ClusterDescription {
        ClusterDescription(
            pools: [
                PoolDescription(
                    name: "pool-0",
                    experts: [LayerExperts(stack: .encoder, layer: 1, experts: [0, 1, 2, 3])],
                    replicas: (0..<20)
                        .map {
                            ReplicaDescription(
                                address: "10.0.0.\($0):7401",
                                state: .ready,
                                calls: tokens,
                                rows: tokens * 2
                            )
                        }
                )
            ],
            gateway: GatewayLoad(batchSlots: 32, uptimeSeconds: uptime, decodedTokens: tokens, steps: tokens / 2),
            modelFingerprint: 7,
            complete: true,
            expertLoad: [LayerLoad(stack: .encoder, layer: 1, rows: rows)]
        )
    }

    @Test("rates are those between two looks, and begin anew with the gateway")
    func movement() {
        let before = Self.cluster(tokens: 100, uptime: 50, rows: [1, 2, 3, 4])
        let now = Self.cluster(tokens: 400, uptime: 52, rows: [11, 2, 3, 5])
        let movement = ClusterMovement(now, since: before, seconds: 2)
        #expect(movement.rate(movement.decodedTokens) == "150")
        #expect(movement.rate(movement.steps) == "75.0")
        #expect(movement.layers == [[10, 0, 0, 1]])
        #expect(movement.hosts["10.0.0.3:7401"]?.rows == 600)
        #expect(!movement.isRestarted)
        let restarted = ClusterMovement(
            Self.cluster(tokens: 30, uptime: 3, rows: [1, 0, 0, 0]),
            since: now,
            seconds: 2
        )
        #expect(restarted.isRestarted && restarted.rate(restarted.decodedTokens) == "10.0")
        #expect(restarted.layers == [[1, 0, 0, 0]])
    }

    @Test("a screen is never larger than the window", arguments: [(40, 5), (60, 14), (80, 24), (200, 100)])
    func size(columns: Int, rows: Int) {
        let cluster = Self.cluster(tokens: 400, uptime: 52, rows: [11, 2, 3, 5])
        let movement = ClusterMovement(cluster, since: nil, seconds: 0)
        var screen = TopScreen(
            model: ModelDescription(name: "m", expertsPerLayer: 4),
            cluster: cluster,
            movement: movement
        )
        screen.complaint = "no answer: the gateway at 127.0.0.1:7400 cannot be reached"
        let lines = screen.lines(columns: columns, rows: rows)
        #expect(lines.count <= rows)
        #expect(lines.allSatisfy { $0.replacing(/\u{1B}\[[0-9;]*m/, with: "").count <= columns }, "\(lines)")
        #expect(lines.last?.contains("q quits") == true)
        #expect(lines.last?.contains("more lines") == (rows < 40))
    }

    @Test("a pipe gets one line for each look, and an unreachable gateway is an error in words")
    func piped() async throws {
        try await TestCluster.runProcesses(pools: 2) { cluster in
            let arguments = ["top", "--endpoint", cluster.gatewayAddress, "--samples", "3", "--interval", "0.2"]
            let output = try await Commands.run(TestCluster.executable, arguments)
            #expect(output.status == 0, "\(output.errors)")
            let lines = output.text.split(separator: "\n")
            #expect(lines.count == 3, "\(output.text)")
            #expect(lines.allSatisfy { $0.contains("2/2 hosts ready") && !$0.contains("\u{1B}") }, "\(output.text)")
        }
        let output = try await Commands.run(
            TestCluster.executable,
            ["top", "--endpoint", "127.0.0.1:1", "--samples", "1"]
        )
        #expect(output.status != 0 && !output.errors.isEmpty)
    }
}
