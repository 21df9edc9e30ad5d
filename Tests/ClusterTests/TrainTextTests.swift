// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@testable import switchyard

@Suite("switchyard train --family labml", .serialized)
struct TrainTextTests {
    /// A folder with a text of single lines.
    private func inFolder(_ body: (String) async throws -> Void) async throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("text-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let text = String(repeating: "It is the king.\nIt is the ghost, and \"night\" falls.\n", count: 60)
        try text.write(toFile: "\(folder)/text.txt", atomically: true, encoding: .utf8)
        try await body(folder)
    }

    static func arguments(_ folder: String, _ out: String, steps: Int = 12) -> [String] {
        let sizes = ["d_model=16", "heads=2", "d_ff=24", "n_layers=2", "n_experts=3"]
        return [
            "train", "--family", "labml", "--text", "\(folder)/text.txt", "--out", "\(folder)/\(out)", "--steps",
            "\(steps)", "--sequence", "16", "--batch-examples", "8", "--warm-up", "20", "--eval-share", "0.1",
            "--save-every", "4", "--keep", "9", "--threads", "1", "--report-every", "1",
        ] + sizes.flatMap { ["--size", $0] }
    }

    @Test("a run resumes with the same bits, is evaluated on a text, and its saves are served")
    func trains() async throws {
        try await self.inFolder { folder in
            let made = try await Commands.run(TestCluster.executable, Self.arguments(folder, "run"))
            #expect(made.status == 0, "\(made.errors)")
            #expect(made.text.contains("evaluation after step 12") && made.text.contains("decoder 1"), "\(made.text)")
            let configuration = try String(contentsOfFile: "\(folder)/run/latest/config.json", encoding: .utf8)
            #expect(configuration.contains("labml_switch") && configuration.contains("\"d_model\" : 16"))

            // A run that ended early goes on.
            let short = try await Commands.run(TestCluster.executable, Self.arguments(folder, "short", steps: 8))
            #expect(short.status == 0, "\(short.errors)")
            let resumed = try await Commands.run(
                TestCluster.executable,
                Self.arguments(folder, "short") + ["--resume"]
            )
            #expect(resumed.status == 0, "\(resumed.errors)")
            func weights(_ out: String) throws -> Data {
                try Data(contentsOf: URL(fileURLWithPath: "\(folder)/\(out)/latest/model.safetensors"))
            }
            #expect(try weights("short") == weights("run"))

            let save = "\(folder)/run/latest"
            let measured = try await Commands.run(
                TestCluster.executable,
                ["evaluate", save, "--text", "\(folder)/text.txt", "--sequence", "16", "--json"]
            )
            #expect(measured.status == 0, "\(measured.errors)")
            let figures = try #require(
                try JSONSerialization.jsonObject(with: Data(measured.text.utf8)) as? [String: Any]
            )
            let loss = try #require(figures["cross_entropy"] as? Double)
            #expect(loss > 0 && loss < 4)
            let answer = try await Commands.run(
                TestCluster.executable,
                ["generate", "--local", save, "--max-new-tokens", "5", "It is"]
            )
            #expect(answer.status == 0, "\(answer.errors)")
            #expect(answer.text.trimmingCharacters(in: .newlines).count <= 10 && !answer.text.isEmpty)

            // A run may begin with a save, and another text must have its characters.
            let next = [
                "train", save, "--text", "\(folder)/text.txt", "--out", "\(folder)/next", "--steps", "1", "--threads",
                "1",
            ]
            #expect(try await Commands.run(TestCluster.executable, next).status == 0)
            let known = String(repeating: "It is the king.\n", count: 20)
            try "\(known)\u{E9}\(known)"
                .write(toFile: "\(folder)/text.txt", atomically: true, encoding: .utf8)
            let other = try await Commands.run(TestCluster.executable, next + ["--out", "\(folder)/other"])
            #expect(other.status != 0 && other.errors.contains("(U+E9)"), "\(other.errors)")
        }
    }

    @Test(
        "says what it cannot do, and what to do",
        arguments: [
            (["--size", "d_model=7"], "heads must divide"), (["--size", "width=7"], "must name one of"),
            (["--size", "d_ff=x"], "number, true or false"), (["--data", "x.tsv"], "data is for lines"),
            (["--tokenizer", "x"], "word pieces"), (["--family", "t5"], "labml"),
            (["--train-capacity", "floor:x"], "floor:N"), (["--part-tokens", "50"], "drawn among all"),
            (["--lora-rank", "2"], "LoRA"), (["--new", "config.json"], "exclude each other"),
        ]
    )
    func refused(more: [String], part: String) async throws {
        try await self.inFolder { folder in
            let output = try await Commands.run(TestCluster.executable, Self.arguments(folder, "run") + more)
            #expect(output.status != 0)
            #expect(output.errors.contains(part), "\(output.errors)")
            #expect(!FileManager.default.fileExists(atPath: "\(folder)/run"))
        }
    }
}
