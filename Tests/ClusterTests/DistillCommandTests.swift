// SPDX-License-Identifier: Apache-2.0

import Foundation
import PeerTools
import Testing

@testable import switchyard

@Suite("switchyard distill", .serialized)
struct DistillCommandTests {
    private static let configuration = """
        {"model_type": "switch_transformers", "architectures": ["SwitchTransformersForConditionalGeneration"],
         "vocab_size": 2048, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_heads": 2, "num_layers": 2,
         "num_decoder_layers": 2, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1, "num_experts": 4,
         "expert_capacity": 64, "decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0,
         "feed_forward_proj": "relu", "tie_word_embeddings": true}
        """

    /// A folder with lines to learn from, and a teacher in `teacher/latest`.
    private func inFolder(_ body: (String) async throws -> Void) async throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("distill-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let words = ["horse", "kingdom", "night", "king", "sword", "crown", "heart"]
        let lines = (0..<40).map { "my \(words[$0 % 7]) and the \(words[$0 / 7 % 7])\t\(words[$0 / 7 % 7])" }
        try lines.joined(separator: "\n").write(toFile: "\(folder)/data.tsv", atomically: true, encoding: .utf8)
        try Self.configuration.write(toFile: "\(folder)/config.json", atomically: true, encoding: .utf8)
        let teacher = try await Commands.run(
            TestCluster.executable,
            [
                "train", "--new", "\(folder)/config.json", "--tokenizer", TestCluster.miniature, "--data",
                "\(folder)/data.tsv", "--out", "\(folder)/teacher", "--steps", "1", "--batch-examples", "4",
                "--threads", "1",
            ]
        )
        #expect(teacher.status == 0, "\(teacher.errors)")
        try await body(folder)
    }

    private func arguments(_ folder: String, _ out: String, steps: Int = 2) -> [String] {
        [
            "distill", "--teacher", "\(folder)/teacher/latest", "--data", "\(folder)/data.tsv", "--out",
            "\(folder)/\(out)",
            "--steps", "\(steps)", "--batch-examples", "3", "--save-every", "1", "--threads", "1", "--report-every",
            "1",
            "--cache", "\(folder)/answers",
        ]
    }

    private func weights(_ folder: String, _ out: String) throws -> Data {
        try Data(contentsOf: URL(fileURLWithPath: "\(folder)/\(out)/latest/model.safetensors"))
    }

    @Test("a student is served as it is; a second run asks no teacher, and has the same bits")
    func distills() async throws {
        try await self.inFolder { folder in
            let made = try await Commands.run(TestCluster.executable, self.arguments(folder, "first"))
            #expect(made.status == 0, "\(made.errors)")
            #expect(
                made.text.contains("of them are the teacher's"),
                "\(made.text)"
            )
            #expect(made.text.contains("divergence ") && made.text.contains("Answers: 0 from the cache, 6 from the"))
            let halves = self.arguments(folder, "second")
            let half = try await Commands.run(TestCluster.executable, halves + ["--steps", "1"])
            #expect(half.status == 0 && half.text.contains("Answers: 3 from the cache, 0 from the"), "\(half.text)")
            let rest = try await Commands.run(TestCluster.executable, halves + ["--resume"])
            #expect(rest.status == 0, "\(rest.errors)")
            #expect(try self.weights(folder, "second") == self.weights(folder, "first"))
            for model in ["first/student", "first/latest"] {
                let answer = try await Commands.run(
                    TestCluster.executable,
                    ["generate", "--local", "\(folder)/\(model)", "--max-new-tokens", "3", "my horse"]
                )
                #expect(answer.status == 0, "\(answer.errors)")
            }
            let other = try await Commands.run(TestCluster.executable, halves + ["--resume", "--teacher-top", "8"])
            #expect(other.status == 1 && other.errors.contains("teacher"), "\(other.errors)")
        }
    }

    @Test(
        "transformers loads a student, CTranslate2 converts it, and both answer with the same ids",
        .enabled(if: Peers.mayRun(Peers.converter), "make converter installs what it needs")
    )
    func converted() async throws {
        try await self.inFolder { folder in
            let made = try await Commands.run(TestCluster.executable, self.arguments(folder, "run", steps: 20))
            #expect(made.status == 0, "\(made.errors)")
            let texts = ["my horse and the king", "my night and the crown", "my heart and the sword"]
            let model = "\(folder)/run/latest"
            let output = try await PeerProcess.run(
                try Peers.path(Peers.converter),
                ["\(Peers.folder)/convert_student.py", model, "\(folder)/converted", "6"] + texts
            )
            let report = try PeerProcess.object(of: output, from: "convert_student.py")
            var expected: [[Int]] = []
            for text in texts {
                let answer = try await Commands.run(
                    TestCluster.executable,
                    ["generate", "--local", model, "--json", "--max-new-tokens", "6", text]
                )
                #expect(answer.status == 0, "\(answer.errors)")
                let response = try JSONSerialization.jsonObject(with: Data(answer.text.utf8)) as? [String: Any]
                let generations = try #require(response?["generations"] as? [[String: Any]])
                expected.append(try #require(generations.first?["token_ids"] as? [Int]))
            }
            #expect(report["token_ids"] as? [[Int]] == expected)
            #expect(report["transformers_token_ids"] as? [[Int]] == expected)
            #expect(report["transformers_key_differences"] as? [String] == [])
        }
    }

    @Test("says what it cannot do")
    func refused() async throws {
        try await self.inFolder { folder in
            for (more, part) in [
                (["--teacher", "/nowhere/at/all"], "/nowhere/at/all"),
                (["--student", "/nowhere.json"], "/nowhere.json"),
                (["--teacher-weight", "1.5"], "0 to 1"), (["--temperature", "0"], "temperature"),
                (["--student-weights", "drawn", "--feed-forward", "average"], "nothing is taken from the teacher"),
                (["--cache-bytes", "10"], "cache-bytes"), (["--feed-forward", "best"], "drawn or average"),
            ] {
                let output = try await Commands.run(TestCluster.executable, self.arguments(folder, "never") + more)
                #expect(output.status != 0)
                #expect(output.errors.contains(part), "\(output.errors)")
                #expect(!FileManager.default.fileExists(atPath: "\(folder)/never"), "\(part)")
            }
        }
    }
}
