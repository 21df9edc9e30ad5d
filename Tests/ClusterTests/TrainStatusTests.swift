// SPDX-License-Identifier: Apache-2.0

import CommandKit
import ExpertTraining
import Foundation
import Synchronization
import TensorKernels
import Testing

@testable import switchyard

@Suite("What is seen of a training run and its hosts", .serialized)
struct TrainStatusTests {
    private static func command(_ arguments: [String]) async throws -> Commands.Output {
        try await Commands.run(TestCluster.executable, ["status"] + arguments)
    }

    @Test("status shows a run, its hosts, and one that is killed meanwhile; --watch goes on until the run's end")
    func killed() async throws {
        let run = try await ShardRun()
        let snapshots = "\(run.folder)/snapshots"
        try await withTrainingHosts(pools: 1, replicas: 2, snapshots: snapshots, onExit: .accept) { flags, hosts in
            async let result = run.train("seen", flags, steps: 60, ["--snapshot-every", "2", "--save-every", "100"])
            let folder = "\(run.folder)/seen"
            let calm = try #require(
                try await run.status(of: "seen") { status in
                    status.step >= 4
                        && status.shards.flatMap(\.replicas)
                            .allSatisfy { $0.state == "serving" && $0.snapshotStep != nil }
                }
            )
            #expect(calm.state == .running && calm.steps == 60 && calm.silence(now: calm.written) == nil)
            #expect((calm.loss ?? 0) > 0 && (calm.tokensPerSecond ?? 0) > 0 && calm.logMemoryLimit == 1 << 30)
            for replica in calm.shards.flatMap(\.replicas) {
                #expect(
                    replica.memoryChecks > 0 && replica.memoryChanges == 0 && replica.differences == 0,
                    "\(replica)"
                )
                #expect((0...4).contains(replica.lag ?? -1) && (replica.snapshotStep ?? 0) <= calm.step, "\(replica)")
                #expect((0..<120).contains(replica.snapshotAge ?? -1), "\(replica)")
            }
            async let watched = Self.command(["--run", folder, "--watch"])
            let victim = try #require(hosts().first { $0.name == "pool-0/1" })
            try await killHost("pool-0/1", hosts)
            let dead = try #require(
                try await run.status(of: "seen") { $0.shards.flatMap(\.replicas).contains { $0.state == "away" } }
            )
            let away = try #require(dead.shards[0].replicas.first { $0.state == "away" })
            #expect(away.target == victim.address && away.trouble == "it cannot be reached" && away.lag == nil)
            let text = try await Self.command(["--run", folder])
            #expect(text.status == 0 && text.text.hasPrefix("run running: step "), "\(text)")
            for words in [
                "of 60, loss ", "tokens/s", "\(victim.address)  away", "cannot be reached", " right",
            ] {
                #expect(text.text.contains(words), "\(words): \(text.text)")
            }
            // The other one may be a call behind at that moment.
            #expect(text.text.contains("serving") || text.text.contains("behind "), "\(text.text)")
            #expect(text.text.split(separator: "\n").allSatisfy { $0.count <= 80 }, "\(text.text)")
            let json = try await Self.command(["--run", folder, "--json"])
            let object = try #require(try JSONSerialization.jsonObject(with: Data(json.text.utf8)) as? [String: Any])
            #expect(object["state"] as? String == "running" && (object["shards"] as? [Any])?.count == 1)
            let trained = try await result
            #expect(trained.status == 0, "\(trained.errors)")
            let screens = try await watched
            #expect(screens.status == 0 && !screens.text.contains("\u{1B}"), "\(screens.errors)")
            let states = screens.text.split(separator: "\n").filter { $0.hasPrefix("run ") }
            #expect(states.count >= 2 && states.last?.hasPrefix("run ended: step 60 of 60") == true, "\(states)")
        }
    }

    @Test("A run whose trainer was killed is called silent, and a folder without a run is named")
    func silent() async throws {
        let run = try await ShardRun()
        let end = try TrainingStatus(of: run.reference.folder)
        #expect(end.state == .ended && end.step == 8 && end.savedStep == 8 && end.shards.isEmpty)
        var dead = end
        dead.state = .running
        #expect(dead.silence(now: dead.written)?.contains("is gone; go on with --resume") == true)
        let folder = "\(run.folder)/dead"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        try dead.json(isPretty: true).write(toFile: "\(folder)/status.json", atomically: true, encoding: .utf8)
        let shown = try await Self.command(["--run", folder])
        let words = shown.text.split { $0.isWhitespace }.joined(separator: " ")
        #expect(words.hasPrefix("run silent: ") && words.contains("is gone; go on with --resume"), "\(shown)")
        dead.machine = "another"
        #expect(dead.silence(now: dead.written + 5) == nil)
        #expect(dead.silence(now: dead.written + 60)?.contains("it has said nothing for") == true)
        let none = try await Self.command(["--run", "\(run.folder)/nothing"])
        #expect(none.status != 0 && none.errors.contains("nothing/status.json cannot be read"), "\(none.errors)")
        try "{}".write(toFile: "\(run.folder)/status.json", atomically: true, encoding: .utf8)
        let other = try await Self.command(["--run", run.folder])
        #expect(other.status != 0 && other.errors.contains("is no status of a run"), "\(other.errors)")
        for (more, words) in [(["--experts"], "--experts"), (["--endpoint", "127.0.0.1:1"], "--endpoint")] {
            let refused = try await Self.command(["--run", run.folder] + more)
            #expect(refused.status != 0 && refused.errors.contains("\(words) is for a cluster"), "\(refused.errors)")
        }
    }

    @Test(
        "The report names what recovers, what is behind, and wrong checksums, within the terminal's width",
        arguments: [80, 120]
    )
    func report(columns: Int) throws {
        func replica(_ target: String, _ state: String, lag: Int, changes: Int = 0) -> String {
            """
            {"shard": "pool-0", "target": "\(target)", "phase": "live", "state": "\(state)", "lag": \(lag), "calls_behind": 77,
             "snapshot_step": 100, "snapshot_age": 7, "memory_checks": 131, "memory_changes": \(changes), "agreements": 131,
             "differences": 0}
            """
        }
        let shard = """
            {"name": "pool-0", "step": 140, "log_bytes": 3200000, "log_file_bytes": 1200000, "log_steps": 40, "kept_step": 100,
             "log_trouble": "the log's file in /log is torn: it ends 5 bytes too early",
             "kept_age": 61, "failures": 2, "repeated_calls": 96, "recovery_count": 1,
             "replicas": [\(replica("a.example:7401", "recovering", lag: 12)), \(replica("b.example:7401", "behind", lag: 3, changes: 1))],
             "recoveries": [{"target": "a.example:7401", "step": 90, "steps": 6, "calls": 48, "load_seconds": 0.25,
                             "replay_seconds": 2, "first_calls_seconds": 2.5, "first_steps_seconds": 4, "age": 3}]}
            """
        let folder = NSTemporaryDirectory() + "train-status-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        try """
        {"state": "running", "written": 1000, "process": 1, "machine": "elsewhere", "step": 140, "steps": 160, "loss": "nan",
         "tokens_per_second": 5210.4, "save_failures": 0, "log_memory_limit": 4000000, "log_file_limit": 16000000000,
         "shards": [\(shard)]}
        """
        .write(toFile: "\(folder)/status.json", atomically: true, encoding: .utf8)
        let status = try TrainingStatus(of: folder)
        let text = TrainingReport(status: status, now: 1002, columns: columns).text
        #expect(text.split(separator: "\n").allSatisfy { $0.count <= columns }, "\(text)")
        let line = text.split { $0.isWhitespace }.joined(separator: " ")
        for words in [
            "run running: step 140 of 160, loss nan, 5210 tokens/s, nothing saved yet",
            "log: 2.0 MB of 4.0 MB in memory, 1.2 MB of 16.0 GB in files, 40 steps; calls repeated: 96, failed: 2",
            "recovering", "behind", "step 100, 9 s ago", "262 right, 0 differed, 1 changed", "is torn",
            "the trainer keeps the state after step 100, 63 s ago",
            "a.example:7401 was back 5 s ago: step 90's state in 0.25 s, 48 calls repeated in 2.00 s that took 2.50 s at first",
        ] {
            #expect(line.contains(words), "\(words): \(text)")
        }
        let silent = TrainingReport(status: status, now: 1060, columns: columns).text
        #expect(silent.hasPrefix("run silent: ") && silent.contains("process is 1"), "\(silent)")
    }

    @Test("Metrics of trainer and hosts tell the run that they are of, with a host that repeats the log")
    func metrics() async throws {
        let run = try await ShardRun()
        let begin = Date().timeIntervalSince1970
        let snapshots = "\(run.folder)/snapshots"
        try await withTrainingHosts(pools: 2, replicas: 1, snapshots: snapshots, adminListen: "127.0.0.1:0") {
            flags,
            hosts in
            let address = "\(run.folder)/admin.address"
            async let result = run.train(
                "metrics",
                flags,
                steps: 40,
                [
                    "--admin-listen", "127.0.0.1:0", "--admin-address-file", address, "--snapshot-every", "3",
                    "--save-every", "100",
                ]
            )
            try await run.wait(for: 5, of: "metrics")
            try await killHost("pool-1/0", hosts)
            try await run.wait(for: 20, of: "metrics")
            let admin = try String(contentsOfFile: address, encoding: .utf8)
                .trimmingCharacters(in: .whitespacesAndNewlines)
            let trainer = try await Scrape(address: admin)
            try await Self.check(trainer: trainer)
            let trained = try await result
            #expect(trained.status == 0, "\(trained.errors)")
            // After the last step nothing changes any more.
            let scrapes = [try await Scrape(try #require(hosts().first)), try await Scrape(try #require(hosts().last))]
            let end = Date().timeIntervalSince1970
            for scrape in scrapes {
                #expect(try await scrape.promtool().isEmpty)
                #expect(scrape["switchyard_training_host_step"] == 40 && scrape["switchyard_training_host_loaded"] == 1)
                #expect(scrape["switchyard_training_host_waiting_calls"] == 0)
                let written = scrape["switchyard_training_host_snapshot_timestamp_seconds"] ?? 0
                #expect((begin...end).contains(written), "\(written)")
                let snapshots = scrape["switchyard_training_host_snapshots_total{outcome=\"ok\"}"] ?? 0
                #expect((1...14).contains(snapshots), "\(snapshots)")
                #expect(scrape["switchyard_training_host_snapshots_total{outcome=\"failed\"}"] == 0)
                // Every row that was computed was in a call, and waited for its turn.
                let calls = scrape["switchyard_training_host_compute_seconds_count"] ?? 0
                #expect(calls > 0 && scrape["switchyard_training_host_queue_seconds_count"] == calls)
                #expect((scrape["switchyard_training_host_compute_seconds_sum"] ?? 0) > 0)
                #expect(scrape.sum("switchyard_training_host_rows_total") >= calls)
            }
            let rows = { (scrape: Scrape, kind: String) in
                scrape["switchyard_training_host_rows_total{kind=\"\(kind)\"}"] ?? 0
            }
            #expect(rows(scrapes[0], "forward") > rows(scrapes[0], "backward") && rows(scrapes[0], "backward") > 0)
            #expect(rows(scrapes[0], "replay") == 0)
        }
    }

    /// What the trainer says in the middle of a run of 40 steps.
    private static func check(trainer: Scrape) async throws {
        #expect(try await trainer.promtool().isEmpty)
        let steps = trainer["switchyard_training_steps_total"] ?? 0
        #expect((20...40).contains(steps), "\(steps)")
        #expect(trainer.sum("switchyard_training_replica_state") == 2)
        #expect(trainer["switchyard_training_recoveries_total{shard=\"pool-1\"}"] == 2, "\(trainer.text)")
        #expect(trainer["switchyard_training_recoveries_total{shard=\"pool-0\"}"] == 1)
        #expect((trainer["switchyard_training_replica_failures_total{shard=\"pool-1\"}"] ?? 0) > 0)
        let checks = trainer.sum("switchyard_training_replica_checks_total", "outcome=\"unchanged\"")
        #expect((2 * steps - 2...2 * steps + 8).contains(checks), "\(checks) checks in \(steps) steps of two shards")
        #expect(trainer.sum("switchyard_training_replica_checks_total", "outcome=\"changed\"") == 0)
        #expect(trainer.sum("switchyard_training_replica_checks_total", "outcome=\"differed\"") == 0)
        #expect(trainer["switchyard_training_log_limit_bytes"] == Double(1 << 30))
        #expect(trainer.sum("switchyard_training_log_file_bytes") == 0)
        let log = trainer.sum("switchyard_training_log_bytes")
        #expect((0..<Double(64 << 20)).contains(log), "\(log)")
        for direction in ["sent", "received"] {
            let bytes = trainer.sum("switchyard_training_wire_bytes_total", "direction=\"\(direction)\"")
            // 20 bytes for each of 128 elements of a row; dozens of rows per step.
            #expect(bytes > steps * 10_000, "\(bytes) \(direction) in \(steps) steps")
        }
        #expect((trainer["switchyard_training_tokens_per_second"] ?? 0) > 0)
    }

    @Test(
        "Replicas with the portable kernels and with this machine's best ones hold the same bits, and end with one process's"
    )
    func kernels() async throws {
        let run = try await ShardRun()
        let log = ProcessLog()
        try await withTrainingHosts(pools: 1, replicas: 2, kernels: ["portable", nil], log: log) { flags, _ in
            try run.expectSame("levels", try await run.train("levels", flags))
            let replicas = try #require(try TrainingStatus(of: "\(run.folder)/levels").shards.first).replicas
            #expect(replicas.allSatisfy { $0.differences == 0 && $0.agreements > 0 }, "\(replicas)")
        }
        let lines = log.lines.filter { $0.contains("waiting for a trainer") }
        #expect(lines.contains { $0.hasPrefix("[pool-0/0]") && $0.contains("portable") }, "\(lines)")
        let best = try #require(lines.first { $0.hasPrefix("[pool-0/1]") })
        #expect(best.contains("portable") == (KernelLevel.best == .scalar), "\(best)")
    }
}
