// SPDX-License-Identifier: Apache-2.0

import CommandKit
import Foundation
import Synchronization
import Testing

@testable import switchyard

@Suite("switchyard train with experts that are trained on hosts", .serialized)
struct TrainShardsTests {
    /// A folder with lines to learn from and what a run in one process ends with.
    private final class Run: Sendable {
        let folder: String
        let weights: Data
        let optimizer: Data

        init() async throws {
            self.folder = NSTemporaryDirectory() + "train-shards-\(UUID().uuidString)"
            try FileManager.default.createDirectory(atPath: self.folder, withIntermediateDirectories: true)
            let words = ["horse", "kingdom", "night", "king", "sword", "crown", "heart"]
            let lines = (0..<60).map { "my \(words[$0 % 7]) and the \(words[$0 / 7 % 7])\t\(words[$0 / 7 % 7])" }
            try lines.joined(separator: "\n")
                .write(toFile: "\(self.folder)/data.tsv", atomically: true, encoding: .utf8)
            let result = try await Commands.run(TestCluster.executable, Self.arguments(self.folder, "here"))
            #expect(result.status == 0, "\(result.errors)")
            self.weights = try Self.file(self.folder, "here", "model.safetensors")
            self.optimizer = try Self.file(self.folder, "here", "resume/optimizer.safetensors")
        }

        deinit { try? FileManager.default.removeItem(atPath: self.folder) }

        /// Eight steps with the default dropout and optimizer.
        static func arguments(_ folder: String, _ out: String, steps: Int = 8) -> [String] {
            [
                "train", TestCluster.miniature, "--data", "\(folder)/data.tsv", "--out", "\(folder)/\(out)", "--steps",
                "\(steps)", "--batch-examples", "6", "--save-every", "2", "--keep", "100", "--threads", "1",
                "--report-every", "1", "--eval-share", "0.1", "--eval-every", "4", "--part-tokens", "60",
            ]
        }

        static func file(_ folder: String, _ out: String, _ name: String) throws -> Data {
            try Data(contentsOf: URL(fileURLWithPath: "\(folder)/\(out)/latest/\(name)"))
        }

        func train(
            _ out: String,
            _ pools: [String],
            steps: Int = 8,
            _ more: [String] = []
        ) async throws -> Commands.Output {
            let arguments =
                Self.arguments(self.folder, out, steps: steps) + ["--experts", "full"]
                + pools.flatMap { ["--pool", $0] }
            return try await Commands.run(TestCluster.executable, arguments + more)
        }

        /// The same weights, and the same optimizer state.
        func expectSame(_ out: String, _ result: Commands.Output) throws {
            #expect(result.status == 0, "\(result.errors)")
            #expect(try Self.file(self.folder, out, "model.safetensors") == self.weights, "\(out)")
            #expect(try Self.file(self.folder, out, "resume/optimizer.safetensors") == self.optimizer, "\(out)")
        }

        /// Waits until a run has got so far.
        func wait(for step: Int, of out: String) async throws {
            for _ in 0..<60_000 {
                let metrics =
                    (try? String(contentsOfFile: "\(self.folder)/\(out)/metrics.jsonl", encoding: .utf8)) ?? ""
                if metrics.split(separator: "\n").count(where: { $0.contains("training") }) >= step { return }
                try await Task.sleep(for: .milliseconds(2))
            }
            Issue.record("the run did not get to step \(step) in two minutes")
        }
    }

    /// Starts hosts that train; one that dies is restarted on its address.
    private func withHosts(
        pools: Int,
        replicas: Int,
        snapshots: String? = nil,
        body: @escaping @Sendable ([String], @escaping @Sendable () -> [ChildProcess]) async throws -> Void
    ) async throws {
        let scratch = try ScratchFolder()
        defer { scratch.remove() }
        let names = (0..<pools).map { "pool-\($0)" }
        let hosts = names.flatMap { pool in
            (0..<replicas)
                .map { replica in
                    let addressFile = "\(scratch.path)/\(pool)-\(replica).address"
                    return ChildSpecification(
                        name: "\(pool)/\(replica)",
                        arguments: [
                            "expert-host", "--train", "--listen", "127.0.0.1:0", "--admin-listen", "off", "--threads",
                            "1",
                            "--address-file", addressFile, "--exit-with-standard-input",
                        ] + (snapshots.map { ["--snapshots", "\($0)/\(pool)-\(replica)"] } ?? []),
                        addressFile: addressFile
                    )
                }
        }
        let settings = ChildSettings(
            executable: TestCluster.executable,
            onExit: .restart,
            startTimeout: .seconds(300),
            events: { _ in }
        )
        try await ChildProcesses.run(hosts, settings: settings) { children in
            let running = children.running
            let flags = names.map { pool in
                let addresses = running.filter { $0.name.hasPrefix("\(pool)/") }.map(\.address)
                return "\(pool)=\(addresses.joined(separator: ","))"
            }
            try await body(flags) { children.running }
        }
    }

    private func kill(_ name: String, _ hosts: @Sendable () -> [ChildProcess]) async throws {
        for _ in 0..<1000 {
            if let victim = hosts().first(where: { $0.name == name }) {
                signal(SIGKILL, to: victim)
                return
            }
            try await Task.sleep(for: .milliseconds(20))
        }
        Issue.record("\(name) is not up")
    }

    @Test("One host, and two replicas of two shards, end with one process's weights and optimizer state")
    func hosts() async throws {
        let run = try await Run()
        for (pools, replicas) in [(1, 1), (2, 2)] {
            try await self.withHosts(pools: pools, replicas: replicas) { flags, _ in
                let out = "hosts-\(pools)-\(replicas)"
                try run.expectSame(out, try await run.train(out, flags))
            }
        }
    }

    @Test("Hosts that are killed, alone and with a replica, are replaced by repeating the log, and do not show")
    func killed() async throws {
        let run = try await Run()
        try await self.withHosts(pools: 2, replicas: 1) { flags, hosts in
            async let result = run.train("alone", flags, ["--snapshot-every", "3"])
            try await run.wait(for: 2, of: "alone")
            try await self.kill("pool-1/0", hosts)
            try await run.wait(for: 5, of: "alone")
            try await self.kill("pool-0/0", hosts)
            try run.expectSame("alone", try await result)
        }
        let snapshots = "\(run.folder)/snapshots"
        try await self.withHosts(pools: 1, replicas: 2, snapshots: snapshots) { flags, hosts in
            async let result = run.train("replica", flags, ["--snapshot-every", "2"])
            try await run.wait(for: 3, of: "replica")
            try await self.kill("pool-0/0", hosts)
            try await run.wait(for: 5, of: "replica")
            try await self.kill("pool-0/1", hosts)
            try run.expectSame("replica", try await result)
            let kept = try FileManager.default.subpathsOfDirectory(atPath: snapshots).filter { $0.hasSuffix(".state") }
            #expect(!kept.isEmpty)
        }
    }

    @Test("A run whose trainer is killed goes on with the same hosts, with others, and in one process")
    func resumed() async throws {
        let run = try await Run()
        try await self.withHosts(pools: 2, replicas: 1, snapshots: "\(run.folder)/kept") { flags, _ in
            let first = try await run.train("resumed", flags, steps: 4)
            #expect(first.status == 0, "\(first.errors)")
            let second = try await run.train("resumed", flags, steps: 6, ["--resume"])
            #expect(second.status == 0, "\(second.errors)")
        }
        let third = Run.arguments(run.folder, "resumed", steps: 7) + ["--resume"]
        let here = try await Commands.run(TestCluster.executable, third)
        #expect(here.status == 0, "\(here.errors)")
        try await self.withHosts(pools: 4, replicas: 1) { flags, _ in
            try run.expectSame("resumed", try await run.train("resumed", flags, ["--resume"]))
        }
    }

    @Test("What cannot train is named in words: a host that serves, no host at all, and settings that do not fit")
    func refusals() async throws {
        let run = try await Run()
        try await withHostProcess { host, _ in
            let result = try await run.train("serving", ["pool-0=\(host.address)"], ["--expert-wait-seconds", "2"])
            #expect(result.status != 0)
            #expect(result.errors.contains("it does not train; start it with --train"), "\(result.errors)")
        }
        let absent = try await run.train("absent", ["pool-0=127.0.0.1:1"], ["--expert-wait-seconds", "1"])
        #expect(absent.status != 0)
        #expect(absent.errors.contains("it cannot be reached"), "\(absent.errors)")
        for (more, words) in [
            (["--audit-percent", "5"], "audit-percent is for experts that stay as they are"),
            (["--lora-rank", "2"], "LoRA"),
        ] {
            let result = try await run.train("refused", ["pool-0=127.0.0.1:1"], more)
            #expect(result.status != 0)
            #expect(result.errors.contains(words), "\(more): \(result.errors)")
        }
        let names = try await run.train("refused", ["pool-0=dns:///localhost:1"])
        #expect(names.status != 0 && names.errors.contains("name each as host:port"), "\(names.errors)")
        for (arguments, words) in [
            (["--snapshots", "x"], "add --train"), (["--train", "--shard", "x"], "shard is for hosts that serve"),
        ] {
            let result = try await Commands.run(TestCluster.executable, ["expert-host"] + arguments)
            #expect(result.status != 0 && result.errors.contains(words), "\(result.errors)")
        }
    }

    @Test("A host that trains refuses to serve, and says why")
    func serving() async throws {
        let run = try await Run()
        try await self.withHosts(pools: 1, replicas: 1) { flags, _ in
            let arguments = Run.arguments(run.folder, "frozen") + ["--experts", "frozen", "--expert-wait-seconds", "2"]
            let result = try await Commands.run(TestCluster.executable, arguments + ["--pool"] + flags)
            #expect(result.status != 0)
            #expect(result.errors.contains("this host trains, and does not serve"), "\(result.errors)")
        }
    }

    @Test("up --train starts hosts, trains with them, and stops them")
    func upTrain() async throws {
        let run = try await Run()
        let arguments = Array(Run.arguments(run.folder, "up").dropFirst(2))
        let result = try await Commands.run(
            TestCluster.executable,
            ["up", "--train", TestCluster.miniature, "--pools", "2", "--replicas", "2", "--"] + arguments
        )
        try run.expectSame("up", result)
        for (arguments, words) in [
            (["--train", TestCluster.miniature, "--threads", "2"], "--threads is for a cluster that serves"),
            (["--train", TestCluster.miniature, "--", "--pool", "a=b:1"], "--pool is set by up --train"),
            ([TestCluster.miniature, "--", "--data", "x"], "add --train"),
            (["--", TestCluster.miniature, "--data"], "add --train"),
            (["--train", "--", "no-such-model", "--data", "x", "--out", "x"], "no-such-model"),
            ([], "Missing expected argument '<model>'"),
        ] {
            let refused = try await Commands.run(TestCluster.executable, ["up"] + arguments)
            #expect(refused.status != 0 && refused.errors.contains(words), "\(refused.errors)")
        }
    }
}
