// SPDX-License-Identifier: Apache-2.0

import CommandKit
import Foundation
import SwitchModel
import Testing

@testable import switchyard

@Suite("switchyard train with experts on hosts", .serialized)
struct TrainClusterTests {
    /// A folder with lines to learn from and the weights that four steps around frozen experts end with in one process.
    private final class Run: Sendable {
        let folder: String
        let expected: Data

        init() async throws {
            self.folder = NSTemporaryDirectory() + "train-cluster-\(UUID().uuidString)"
            try FileManager.default.createDirectory(atPath: self.folder, withIntermediateDirectories: true)
            let words = ["horse", "kingdom", "night", "king", "sword", "crown", "heart"]
            let lines = (0..<60).map { "my \(words[$0 % 7]) and the \(words[$0 / 7 % 7])\t\(words[$0 / 7 % 7])" }
            try lines.joined(separator: "\n")
                .write(toFile: "\(self.folder)/data.tsv", atomically: true, encoding: .utf8)
            let result = try await Commands.run(TestCluster.executable, Self.arguments(self.folder, "here"))
            #expect(result.status == 0, "\(result.errors)")
            self.expected = try Self.weights(self.folder, "here")
        }

        deinit { try? FileManager.default.removeItem(atPath: self.folder) }

        static func arguments(_ folder: String, _ out: String, steps: Int = 4) -> [String] {
            [
                "train", TestCluster.miniature, "--experts", "frozen", "--data", "\(folder)/data.tsv", "--out",
                "\(folder)/\(out)", "--steps", "\(steps)", "--batch-examples", "8", "--save-every", "1", "--keep",
                "100",
                "--threads", "1", "--report-every", "1", "--eval-share", "0.1", "--eval-every", "2",
            ]
        }

        static func weights(_ folder: String, _ out: String) throws -> Data {
            try Data(contentsOf: URL(fileURLWithPath: "\(folder)/\(out)/latest/model.safetensors"))
        }

        func weights(_ out: String) throws -> Data { try Self.weights(self.folder, out) }

        /// Waits until a run has saved its first step, long before its last.
        func waitForFirstSave(_ out: String) async throws {
            for _ in 0..<60_000 {
                let names = (try? FileManager.default.contentsOfDirectory(atPath: "\(self.folder)/\(out)")) ?? []
                if names.contains(where: { $0.hasPrefix("step-") }) { return }
                try await Task.sleep(for: .milliseconds(2))
            }
            Issue.record("the run saved nothing in two minutes")
        }

        /// Trains with experts on hosts.
        func train(_ out: String, _ pools: [String], _ more: [String] = []) async throws -> Commands.Output {
            let arguments = Self.arguments(self.folder, out) + pools.flatMap { ["--pool", $0] } + more
            return try await Commands.run(TestCluster.executable, arguments)
        }
    }

    /// Starts hosts for the miniature's pools, and gives the body the pools' flags and the processes.
    private func withHosts(
        pools: Int,
        replicas: Int = 1,
        packing: WeightStorage? = nil,
        _ arguments: [String] = [],
        body: @escaping @Sendable ([String], [ChildProcess]) async throws -> Void
    ) async throws {
        let workspace = try ShardWorkspace.prepare(
            model: TestCluster.miniature,
            pools: pools,
            folder: nil,
            packing: packing
        )
        defer { workspace.discard() }
        let names = workspace.pools
        let hosts = names.flatMap { pool in
            (0..<replicas)
                .map { replica in
                    let addressFile = "\(workspace.folder)/\(pool)-\(replica).address"
                    return ChildSpecification(
                        name: "\(pool)/\(replica)",
                        arguments: [
                            "expert-host", "--shard", "\(workspace.folder)/\(pool)", "--listen", "127.0.0.1:0",
                            "--admin-listen", "off", "--threads", "1", "--address-file", addressFile,
                            "--exit-with-standard-input",
                        ] + arguments,
                        addressFile: addressFile
                    )
                }
        }
        try await ChildProcesses.run(
            hosts,
            executable: TestCluster.executable,
            onExit: .accept,
            startTimeout: .seconds(300),
            events: { _ in },
            body: { children in
                let running = children.running
                let flags = names.map { pool in
                    let addresses = running.filter { $0.name.hasPrefix("\(pool)/") }.map(\.address)
                    return "\(pool)=\(addresses.joined(separator: ","))"
                }
                try await body(flags, running)
            }
        )
    }

    @Test("One, two and four hosts, and two of each pool, end with the weights of one process, bit for bit")
    func hosts() async throws {
        let run = try await Run()
        for (pools, replicas) in [(1, 1), (2, 1), (4, 1), (2, 2)] {
            try await self.withHosts(pools: pools, replicas: replicas) { flags, _ in
                let out = "hosts-\(pools)-\(replicas)"
                let result = try await run.train(out, flags, ["--audit-percent", "20", "--hedge-percent", "50"])
                #expect(result.status == 0, "\(result.errors)")
                #expect(try run.weights(out) == run.expected, "\(pools) pools of \(replicas)")
            }
        }
    }

    @Test(
        "A host that is killed in the middle does not show, and a run whose last host dies waits and then ends in words"
    )
    func killed() async throws {
        let run = try await Run()
        try await self.withHosts(pools: 2, replicas: 2) { flags, hosts in
            let victim = try #require(hosts.first { $0.name.hasPrefix("pool-0/") })
            async let result = run.train("killed", flags)
            try await run.waitForFirstSave("killed")
            signal(SIGKILL, to: victim)
            let ended = try await result
            #expect(ended.status == 0, "\(ended.errors)")
            #expect(try run.weights("killed") == run.expected)
        }
        try await self.withHosts(pools: 2) { flags, hosts in
            async let result = run.train("alone", flags, ["--expert-wait-seconds", "2"])
            try await run.waitForFirstSave("alone")
            let victim = try #require(hosts.first { $0.name.hasPrefix("pool-1/") })
            signal(SIGKILL, to: victim)
            let ended = try await result
            #expect(ended.status != 0)
            #expect(ended.errors.contains("no expert host answered for"), "\(ended.errors)")
            #expect(ended.errors.contains("pool-1"), "\(ended.errors)")
        }
        // Other hosts, another number of them, and the run goes on to the same end.
        try await self.withHosts(pools: 1) { flags, _ in
            let result = try await run.train("alone", flags, ["--resume"])
            #expect(result.status == 0, "\(result.errors)")
            #expect(try run.weights("alone") == run.expected)
        }
    }

    @Test("Hosts whose weights are not exact are refused in words, and so are settings that do not fit")
    func refusals() async throws {
        let run = try await Run()
        try await self.withHosts(pools: 1, packing: .int8) { flags, _ in
            let result = try await run.train("int8", flags, ["--expert-wait-seconds", "2"])
            #expect(result.status != 0)
            #expect(result.errors.contains("it keeps weights in int8"), "\(result.errors)")
        }
        let pool = ["pool-0=127.0.0.1:1"]
        for (more, words) in [
            (["--snapshot-every", "5"], "snapshot-every"), (["--expert-dropout", "0.4"], "expert-dropout is 0.4"),
            (["--precision", "bfloat16"], "precision is bfloat16"), (["--lora-rank", "2"], "LoRA"),
        ] {
            let result = try await run.train("refused", pool, more)
            #expect(result.status != 0)
            #expect(result.errors.contains(words), "\(more): \(result.errors)")
        }
    }
}
