// SPDX-License-Identifier: Apache-2.0

import CommandKit
import FaultTools
import Foundation
import SwitchyardClient
import SwitchyardProtos
import Synchronization
import Testing

@testable import switchyard

@Suite("Rollouts across processes", .serialized)
struct RolloutTests {
    /// A folder with two checkpoints of the miniature's shape: `plain`, the miniature, and `tuned`, which answers otherwise.
    final class Checkpoints: Sendable {
        let path: String
        private let scratch: ScratchFolder

        init(pools: Int) throws {
            self.scratch = try ScratchFolder()
            self.path = "\(self.scratch.path)/checkpoints"
            let model = "\(self.scratch.path)/tuned"
            let files = FileManager.default
            try files.createDirectory(atPath: self.path, withIntermediateDirectories: true)
            try files.copyItem(atPath: TestCluster.miniature, toPath: model)
            try FaultWorkspace.tune("\(model)/model.safetensors")
            for (source, name) in [(TestCluster.miniature, "plain"), (model, "tuned")] {
                _ = try ShardWorkspace.prepare(model: source, pools: pools, folder: "\(self.path)/\(name)")
            }
        }

        func remove() { self.scratch.remove() }

        func record(_ service: String) -> String? {
            try? String(contentsOfFile: "\(self.path)/serving-\(service).json", encoding: .utf8)
        }
    }

    /// What each checkpoint answers to each prompt, by fingerprint.
    final class KnownAnswers: Sendable {
        private let known = Mutex<[UInt64: [String: [UInt32]]]>([:])

        /// Asks for every prompt's answer from the only checkpoint that is served.
        func learn(_ client: GatewayClient) async throws {
            for prompt in try TestCluster.prompts() {
                let response = try await client.generate(RolloutTests.request(prompt.prompt))
                let usage = try #require(response.usage)
                self.known.withLock {
                    $0[usage.modelFingerprint, default: [:]][prompt.prompt] = response.generations.first?.tokenIDs
                }
            }
        }

        var fingerprints: Set<UInt64> { self.known.withLock { Set($0.keys) } }

        /// Whether an answer is the one of the checkpoint that it names.
        func matches(_ response: GenerateResponse, _ prompt: String) -> Bool {
            guard let usage = response.usage, let tokens = response.generations.first?.tokenIDs else { return false }
            return self.known.withLock { $0[usage.modelFingerprint]?[prompt] } == tokens
        }

        /// Prompts that the two checkpoints answer differently.
        var different: Int {
            self.known.withLock { known in
                let answers = Array(known.values)
                guard answers.count == 2 else { return 0 }
                return answers[0].filter { answers[1][$0.key] != $0.value }.count
            }
        }
    }

    /// Requests that run until they are stopped.
    final class Load: Sendable {
        struct Counts: Sendable {
            var answered = 0
            var mixed = 0
            var failures: [String] = []
            var models: Set<UInt64> = []
        }

        let counts = Mutex(Counts())
        private let isOver = Mutex(false)

        func stop() { self.isOver.withLock { $0 = true } }

        func run(_ address: String, _ known: KnownAnswers, clients: Int) async throws {
            let prompts = try TestCluster.prompts().map(\.prompt)
            try await GatewayClient.with(endpoint: Endpoint(parsing: address)) { client in
                await withDiscardingTaskGroup { group in
                    for first in 0..<clients {
                        group.addTask {
                            var turn = first
                            while !self.isOver.withLock({ $0 }) {
                                let prompt = prompts[turn % prompts.count]
                                // The seed changes nothing but the request's bytes, and so its checkpoint.
                                do {
                                    let response = try await client.generate(
                                        RolloutTests.request(prompt, seed: UInt64(turn))
                                    )
                                    let isRight = known.matches(response, prompt)
                                    self.counts.withLock {
                                        $0.answered += 1
                                        if !isRight { $0.mixed += 1 }
                                        $0.models.insert(response.usage?.modelFingerprint ?? 0)
                                    }
                                } catch {
                                    self.counts.withLock { $0.failures.append("\(error)") }
                                }
                                turn += clients
                            }
                        }
                    }
                }
            }
        }
    }

    static func request(_ prompt: String, seed: UInt64 = 0) -> GenerateRequest {
        GenerateRequest(
            input: .text(prompt),
            parameters: GenerationParameters(maxNewTokens: 16, seed: seed),
            dropPolicy: DropPolicy(strict: true)
        )
    }

    static func rollout(_ arguments: [String], at address: String) async throws -> String {
        let result = try await Commands.run(TestCluster.executable, ["rollout"] + arguments + ["--gateway", address])
        #expect(result.status == 0, "\(arguments): \(result.text) \(result.errors)")
        return result.text
    }

    @Test("Checkpoints change back and forth under load: no request fails, and none is of two checkpoints")
    func changes() async throws {
        let checkpoints = try Checkpoints(pools: 2)
        defer { checkpoints.remove() }
        let flags = ["--checkpoints", checkpoints.path]
        try await TestCluster.runProcesses(pools: 2, gatewayArguments: flags, hostArguments: flags) { cluster in
            let address = cluster.gatewayAddress
            let known = KnownAnswers()
            try await GatewayClient.with(endpoint: Endpoint(parsing: address)) { client in
                try await known.learn(client)
                _ = try await Self.rollout(["tuned", "--promote"], at: address)
                try await known.learn(client)
            }
            #expect(known.fingerprints.count == 2)
            #expect(known.different > 0, "the two checkpoints must answer differently")
            let load = Load()
            async let running: Void = load.run(address, known, clients: 4)
            for name in ["plain", "tuned", "plain"] {
                _ = try await Self.rollout([name, "--canary", "50%"], at: address)
                try await Task.sleep(for: .milliseconds(500))
                #expect(try await Self.rollout([name, "--promote"], at: address).contains("\(name) is served"))
            }
            // There and back.
            _ = try await Self.rollout(["tuned", "--canary", "0.5"], at: address)
            #expect(try await Self.rollout(["--status"], at: address).contains("tuned"))
            _ = try await Self.rollout(["--back"], at: address)
            load.stop()
            try await running
            let counts = load.counts.withLock { $0 }
            #expect(counts.failures.isEmpty, "\(counts.failures.prefix(3))")
            #expect(counts.mixed == 0 && counts.answered > 0, "\(counts.mixed) of \(counts.answered)")
            #expect(counts.models == known.fingerprints)
            let status = try await Self.rollout(["--status"], at: address)
            #expect(status.contains("no rollout") && status.contains("plain"))
            #expect(checkpoints.record("gateway")?.contains("plain") == true)
            #expect(checkpoints.record("experts")?.contains("plain") == true)
        }
    }

    @Test(
        "A gateway and a host killed in the middle start again with the old checkpoint; after a promotion, with the new one"
    )
    func killed() async throws {
        let checkpoints = try Checkpoints(pools: 2)
        defer { checkpoints.remove() }
        let flags = ["--checkpoints", checkpoints.path]
        try await TestCluster.runProcesses(
            pools: 2,
            gatewayArguments: flags,
            hostArguments: flags,
            onGatewayExit: .restart,
            onHostExit: .restart
        ) { cluster in
            let address = cluster.gatewayAddress
            try await GatewayClient.with(endpoint: Endpoint(parsing: address)) { client in
                let prompt = try #require(try TestCluster.prompts().first).prompt
                func fingerprint() async throws -> UInt64 {
                    let end = ContinuousClock.now.advanced(by: .seconds(240))
                    while true {
                        do {
                            let usage = try #require(try await client.generate(Self.request(prompt)).usage)
                            return usage.modelFingerprint
                        } catch {
                            guard .now < end else { throw error }
                            try await Task.sleep(for: .milliseconds(100))
                        }
                    }
                }
                let old = try await fingerprint()
                _ = try await Self.rollout(["tuned", "--canary", "100%"], at: address)
                let new = try await fingerprint()
                #expect(new != old)
                // A host: what it held beside comes back, since the gateway asks for it.
                signal(SIGKILL, to: try #require(cluster.hosts.running.first))
                #expect(try await fingerprint() == new)
                // The gateway: nothing was promoted.
                signal(SIGKILL, to: try #require(cluster.gateway.running.first))
                #expect(try await fingerprint() == old)
                #expect(checkpoints.record("gateway") == nil && checkpoints.record("experts") == nil)
                // The hosts still hold the new one, so it is soon there again.
                _ = try await Self.rollout(["tuned", "--promote"], at: address)
                #expect(try await fingerprint() == new)
                signal(SIGKILL, to: try #require(cluster.hosts.running.last))
                #expect(try await fingerprint() == new)
            }
        }
    }

    @Test("A rollout that cannot be is refused in words, and what is served stays")
    func refused() async throws {
        let checkpoints = try Checkpoints(pools: 2)
        defer { checkpoints.remove() }
        // Hosts without the folder.
        try await TestCluster.runProcesses(pools: 2, gatewayArguments: ["--checkpoints", checkpoints.path]) { cluster in
            for (name, reason) in [
                ("absent", "is not there"), ("../plain", "name is"), ("tuned", "--checkpoints DIR"),
                ("plain", "served already"),
            ] {
                let result = try await Commands.run(
                    TestCluster.executable,
                    ["rollout", name, "--gateway", cluster.gatewayAddress]
                )
                #expect(result.status != 0)
                #expect(result.errors.contains(reason), "\(name): \(result.errors)")
            }
            let result = try await Commands.run(
                TestCluster.executable,
                ["rollout", "--status", "--gateway", cluster.gatewayAddress]
            )
            #expect(result.text.contains("no rollout"), "\(result.text)")
        }
    }
}
