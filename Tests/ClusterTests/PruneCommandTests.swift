// SPDX-License-Identifier: Apache-2.0

import CommandKit
import Foundation
import SwitchyardClient
import SwitchyardProtos
import Testing

@testable import switchyard

@Suite("switchyard prune", .serialized)
struct PruneCommandTests {
    /// A folder with a few lines to measure on.
    private func inFolder(_ body: (String) async throws -> Void) async throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("prune-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let lines = try TestCluster.prompts().prefix(6).map { "\($0.prompt)\t\($0.answer)" }
        try lines.joined(separator: "\n").write(toFile: "\(folder)/data.tsv", atomically: true, encoding: .utf8)
        try await body(folder)
    }

    private func prune(_ folder: String, _ out: String, _ more: [String]) async throws -> Commands.Output {
        try await Commands.run(
            TestCluster.executable,
            ["prune", TestCluster.miniature, "--out", "\(folder)/\(out)"] + more
        )
    }

    private func weights(_ folder: String, _ out: String) throws -> Data {
        try Data(contentsOf: URL(fileURLWithPath: "\(folder)/\(out)/model.safetensors"))
    }

    @Test("prunes by loads that it measures or reads, and evaluate tells what it costs")
    func prunes() async throws {
        try await self.inFolder { folder in
            let data = ["--data", "\(folder)/data.tsv", "--threads", "1"]
            let made = try await self.prune(folder, "half", data + ["--keep", "0.5"])
            #expect(made.status == 0, "\(made.errors)")
            #expect(
                made.text.contains("4 of 8 experts in a layer, 3675136 of 5774336 parameters, capacity 128"),
                "\(made.text)"
            )
            #expect(made.text.contains("decoder 3: ") && made.text.contains("% of its tokens keep their expert"))
            let measured = try await Commands.run(TestCluster.executable, ["evaluate", "\(folder)/half"] + data)
            #expect(measured.status == 0, "\(measured.errors)")
            #expect(measured.text.contains("cross-entropy") && measured.text.contains("encoder 1"))
            // Whichever layers these loads name, experts 4 to 7 are used most.
            let layers = [("encoder", 1), ("encoder", 3), ("decoder", 1), ("decoder", 3)]
                .map { #"{"layer":"\#($0.0) \#($0.1)","shares":[0,0.1,0,0.1,0.2,0.2,0.2,0.2],"dropped":0}"# }
            let line =
                #"{"step":3,"kind":"training","loss":1,"crossEntropy":1,"seconds":1,"layers":[\#(layers.joined(separator: ","))]}"#
            try line.write(toFile: "\(folder)/metrics.jsonl", atomically: true, encoding: .utf8)
            let read = try await self.prune(folder, "read", ["--loads", "\(folder)/metrics.jsonl"])
            #expect(read.status == 0, "\(read.errors)")
            #expect(
                read.text.contains("encoder 3: 80.0 % of its tokens keep their expert; experts 4, 5, 6, 7 stay"),
                "\(read.text)"
            )
            let again = try await self.prune(folder, "read", ["--loads", "\(folder)/metrics.jsonl"])
            #expect(again.status == 1 && again.errors.contains("exists and is not empty"), "\(again.errors)")
        }
    }

    @Test("prunes by the loads of a gateway that serves the model")
    func served() async throws {
        try await self.inFolder { folder in
            let prompt = try #require(try TestCluster.prompts().first).prompt
            try await TestCluster.run(pools: 1) { client, cluster in
                _ = try await client.generate(GenerateRequest(input: .text(prompt)))
                let made = try await self.prune(folder, "served", ["--endpoint", cluster.gatewayAddress])
                #expect(made.status == 0, "\(made.errors)")
                #expect(made.text.contains("4 of 8 experts in a layer"), "\(made.text)")
                let other = try await Commands.run(
                    TestCluster.executable,
                    ["prune", "\(folder)/served", "--out", "\(folder)/more", "--endpoint", cluster.gatewayAddress]
                )
                #expect(other.status == 1 && other.errors.contains("serves another model"), "\(other.errors)")
            }
        }
    }

    @Test("says what it cannot do")
    func refused() async throws {
        try await self.inFolder { folder in
            for (more, part) in [
                (["--keep", "0", "--loads", "x"], "above 0"), ([], "give one of them"),
                (["--loads", "x", "--data", "y"], "give one of them"),
                (["--loads", "/nowhere"], "/nowhere cannot be read"),
                (["--loads", "\(folder)/data.tsv"], "no line with the loads"),
            ] {
                let output = try await self.prune(folder, "never", more)
                #expect(output.status != 0 && output.errors.contains(part), "\(output.errors)")
            }
        }
    }
}
