// SPDX-License-Identifier: Apache-2.0

import ExpertPooling
import GatewayServing
import RPCTransport
import SwitchyardProtos
import SwitchyardTypes
import Testing

/// Hot experts on additional pools, with real hosts that hold spare shards.
@Suite(.serialized)
struct HotExpertTests {
    @Test("A gateway configured to do so places hot experts where hosts hold them as spares, and answers stay the same")
    func replication() async throws {
        let prompts = try Prompt.all()
        let folder = try ShardCache.folder(of: .miniature, pools: 2)
        let first = try await RunningHost.start("\(folder)/pool-0")
        let second = try await RunningHost.start(["\(folder)/pool-1", "\(folder)/pool-0"])
        let pools = [first, second].enumerated()
            .map { index, host in
                PoolSpecification(name: "pool-\(index)", targets: [.address(host: "127.0.0.1", port: host.port)])
            }
        func configure(_ configuration: inout GatewayConfiguration) {
            configuration.cluster.replicatesHotExperts = true
            configuration.cluster.planInterval = .milliseconds(20)
            // By default an expert takes minutes to become hot.
            configuration.cluster.planner.minimumRows = 50
            configuration.cluster.planner.minimumGain = 0.01
            configuration.cluster.planner.minimumStep = 0.005
            configuration.cluster.planner.holdTime = .zero
            configuration.cluster.planner.burdenTime = .zero
            configuration.cluster.planner.settleTime = .zero
        }
        try await withGateway(pools, modelDirectory: "\(folder)/gateway", configure: configure) { _, channel in
            var placed: [LayerExperts] = []
            var rounds = 0
            while placed.isEmpty, rounds < 200 {
                let prompt = prompts[rounds % prompts.count]
                let response = try await channel.generate(GenerateRequest(input: .text(prompt.prompt)))
                #expect(response.generations.map(\.tokenIDs) == [prompt.tokenIDs])
                placed = try await channel.describeCluster().pools[1].extra
                rounds += 1
            }
            #expect(!placed.isEmpty, "no expert was placed anew in \(rounds) requests")
            let description = try await channel.describeCluster()
            let spare = try #require(description.pools[1].spare.first)
            #expect(!spare.experts.isEmpty)
            // The first pool's host holds nothing of the second's.
            #expect(description.pools[0].extra.isEmpty)
            for layer in placed {
                let own = description.pools[0].experts.first { $0.stack == layer.stack && $0.layer == layer.layer }
                #expect(Set(layer.experts).isSubset(of: own?.experts ?? []))
            }
            for prompt in prompts {
                let response = try await channel.generate(GenerateRequest(input: .text(prompt.prompt)))
                #expect(response.generations.map(\.tokenIDs) == [prompt.tokenIDs])
                #expect(response.usage?.dropped == [])
            }
        }
        await first.kill()
        await second.kill()
    }
}
