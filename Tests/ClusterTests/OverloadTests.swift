// SPDX-License-Identifier: Apache-2.0

import CommandKit
import Foundation
import SwitchyardClient
import SwitchyardProtos
import Testing

@testable import switchyard

@Suite("Overload", .serialized)
struct OverloadTests {
    private enum Outcome: Sendable {
        case answered
        case refused(hasHint: Bool)
        case failed(String)
    }

    @Test("1,000 calls against a queue of 64: each is answered or refused, and the cluster keeps serving")
    func thousandCalls() async throws {
        let prompts = try TestCluster.prompts()
        let arguments = ["--queue-limit", "64", "--batch-slots", "16"]
        try await TestCluster.run(pools: 2, gatewayArguments: arguments) { client, cluster in
            let gateway = try #require(cluster.gateway.running.first)
            _ = try await client.generate(GenerateRequest(input: .text(prompts[0].prompt)))
            let before = try #require(Self.residentBytes(gateway))
            let outcomes = await withTaskGroup(of: Outcome.self) { group in
                for index in 0..<1000 {
                    let prompt = prompts[index % prompts.count]
                    group.addTask {
                        do {
                            let response = try await client.generate(GenerateRequest(input: .text(prompt.prompt)))
                            return response.generations.first?.tokenIDs == prompt.tokenIDs
                                ? .answered : .failed("another answer")
                        } catch let error as GatewayError where error.code == .resourceExhausted {
                            return .refused(hasHint: error.retryDelay != nil)
                        } catch {
                            return .failed("\(error)")
                        }
                    }
                }
                return await group.reduce(into: [Outcome]()) { $0.append($1) }
            }
            let after = try #require(Self.residentBytes(gateway))
            var answered = 0
            var refused = 0
            for outcome in outcomes {
                switch outcome {
                case .answered: answered += 1
                case .refused(let hasHint):
                    refused += 1
                    #expect(hasHint)
                case .failed(let reason): Issue.record("a call failed: \(reason)")
                }
            }
            #expect(answered + refused == 1000)
            #expect(answered >= 64)
            #expect(after - before < 256 << 20, "the gateway grew from \(before) to \(after) bytes")
            let response = try await client.generate(GenerateRequest(input: .text(prompts[1].prompt)))
            #expect(response.generations.first?.tokenIDs == prompts[1].tokenIDs)
            print(
                "1,000 calls: \(answered) answered, \(refused) refused; gateway \(before >> 20) -> \(after >> 20) MiB"
            )
        }
    }

    /// The resident memory of a process in bytes.
    private static func residentBytes(_ process: ChildProcess) -> Int? {
        let file = "/proc/\(process.processIdentifier)/statm"
        guard let text = try? String(contentsOfFile: file, encoding: .utf8) else { return nil }
        let pages = text.split(separator: " ").dropFirst().first.flatMap { Int($0) }
        return pages.map { $0 * Int(getpagesize()) }
    }
}
