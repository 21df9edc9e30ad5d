// SPDX-License-Identifier: Apache-2.0

import CommandKit
import Foundation
import Testing

@testable import switchyard

@Suite("switchyard train with an adapter whose part for experts is trained on hosts", .serialized)
struct TrainAdapterShardsTests {
    /// Experts of some shards are changed by name, dense layers and attention too; of four shards, two have nothing to train.
    private static let adapter = [
        "--lora-rank", "3", "--lora-alpha", "5", "--lora-target", "q", "--lora-target", "*.mlp.wi", "--lora-target",
        "*.experts.expert_0.*", "--lora-target", "experts.expert_1.wi", "--lora-target", "experts.expert_5.wo",
    ]

    @Test(
        "One host, two replicas of two shards, and four shards end with one process's adapter, weights and optimizer state"
    )
    func hosts() async throws {
        let run = try await ShardRun(Self.adapter, experts: "lora")
        for (pools, replicas) in [(1, 1), (2, 2), (4, 1)] {
            try await withTrainingHosts(pools: pools, replicas: replicas) { flags, _ in
                let out = "hosts-\(pools)-\(replicas)"
                try run.expectSame(out, try await run.train(out, flags))
            }
        }
        let adamw = try await ShardRun(
            ["--lora-rank", "4", "--lora-target", "all-linear", "--lora-rank-stabilized", "--optimizer", "adamw"]
                + ["--precision", "bfloat16"],
            experts: "lora"
        )
        try await withTrainingHosts(pools: 2, replicas: 1) { flags, _ in
            try adamw.expectSame("adamw", try await adamw.train("adamw", flags))
        }
    }

    @Test(
        "Hosts that are killed get the weights below the adapter from the trainer or their shard again, and do not show"
    )
    func killed() async throws {
        let run = try await ShardRun(Self.adapter, experts: "lora")
        try await withTrainingHosts(pools: 2, replicas: 1) { flags, hosts in
            async let result = run.train("alone", flags, ["--snapshot-every", "3"])
            try await run.wait(for: 2, of: "alone")
            try await killHost("pool-1/0", hosts)
            try await run.wait(for: 5, of: "alone")
            try await killHost("pool-0/0", hosts)
            try run.expectSame("alone", try await result)
        }
        let parts = "\(run.folder)/parts"
        let cut = try await Commands.run(
            TestCluster.executable,
            ["shard", TestCluster.miniature, "--out", parts, "--pools", "2"]
        )
        #expect(cut.status == 0, "\(cut.errors)")
        let snapshots = "\(run.folder)/snapshots"
        try await withTrainingHosts(pools: 2, replicas: 2, snapshots: snapshots, shards: parts) {
            flags,
            hosts in
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

    @Test("A run goes on with the same hosts, in one process, and with others; and with up --train")
    func resumed() async throws {
        let run = try await ShardRun(Self.adapter, experts: "lora")
        try await withTrainingHosts(pools: 2, replicas: 1, snapshots: "\(run.folder)/kept") { flags, _ in
            let first = try await run.train("resumed", flags, steps: 3)
            #expect(first.status == 0, "\(first.errors)")
            let second = try await run.train("resumed", flags, steps: 5, ["--resume"])
            #expect(second.status == 0, "\(second.errors)")
        }
        let third = ShardRun.arguments(run.folder, "resumed", steps: 6) + run.more + ["--resume"]
        let here = try await Commands.run(TestCluster.executable, third)
        #expect(here.status == 0, "\(here.errors)")
        let last =
            Array(ShardRun.arguments(run.folder, "resumed").dropFirst(2)) + run.more + [
                "--experts", "lora", "--resume",
            ]
        let up = try await Commands.run(
            TestCluster.executable,
            ["up", "--train", TestCluster.miniature, "--pools", "4", "--"] + last
        )
        try run.expectSame("resumed", up)
        let wide = ShardRun.arguments(run.folder, "resumed") + ["--lora-rank", "4", "--resume"]
        let other = try await Commands.run(TestCluster.executable, wide)
        #expect(other.status != 0 && other.errors.contains("LoRA"), "\(other.errors)")
    }

    @Test("What does not go together is named in words: modes, adapters, and a host's shard of another checkpoint")
    func refusals() async throws {
        let run = try await ShardRun(Self.adapter, experts: "lora")
        let plain = ShardRun.arguments(run.folder, "refused")
        for (more, words) in [
            (["--experts", "lora"], "no adapter is described"),
            (["--experts", "full", "--lora-rank", "2"], "a LoRA adapter leaves the weights as they are"),
            (["--experts", "frozen", "--lora-rank", "2"], "leave out that experts are frozen"),
            (
                ["--lora-rank", "2", "--lora-target", "experts.expert_8.wi", "--pool", "a=127.0.0.1:1"],
                "names no matrix"
            ),
            (["--lora-rank", "2", "--pool", "a=127.0.0.1:1", "--audit-percent", "5"], "experts that stay as they are"),
        ] {
            let result = try await Commands.run(TestCluster.executable, plain + more)
            #expect(result.status != 0 && result.errors.contains(words), "\(more): \(result.errors)")
        }
        // A shard of other weights: those that a run in one process ended with.
        let other = "\(run.folder)/other"
        let cut = try await Commands.run(
            TestCluster.executable,
            ["shard", "\(run.reference.folder)/latest", "--out", other, "--pools", "1"]
        )
        #expect(cut.status == 0, "\(cut.errors)")
        try await withTrainingHosts(pools: 1, replicas: 1, shards: other) { flags, _ in
            let result = try await run.train("elsewhere", flags, ["--expert-wait-seconds", "2"])
            #expect(result.status != 0 && result.errors.contains("was cut from the checkpoint"), "\(result.errors)")
            let full = try await Commands.run(
                TestCluster.executable,
                plain + ["--pool"] + flags + ["--expert-wait-seconds", "2"]
            )
            #expect(full.status != 0 && full.errors.contains("is for runs with --experts lora"), "\(full.errors)")
        }
    }
}
