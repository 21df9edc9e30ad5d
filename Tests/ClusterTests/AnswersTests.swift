// SPDX-License-Identifier: Apache-2.0

import CommandKit
import SwitchyardClient
import SwitchyardProtos
import Testing

@testable import switchyard

@Suite("Answers of a cluster", .serialized)
struct AnswersTests {
    @Test("equal transformers', alone and among others", arguments: [1, 2, 4, 8])
    func answers(pools: Int) async throws {
        let prompts = try TestCluster.prompts()
        try await TestCluster.run(pools: pools) { client, _ in
            for prompt in prompts.prefix(4) {
                let response = try await client.generate(GenerateRequest(input: .text(prompt.prompt)))
                #expect(response.generations.first?.tokenIDs == prompt.tokenIDs)
                #expect(response.usage?.dropped.isEmpty == true)
            }
            try await withThrowingTaskGroup(of: Void.self) { group in
                for index in 0..<16 {
                    let prompt = prompts[index % prompts.count]
                    group.addTask {
                        let response = try await client.generate(GenerateRequest(input: .text(prompt.prompt)))
                        #expect(response.generations.first?.tokenIDs == prompt.tokenIDs)
                    }
                }
                try await group.waitForAll()
            }
        }
    }

    @Test("stream as they are chosen and end with the whole response")
    func streaming() async throws {
        let prompt = try #require(try TestCluster.prompts().first)
        try await TestCluster.run(pools: 2) { client, _ in
            var tokens: [UInt32] = []
            var text = ""
            var final: GenerateResponse?
            for try await event in try await client.generateStream(GenerateRequest(input: .text(prompt.prompt))) {
                switch event {
                case .token(let token):
                    #expect(final == nil)
                    tokens.append(token.tokenID)
                    text += token.text
                case .response(let response): final = response
                }
            }
            #expect(tokens == prompt.tokenIDs)
            #expect(final?.generations.first?.tokenIDs == prompt.tokenIDs)
            #expect(final?.generations.first?.text == text)
        }
    }

    @Test("follow the router: every host took rows, and the gateway counted them")
    func description() async throws {
        let prompts = try TestCluster.prompts()
        try await TestCluster.run(pools: 4) { client, cluster in
            for prompt in prompts { _ = try await client.generate(GenerateRequest(input: .text(prompt.prompt))) }
            let model = try await client.describeModel()
            #expect(model.expertsPerLayer == 8)
            #expect(model.sparseLayers.count == 4)
            let description = try await client.describeCluster()
            #expect(description.complete)
            #expect(description.pools.map(\.name) == ["pool-0", "pool-1", "pool-2", "pool-3"])
            let replicas = description.pools.flatMap(\.replicas)
            #expect(replicas.allSatisfy { $0.state == .ready && $0.rows > 0 && $0.failures == 0 })
            #expect(Set(replicas.map(\.address)) == Set(cluster.hosts.running.map(\.address)))
            let rows = description.expertLoad.flatMap(\.rows).reduce(0, +)
            #expect(rows == description.routedTokens)
            #expect(rows == replicas.map(\.rows).reduce(0, +))
        }
    }
}
