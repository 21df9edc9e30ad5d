// SPDX-License-Identifier: Apache-2.0

import CommandKit
import Foundation
import Synchronization
import Testing

@testable import switchyard

@Suite("switchyard train with experts that are trained on hosts", .serialized)
struct TrainShardsTests {
    @Test("One host, and two replicas of two shards, end with one process's weights and optimizer state")
    func hosts() async throws {
        let run = try await ShardRun()
        for (pools, replicas) in [(1, 1), (2, 2)] {
            try await withTrainingHosts(pools: pools, replicas: replicas) { flags, _ in
                let out = "hosts-\(pools)-\(replicas)"
                try run.expectSame(out, try await run.train(out, flags))
            }
        }
    }

    @Test("labml's experts, with their biases, end on hosts with one process's weights and optimizer state")
    func labml() async throws {
        let folder = NSTemporaryDirectory() + "train-text-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        try String(repeating: "It is the king.\nIt is the ghost, and night falls.\n", count: 60)
            .write(toFile: "\(folder)/text.txt", atomically: true, encoding: .utf8)
        let here = try await Commands.run(TestCluster.executable, TrainTextTests.arguments(folder, "here"))
        #expect(here.status == 0, "\(here.errors)")
        try await withTrainingHosts(pools: 2, replicas: 1) { flags, _ in
            let arguments =
                TrainTextTests.arguments(folder, "hosts") + ["--experts", "full"] + flags.flatMap { ["--pool", $0] }
            let hosts = try await Commands.run(TestCluster.executable, arguments)
            #expect(hosts.status == 0, "\(hosts.errors)")
            for name in ["model.safetensors", "resume/optimizer.safetensors"] {
                #expect(try ShardRun.file(folder, "hosts", name) == ShardRun.file(folder, "here", name), "\(name)")
            }
        }
    }

    @Test("Hosts that are killed, alone and with a replica, are replaced by repeating the log, and do not show")
    func killed() async throws {
        let run = try await ShardRun()
        try await withTrainingHosts(pools: 2, replicas: 1) { flags, hosts in
            async let result = run.train("alone", flags, ["--snapshot-every", "3"])
            try await run.wait(for: 2, of: "alone")
            try await killHost("pool-1/0", hosts)
            try await run.wait(for: 5, of: "alone")
            try await killHost("pool-0/0", hosts)
            try run.expectSame("alone", try await result)
        }
        let snapshots = "\(run.folder)/snapshots"
        try await withTrainingHosts(pools: 1, replicas: 2, snapshots: snapshots) { flags, hosts in
            async let result = run.train("replica", flags, ["--snapshot-every", "2"])
            try await run.wait(for: 3, of: "replica")
            try await killHost("pool-0/0", hosts)
            try await run.wait(for: 5, of: "replica")
            try await killHost("pool-0/1", hosts)
            try run.expectSame("replica", try await result)
            let kept = try FileManager.default.subpathsOfDirectory(atPath: snapshots).filter { $0.hasSuffix(".state") }
            #expect(!kept.isEmpty)
        }
    }

    @Test("A run whose trainer is killed goes on with the same hosts, with others, and in one process")
    func resumed() async throws {
        let run = try await ShardRun()
        try await withTrainingHosts(pools: 2, replicas: 1, snapshots: "\(run.folder)/kept") { flags, _ in
            let first = try await run.train("resumed", flags, steps: 4)
            #expect(first.status == 0, "\(first.errors)")
            let second = try await run.train("resumed", flags, steps: 6, ["--resume"])
            #expect(second.status == 0, "\(second.errors)")
        }
        let third = ShardRun.arguments(run.folder, "resumed", steps: 7) + ["--resume"]
        let here = try await Commands.run(TestCluster.executable, third)
        #expect(here.status == 0, "\(here.errors)")
        try await withTrainingHosts(pools: 4, replicas: 1) { flags, _ in
            try run.expectSame("resumed", try await run.train("resumed", flags, ["--resume"]))
        }
    }

    @Test("What cannot train is named in words: a host that serves, no host at all, and settings that do not fit")
    func refusals() async throws {
        let run = try await ShardRun()
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
            (["--snapshots", "x"], "add --train"),
            (["--train", "--max-rows", "9"], "max-rows is for hosts that serve"),
            (["--train", "--shard", "no-such-folder"], "no-such-folder"),
        ] {
            let result = try await Commands.run(TestCluster.executable, ["expert-host"] + arguments)
            #expect(result.status != 0 && result.errors.contains(words), "\(result.errors)")
        }
    }

    @Test("A host that trains refuses to serve, and says why")
    func serving() async throws {
        let run = try await ShardRun()
        try await withTrainingHosts(pools: 1, replicas: 1) { flags, _ in
            let arguments =
                ShardRun.arguments(run.folder, "frozen") + ["--experts", "frozen", "--expert-wait-seconds", "2"]
            let result = try await Commands.run(TestCluster.executable, arguments + ["--pool"] + flags)
            #expect(result.status != 0)
            #expect(result.errors.contains("this host trains, and does not serve"), "\(result.errors)")
        }
    }

    @Test("up --train starts hosts, trains with them, and stops them")
    func upTrain() async throws {
        let run = try await ShardRun()
        let arguments = Array(ShardRun.arguments(run.folder, "up").dropFirst(2))
        let result = try await Commands.run(
            TestCluster.executable,
            ["up", "--train", TestCluster.miniature, "--pools", "2", "--replicas", "2", "--"] + arguments
        )
        try run.expectSame("up", result)
        for (arguments, words) in [
            (["--train", TestCluster.miniature, "--threads", "2"], "--threads is for a cluster that serves"),
            (["--train", TestCluster.miniature, "--", "--pool", "a=b:1"], "--pool is set by up --train"),
            (
                ["--train", TestCluster.miniature, "--", "--experts", "frozen"],
                "experts is frozen, but the hosts of up"
            ),
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
