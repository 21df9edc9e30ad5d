// SPDX-License-Identifier: Apache-2.0

import CommandKit
import Foundation
import SwitchyardClient
import SwitchyardProtos
import Testing

@testable import switchyard

/// Processes whose gateway's engine has the sockets of the hosts while it waits for them.
@Suite("Sockets that the engine drives, across processes", .serialized)
struct EngineSocketsClusterTests {
    @Test(
        "all ways to carry the sockets answer every prompt with the same tokens",
        arguments: ["auto", "engine", "event-loops"]
    )
    func sameTokens(sockets: String) async throws {
        let prompts = try TestCluster.prompts()
        try await TestCluster.run(pools: 2, gatewayArguments: ["--expert-sockets", sockets]) { client, _ in
            for prompt in prompts {
                let response = try await client.generate(GenerateRequest(input: .text(prompt.prompt)))
                #expect(response.generations.first?.tokenIDs == prompt.tokenIDs)
                #expect(response.usage?.dropped.isEmpty == true)
            }
        }
    }

    @Test("SIGSTOP with a replica: calls are hedged while the engine waits, and no client notices")
    func stalledReplica() async throws {
        let prompts = try TestCluster.prompts()
        let arguments = ["--expert-sockets", "engine", "--hedge-percent", "100", "--audit-percent", "0"]
        try await TestCluster.run(pools: 2, replicas: 2, gatewayArguments: arguments) { client, cluster in
            let victim = try #require(cluster.hosts.running.first)
            // Enough calls to know how long one takes.
            for prompt in prompts { _ = try await client.generate(GenerateRequest(input: .text(prompt.prompt))) }
            signal(SIGSTOP, to: victim)
            for prompt in prompts {
                let response = try await client.generate(GenerateRequest(input: .text(prompt.prompt)))
                #expect(response.generations.first?.tokenIDs == prompt.tokenIDs)
                #expect(response.usage?.dropped.isEmpty == true)
            }
            signal(SIGCONT, to: victim)
        }
    }

    @Test("a host that dies between two requests and is started again serves again, and the cluster stops")
    func restartedHost() async throws {
        let prompt = try #require(try TestCluster.prompts().first)
        try await TestCluster.runProcesses(
            pools: 2,
            gatewayArguments: ["--expert-sockets", "engine"],
            onHostExit: .restart
        ) { cluster in
            try await GatewayClient.with(endpoint: Endpoint(parsing: cluster.gatewayAddress)) { client in
                for _ in 0..<2 {
                    let victim = try #require(cluster.hosts.running.first)
                    _ = try await client.generate(GenerateRequest(input: .text(prompt.prompt)))
                    // The engine has nothing to wait for: its keeper notices the loss and connects again.
                    signal(SIGKILL, to: victim)
                    try await FaultTests.eventually {
                        let request = GenerateRequest(
                            input: .text(prompt.prompt),
                            dropPolicy: DropPolicy(maxDroppedFraction: 1)
                        )
                        let answer = try await client.generate(request)
                        let isWhole: Bool = answer.usage?.dropped.isEmpty ?? false
                        let isRestarted = !cluster.hosts.running.contains(victim)
                        return isWhole && isRestarted && answer.generations.first?.tokenIDs == prompt.tokenIDs
                    }
                }
            }
        }
    }
}
