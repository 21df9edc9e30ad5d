// SPDX-License-Identifier: Apache-2.0

import CommandKit
import Foundation
import SwitchyardClient
import SwitchyardProtos
import SwitchyardTypes
import Testing

@testable import switchyard

@Suite("Hosts that die or stall", .serialized)
struct FaultTests {
    private static let text = "Now is the winter of our <extra_id_0> Made glorious summer"
    private static let long = GenerationParameters(maxNewTokens: 120, minNewTokens: 120)

    @Test("SIGKILL without a replica: the generation finishes and lists what was dropped")
    func killedHost() async throws {
        try await TestCluster.run(pools: 2) { client, cluster in
            let victim = try #require(cluster.hosts.running.first)
            var tokens = 0
            var final: GenerateResponse?
            let request = GenerateRequest(
                input: .text(Self.text),
                parameters: Self.long,
                dropPolicy: DropPolicy(maxDroppedFraction: 1)
            )
            for try await event in try await client.generateStream(request) {
                if case .token = event {
                    tokens += 1
                    if tokens == 3 { signal(SIGKILL, to: victim) }
                }
                if case .response(let response) = event { final = response }
            }
            #expect(tokens == 120)
            let usage = try #require(final?.usage)
            #expect(!usage.dropped.isEmpty)
            #expect(usage.dropped.allSatisfy { $0.stack == .decoder && $0.reason == .unavailable && $0.tokens > 0 })
            #expect(usage.dropped.reduce(0) { $0 + $1.tokens } < usage.routedTokens)
        }
    }

    @Test("SIGKILL under a strict policy: the call ends at once with UNAVAILABLE")
    func killedHostStrict() async throws {
        try await TestCluster.run(pools: 2) { client, cluster in
            let victim = try #require(cluster.hosts.running.first)
            var tokens = 0
            let request = GenerateRequest(
                input: .text(Self.text),
                parameters: Self.long,
                dropPolicy: DropPolicy(strict: true)
            )
            let error = await #expect(throws: GatewayError.self) {
                for try await event in try await client.generateStream(request) {
                    guard case .token = event else { continue }
                    tokens += 1
                    if tokens == 3 { signal(SIGKILL, to: victim) }
                }
            }
            #expect(error?.code == .unavailable)
            #expect(error?.message.contains("strict") == true, "\(String(describing: error))")
            #expect(tokens < 120)
        }
    }

    @Test("SIGKILL with a replica: no client notices")
    func killedReplica() async throws {
        let prompts = try TestCluster.prompts()
        try await TestCluster.run(pools: 2, replicas: 2) { client, cluster in
            let victim = try #require(cluster.hosts.running.first)
            let calm = try await client.generate(GenerateRequest(input: .text(Self.text), parameters: Self.long))
            var tokens: [UInt32] = []
            var final: GenerateResponse?
            let request = GenerateRequest(input: .text(Self.text), parameters: Self.long)
            for try await event in try await client.generateStream(request) {
                if case .token(let token) = event {
                    tokens.append(token.tokenID)
                    if tokens.count == 3 { signal(SIGKILL, to: victim) }
                }
                if case .response(let response) = event { final = response }
            }
            #expect(tokens == calm.generations.first?.tokenIDs)
            #expect(final?.usage?.dropped.isEmpty == true)
            for prompt in prompts.prefix(3) {
                let response = try await client.generate(GenerateRequest(input: .text(prompt.prompt)))
                #expect(response.generations.first?.tokenIDs == prompt.tokenIDs)
            }
        }
    }

    @Test("SIGSTOP: layers end at their deadlines, and SIGCONT brings the host back")
    func stalledHost() async throws {
        let prompts = try TestCluster.prompts()
        let arguments = ["--encoder-deadline-ms", "400", "--decoder-deadline-ms", "200"]
        try await TestCluster.run(pools: 2, gatewayArguments: arguments) { client, cluster in
            let victim = try #require(cluster.hosts.running.first)
            let request = GenerateRequest(
                input: .text(Self.text),
                parameters: GenerationParameters(maxNewTokens: 12, minNewTokens: 12),
                dropPolicy: DropPolicy(maxDroppedFraction: 1)
            )
            _ = try await client.generate(request)
            try await Self.stop(victim)
            // The host answers nothing, so without deadlines this would not end.
            let response = try await client.generate(request)
            signal(SIGCONT, to: victim)
            let dropped = response.usage?.dropped ?? []
            let reasons = Set(dropped.map(\.reason))
            #expect(reasons.contains(.timeout))
            #expect(reasons.isSubset(of: [.timeout, .unavailable]))
            #expect(response.generations.first?.tokenIDs.count == 12)
            try await Self.eventually {
                let prompt = prompts[0]
                let answer = try await client.generate(GenerateRequest(input: .text(prompt.prompt)))
                let isWhole: Bool = answer.usage?.dropped.isEmpty ?? false
                return isWhole && answer.generations.first?.tokenIDs == prompt.tokenIDs
            }
        }
    }

    /// Stops a process, and waits until it has stopped.
    ///
    /// A process stops when one of its threads takes the signal. On a busy machine the others run on until then.
    private static func stop(_ child: ChildProcess) async throws {
        signal(SIGSTOP, to: child)
        try await Self.eventually {
            let status = try String(contentsOfFile: "/proc/\(child.processIdentifier)/stat", encoding: .utf8)
            // The state follows the program's name, which is in parentheses.
            return status.split(separator: ")").last?.hasPrefix(" T") == true
        }
    }

    /// Polls until a condition holds; only a hang runs into the time limit.
    static func eventually(_ condition: () async throws -> Bool) async throws {
        let deadline = ContinuousClock.now.advanced(by: .seconds(300))
        while ContinuousClock.now < deadline {
            if try await condition() { return }
        }
        Issue.record("it never came to hold")
    }
}
