// SPDX-License-Identifier: Apache-2.0

import Foundation
import PeerTools
import Telemetry
import Testing

@testable import switchyard

@Suite("switchyard train and evaluate", .serialized)
struct TrainCommandTests {
    private static let configuration = """
        {"model_type": "switch_transformers", "architectures": ["SwitchTransformersForConditionalGeneration"],
         "vocab_size": 2048, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_heads": 2, "num_layers": 2,
         "num_decoder_layers": 2, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1, "num_experts": 4,
         "expert_capacity": 64, "decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0,
         "feed_forward_proj": "relu", "tie_word_embeddings": true}
        """

    /// A folder with a configuration and sixty lines.
    private func inFolder(_ body: (String) async throws -> Void) async throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("train-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        try Self.configuration.write(toFile: "\(folder)/config.json", atomically: true, encoding: .utf8)
        let words = ["horse", "kingdom", "night", "king", "sword", "crown", "heart"]
        let lines = (0..<60).map { "my \(words[$0 % 7]) and the \(words[$0 / 7 % 7])\t\(words[$0 / 7 % 7])" }
        try lines.joined(separator: "\n").write(toFile: "\(folder)/data.tsv", atomically: true, encoding: .utf8)
        try await body(folder)
    }

    private func arguments(_ folder: String, _ out: String, steps: Int = 30) -> [String] {
        [
            "train", "--new", "\(folder)/config.json", "--tokenizer", TestCluster.miniature, "--data",
            "\(folder)/data.tsv", "--out", "\(folder)/\(out)", "--steps", "\(steps)", "--batch-examples", "4",
            "--save-every", "1", "--keep", "2", "--threads", "1", "--report-every", "1",
        ]
    }

    private func weights(_ folder: String, _ out: String) throws -> Data {
        try Data(contentsOf: URL(fileURLWithPath: "\(folder)/\(out)/latest/model.safetensors"))
    }

    /// Steps of a run's saves.
    private func steps(_ folder: String, _ out: String) -> [Int] {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: "\(folder)/\(out)")) ?? []
        return names.filter { $0.hasPrefix("step-") }.compactMap { Int($0.dropFirst(5)) }.sorted()
    }

    /// Starts a run, sends a signal once a step is saved, and returns how it ended.
    private func interrupt(
        _ arguments: [String],
        _ folder: String,
        _ out: String,
        after step: Int,
        with signal: Int32
    ) async throws -> Int32 {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: TestCluster.executable)
        process.arguments = arguments
        process.standardOutput = FileHandle.nullDevice
        process.standardError = FileHandle.nullDevice
        let (ended, source) = AsyncStream.makeStream(of: Void.self)
        process.terminationHandler = { _ in source.finish() }
        try process.run()
        while process.isRunning, (self.steps(folder, out).last ?? -1) < step {
            try await Task.sleep(for: .milliseconds(2))
        }
        kill(process.processIdentifier, signal)
        for await _ in ended {}
        return process.terminationReason == .exit ? process.terminationStatus : -process.terminationStatus
    }

    @Test("killed with SIGKILL at several moments and resumed, a run ends with the same bits")
    func killed() async throws {
        try await self.inFolder { folder in
            let whole = try await Commands.run(TestCluster.executable, self.arguments(folder, "whole"))
            #expect(whole.status == 0, "\(whole.errors)")
            var kills = 0
            for step in [2, 5, 6, 11, 19, 26] {
                let status = try await self.interrupt(
                    self.arguments(folder, "killed") + ["--resume-if-saved"],
                    folder,
                    "killed",
                    after: step,
                    with: SIGKILL
                )
                if status == -SIGKILL { kills += 1 }
            }
            #expect(kills >= 4, "the run ended before it was killed")
            let ended = try await Commands.run(
                TestCluster.executable,
                self.arguments(folder, "killed") + ["--resume"]
            )
            #expect(ended.status == 0, "\(ended.errors)")
            #expect(try self.weights(folder, "killed") == self.weights(folder, "whole"))
            // Nothing half written stays, and one line tells of each step.
            let names = try FileManager.default.contentsOfDirectory(atPath: "\(folder)/killed").sorted()
            #expect(
                names == ["latest", "metrics.jsonl", "status.json", "step-00000029", "step-00000030", "training.svg"]
            )
            let log = try String(contentsOfFile: "\(folder)/killed/metrics.jsonl", encoding: .utf8)
            let steps = try log.split(separator: "\n")
                .map { line in
                    try #require(JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any])["step"] as? Int
                }
            #expect(steps == Array(1...30))
        }
    }

    @Test("SIGTERM saves after the step and ends with 0, Ctrl-C with 130")
    func stopped() async throws {
        try await self.inFolder { folder in
            for (signal, status) in [(SIGTERM, Int32(0)), (SIGINT, 130)] {
                let arguments = self.arguments(folder, "stopped-\(signal)", steps: 100_000) + ["--save-every", "5"]
                let ended = try await self.interrupt(
                    arguments,
                    folder,
                    "stopped-\(signal)",
                    after: 5,
                    with: signal
                )
                #expect(ended == status)
                let last = try #require(self.steps(folder, "stopped-\(signal)").last)
                let log = try String(contentsOfFile: "\(folder)/stopped-\(signal)/metrics.jsonl", encoding: .utf8)
                #expect(log.split(separator: "\n").last?.contains("\"step\":\(last)") == true)
            }
        }
    }

    @Test("a full disk ends no run and damages no save; with room again it goes on")
    func fullDisk() async throws {
        guard geteuid() == 0 else { return }
        try await self.inFolder { folder in
            let disk = "\(folder)/disk"
            try FileManager.default.createDirectory(atPath: disk, withIntermediateDirectories: true)
            // Room for a few saves, but not for all.
            let mount = try await Commands.run("/bin/mount", ["-t", "tmpfs", "-o", "size=1500k", "none", disk])
            // A container may lack the right to mount.
            guard mount.status == 0 else { return }
            let arguments = self.arguments(folder, "disk/run", steps: 6) + ["--keep", "9", "--report-every", "3"]
            let full = try await Commands.run(TestCluster.executable, arguments)
            let saves = self.steps(folder, "disk/run")
            #expect(full.status == 1)
            #expect(full.text.contains("the run goes on, and tries again"), "\(full.text)")
            #expect(full.errors.contains("make room"), "\(full.errors)")
            #expect(!saves.isEmpty && (saves.last ?? 6) < 6)
            let more = try await Commands.run("/bin/mount", ["-o", "remount,size=16m", disk])
            #expect(more.status == 0)
            let resumed = try await Commands.run(TestCluster.executable, arguments + ["--resume"])
            #expect(resumed.status == 0, "\(resumed.errors)")
            let whole = try await Commands.run(TestCluster.executable, self.arguments(folder, "whole", steps: 6))
            #expect(whole.status == 0)
            #expect(try self.weights(folder, "disk/run") == self.weights(folder, "whole"))
            _ = try await Commands.run("/bin/umount", [disk])
        }
    }

    @Test("a save is served as it is, and evaluate measures it")
    func served() async throws {
        try await self.inFolder { folder in
            let made = try await Commands.run(
                TestCluster.executable,
                self.arguments(folder, "run", steps: 8) + ["--eval-share", "0.2", "--save-every", "8"]
            )
            #expect(made.status == 0, "\(made.errors)")
            #expect(made.text.contains("evaluation after step 0") && made.text.contains("evaluation after step 8"))
            #expect(made.text.contains("encoder 1") && made.text.contains("x even"))
            #expect(made.text.contains("Next:   switchyard up \(folder)/run/step-00000008"))
            let save = "\(folder)/run/latest"
            let answer = try await Commands.run(
                TestCluster.executable,
                ["generate", "--local", save, "--max-new-tokens", "3", "my horse"]
            )
            #expect(answer.status == 0, "\(answer.errors)")
            let measured = try await Commands.run(
                TestCluster.executable,
                [
                    "evaluate", save, "--data", "\(folder)/data.tsv", "--generate", "--examples", "12", "--max-target",
                    "8", "--answers", "\(folder)/answers.jsonl", "--json",
                ]
            )
            #expect(measured.status == 0, "\(measured.errors)")
            let figures = try #require(
                try JSONSerialization.jsonObject(with: Data(measured.text.utf8)) as? [String: Any]
            )
            #expect(figures["answers"] as? Int == 12)
            for name in ["cross_entropy", "perplexity", "token_accuracy", "exact_match", "word_error_rate", "rouge_l"] {
                #expect((figures[name] as? Double)?.isFinite == true, "\(name)")
            }
            let lines = try String(contentsOfFile: "\(folder)/answers.jsonl", encoding: .utf8).split(separator: "\n")
            #expect(lines.count == 12 && lines.first?.contains("data.tsv:1\"") == true)
        }
    }

    @Test("a file holds settings, and a flag overrides it")
    func settingsFile() async throws {
        try await self.inFolder { folder in
            let settings = """
                {"new": "\(folder)/config.json", "tokenizer": "\(TestCluster.miniature)", "data": ["\(folder)/data.tsv"],
                 "out": "\(folder)/run", "steps": 3, "batch-examples": 4, "optimizer": "adamw", "learning-rate": 1e-3,
                 "threads": 1}
                """
            try settings.write(toFile: "\(folder)/train.json", atomically: true, encoding: .utf8)
            let made = try await Commands.run(
                TestCluster.executable,
                ["train", "--config", "\(folder)/train.json", "--steps", "2"]
            )
            #expect(made.status == 0, "\(made.errors)")
            #expect(self.steps(folder, "run") == [2])
        }
    }

    @Test("an adapter is trained at the rate that is set, although half of it begins as zeros")
    func adapter() async throws {
        try await self.inFolder { folder in
            let base = try await Commands.run(TestCluster.executable, self.arguments(folder, "base", steps: 1))
            #expect(base.status == 0, "\(base.errors)")
            let adapted = try await Commands.run(
                TestCluster.executable,
                [
                    "train", "\(folder)/base/latest", "--data", "\(folder)/data.tsv", "--out", "\(folder)/adapted",
                    "--steps", "1", "--batch-examples", "4", "--threads", "1", "--lora-rank", "2",
                ]
            )
            #expect(adapted.status == 0, "\(adapted.errors)")
            for (run, scales) in [("base", true), ("adapted", false)] {
                let state = try String(contentsOfFile: "\(folder)/\(run)/latest/resume/state.json", encoding: .utf8)
                #expect(state.contains("scaleParameter: \(scales)"), "\(run)")
            }
            #expect(FileManager.default.fileExists(atPath: "\(folder)/adapted/latest/adapter/adapter_config.json"))
        }
    }

    @Test("the admin port shows the run")
    func adminPort() async throws {
        try await self.inFolder { folder in
            let process = Process()
            process.executableURL = URL(fileURLWithPath: TestCluster.executable)
            let address = "\(folder)/address"
            process.arguments =
                self.arguments(folder, "run", steps: 1_000_000)
                + [
                    "--save-every", "20", "--eval-share", "0.2", "--admin-listen", "127.0.0.1:0",
                    "--admin-address-file", address,
                ]
            process.standardOutput = FileHandle.nullDevice
            process.standardError = FileHandle.nullDevice
            try process.run()
            defer { process.terminate() }
            var page = ""
            for _ in 0..<2000 where !page.contains("switchyard_training_saved_step ") {
                try await Task.sleep(for: .milliseconds(20))
                guard let line = try? String(contentsOfFile: address, encoding: .utf8) else { continue }
                let answer = try? await AdminClient.get("/metrics", of: line.trimmingCharacters(in: .newlines))
                page = answer?.body ?? ""
            }
            #expect(page.contains("switchyard_training_loss{kind=\"training\"}"))
            #expect(page.contains("switchyard_training_expert_share{stack=\"encoder\",layer=\"1\",expert=\"3\"}"))
            #expect(page.contains("switchyard_ready 1"))
            for metric in MetricCatalog.training.definitions {
                #expect(page.contains("\n\(metric.name)"), "\(metric.name)")
            }
        }
    }

    @Test(
        "says what it cannot do, and what to do",
        arguments: [
            (["--steps", "0"], "from 1 to"), (["--learning-rate", "nan"], "learning-rate"),
            (["--format", "csv"], "jsonl, tsv or text"), (["--schedule", "step"], "inverse-sqrt"),
            (["--optimizer", "adafactor", "--beta1", "0.5"], "setting of Adam"),
            (["--input-column", "2"], "give two different ones"),
            (["--eval", "x.tsv", "--eval-share", "0.1"], "exclude"),
            (["--data", "missing.tsv"], "missing.tsv"), (["--max-target", "1"], "2 to 65536"),
        ]
    )
    func refused(more: [String], part: String) async throws {
        try await self.inFolder { folder in
            let output = try await Commands.run(TestCluster.executable, self.arguments(folder, "run") + more)
            #expect(output.status != 0)
            #expect(output.errors.contains(part), "\(output.errors)")
            #expect(!FileManager.default.fileExists(atPath: "\(folder)/run"))
        }
    }
}
