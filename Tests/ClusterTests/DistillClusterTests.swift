// SPDX-License-Identifier: Apache-2.0

import CommandKit
import Foundation
import SwitchyardClient
import Testing

@testable import switchyard

@Suite("switchyard distill with a teacher on a cluster", .serialized)
struct DistillClusterTests {
    /// A folder with lines to learn from, and the weights that a student of the miniature in one process ends with.
    private final class Run: Sendable {
        let folder: String
        let expected: Data

        init() async throws {
            self.folder = NSTemporaryDirectory() + "distill-cluster-\(UUID().uuidString)"
            try FileManager.default.createDirectory(atPath: self.folder, withIntermediateDirectories: true)
            let words = ["horse", "kingdom", "night", "king", "sword", "crown", "heart"]
            let lines = (0..<49).map { "my \(words[$0 % 7]) and the \(words[$0 / 7 % 7])\t\(words[$0 / 7 % 7])" }
            try lines.joined(separator: "\n")
                .write(toFile: "\(self.folder)/data.tsv", atomically: true, encoding: .utf8)
            // Narrow, so that the teacher takes most of the time.
            let student = """
                {"model_type": "t5", "vocab_size": 2048, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_heads": 2, "num_layers": 1,
                 "num_decoder_layers": 1, "decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
                """
            try student.write(toFile: "\(self.folder)/student.json", atomically: true, encoding: .utf8)
            let result = try await Self.distill(self.folder, "here", [])
            #expect(result.status == 0, "\(result.errors)")
            self.expected = try Self.weights(self.folder, "here")
        }

        deinit { try? FileManager.default.removeItem(atPath: self.folder) }

        func distill(_ out: String, _ more: [String] = []) async throws -> Commands.Output {
            try await Self.distill(self.folder, out, more)
        }

        private static func distill(_ folder: String, _ out: String, _ more: [String]) async throws -> Commands.Output {
            let arguments = [
                "distill", "--teacher", TestCluster.miniature, "--student", "\(folder)/student.json", "--data",
                "\(folder)/data.tsv", "--out", "\(folder)/\(out)", "--steps", "6", "--batch-examples",
                "7", "--save-every", "1", "--keep", "100", "--threads", "1", "--report-every", "1", "--temperature",
                "2",
                "--teacher-top", "50",
            ]
            return try await Commands.run(TestCluster.executable, arguments + more)
        }

        func weights(_ out: String) throws -> Data {
            try Self.weights(self.folder, out)
        }

        private static func weights(_ folder: String, _ out: String) throws -> Data {
            try Data(contentsOf: URL(fileURLWithPath: "\(folder)/\(out)/latest/model.safetensors"))
        }

        /// Waits until a run has saved its first step, long before its last.
        func waitForFirstSave(_ out: String) async throws {
            for _ in 0..<60_000 {
                let names = (try? FileManager.default.contentsOfDirectory(atPath: "\(self.folder)/\(out)")) ?? []
                if names.contains(where: { $0.hasPrefix("step-") }) { return }
                try await Task.sleep(for: .milliseconds(2))
            }
            Issue.record("the run saved nothing in two minutes")
        }
    }

    @Test(
        "A cluster of two hosts gives the student of one process, bit for bit, and a host that is killed does not show"
    )
    func sameBits() async throws {
        let run = try await Run()
        try await TestCluster.runProcesses(pools: 2, replicas: 2) { cluster in
            let gateway = ["--teacher-gateway", cluster.gatewayAddress]
            let whole = try await run.distill("whole", gateway)
            #expect(whole.status == 0, "\(whole.errors)")
            #expect(whole.text.contains("Answers: 0 from the cache, 42 from the teacher"), "\(whole.text)")
            #expect(try run.weights("whole") == run.expected)

            let victim = try #require(cluster.hosts.running.first { $0.name.hasPrefix("pool-0") })
            async let result = run.distill("killed", gateway)
            try await run.waitForFirstSave("killed")
            signal(SIGKILL, to: victim)
            let ended = try await result
            #expect(ended.status == 0, "\(ended.errors)")
            #expect(try run.weights("killed") == run.expected)

            let other = try await run.distill(
                "other",
                gateway + ["--teacher", "\(TestCluster.root)/Tests/Fixtures/dense/t5", "--student", "auto"]
            )
            #expect(other.status == 1 && other.errors.contains("serves another model"), "\(other.errors)")
        }
        // Nobody answers any more, and nobody needs to.
        let cached = try await run.distill("cached", ["--cache", "\(run.folder)/whole/answers"])
        #expect(cached.status == 0 && cached.text.contains("Answers: 42 from the cache, 0 from the"), "\(cached.text)")
        #expect(try run.weights("cached") == run.expected)
    }

    @Test("A teacher's own answers as targets are the same from a cluster and in one process, and are asked for once")
    func answers() async throws {
        let run = try await Run()
        let more = ["--targets", "teacher", "--teacher-beams", "2", "--max-target", "6"]
        let here = try await run.distill("beams", more)
        #expect(here.status == 0, "\(here.errors)")
        // One for the answer to each input, and one for what the teacher thinks of it.
        #expect(here.text.contains("Answers: 0 from the cache, 84 from the teacher"), "\(here.text)")
        #expect(try run.weights("beams") != run.expected)
        try await TestCluster.runProcesses(pools: 2) { cluster in
            let there = try await run.distill("there", more + ["--teacher-gateway", cluster.gatewayAddress])
            #expect(there.status == 0, "\(there.errors)")
            #expect(try run.weights("there") == run.weights("beams"))
        }
        let cached = try await run.distill("again", more + ["--cache", "\(run.folder)/there/answers"])
        #expect(cached.status == 0 && cached.text.contains("Answers: 84 from the cache, 0 from the"), "\(cached.text)")
        #expect(try run.weights("again") == run.weights("beams"))
        let other = try await run.distill("beams", more + ["--resume", "--teacher-beams", "3"])
        #expect(other.status == 1 && other.errors.contains("has answers fingerprint"), "\(other.errors)")
    }

    @Test("A cluster that has lost an expert's last host ends the run in words, and it goes on without it")
    func lost() async throws {
        let run = try await Run()
        try await TestCluster.runProcesses(pools: 2) { cluster in
            async let result = run.distill(
                "lost",
                ["--teacher-gateway", cluster.gatewayAddress, "--teacher-wait-seconds", "2"]
            )
            try await run.waitForFirstSave("lost")
            let victim = try #require(cluster.hosts.running.first { $0.name.hasPrefix("pool-1") })
            signal(SIGKILL, to: victim)
            let ended = try await result
            // It may have had all answers by then.
            guard ended.status != 0 else { return }
            #expect(ended.errors.contains("gave no answer in"), "\(ended.errors)")
        }
        let resumed = try await run.distill("lost", ["--resume"])
        #expect(resumed.status == 0, "\(resumed.errors)")
        #expect(try run.weights("lost") == run.expected)
    }
}
