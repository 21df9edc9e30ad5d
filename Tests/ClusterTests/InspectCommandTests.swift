// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@testable import switchyard

@Suite("switchyard inspect", .serialized)
struct InspectCommandTests {
    /// The miniature with some of its files changed.
    private func copy(_ change: (URL) throws -> Void) throws -> URL {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("inspect-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        for file in ["config.json", "generation_config.json", "model.safetensors", "spiece.model"] {
            let source = "\(TestCluster.miniature)/\(file)"
            guard FileManager.default.fileExists(atPath: source) else { continue }
            try FileManager.default.copyItem(atPath: source, toPath: folder.appendingPathComponent(file).path)
        }
        try change(folder)
        return folder
    }

    private func inspect(_ folder: String, _ more: [String] = []) async throws -> Commands.Output {
        try await Commands.run(TestCluster.executable, ["inspect", folder] + more, environment: ["COLUMNS": "200"])
    }

    @Test("a sound checkpoint is described, and its next line names the command that serves it")
    func sound() async throws {
        let output = try await self.inspect(TestCluster.miniature, ["--pools", "4"])
        #expect(output.status == 0, "\(output.text)\(output.errors)")
        for part in [
            "switch_transformers", "encoder blocks 1, 3", "8 experts each", "of bfloat16", "each host of 4 pools",
            "int8",
            "2048 tokens", "Can be served. Next:  switchyard up \(TestCluster.miniature)",
        ] {
            #expect(output.text.contains(part), "no \"\(part)\" in\n\(output.text)")
        }
    }

    @Test("JSON has the same facts")
    func json() async throws {
        let output = try await self.inspect(TestCluster.miniature, ["--json"])
        #expect(output.status == 0)
        let object = try JSONSerialization.jsonObject(with: Data(output.text.utf8)) as? [String: Any]
        let report = try #require(object)
        let shape = try #require(report["shape"] as? [String: Any])
        #expect(shape["experts_per_layer"] as? Int == 8)
        #expect(shape["encoder_sparse_blocks"] as? [Int] == [1, 3])
        #expect((report["problems"] as? [String])?.isEmpty == true)
        let sum = (report["gateway_parameters"] as? Int ?? 0) + (report["expert_parameters"] as? Int ?? 0)
        #expect(shape["parameters"] as? Int == sum)
        let memory = try #require(report["memory"] as? [[String: Any]])
        #expect(memory.count == 3)
        #expect(memory.allSatisfy { ($0["pool_bytes"] as? [Int])?.count == 2 })
    }

    @Test("a checkpoint that cannot be served ends with status 1 and every problem in words")
    func problems() async throws {
        let cases: [(words: [String], change: (URL) throws -> Void)] = [
            (["config.json"], { try FileManager.default.removeItem(at: $0.appendingPathComponent("config.json")) }),
            (
                ["model.safetensors"],
                { try FileManager.default.removeItem(at: $0.appendingPathComponent("model.safetensors")) }
            ),
            (
                ["model.safetensors"],
                { folder in
                    let file = folder.appendingPathComponent("model.safetensors")
                    try Data(contentsOf: file).prefix(100_000).write(to: file)
                }
            ),
            (
                ["config.json", "d_model"],
                { folder in
                    let file = folder.appendingPathComponent("config.json")
                    let text = try String(contentsOf: file, encoding: .utf8)
                    try text.replacing("\"d_model\": 128", with: "\"d_model\": -1")
                        .write(to: file, atomically: true, encoding: .utf8)
                }
            ),
            (
                ["router_dtype", "bfloat16"],
                { folder in
                    let file = folder.appendingPathComponent("config.json")
                    let text = try String(contentsOf: file, encoding: .utf8)
                    try text.replacing("\"router_dtype\": \"float32\"", with: "\"router_dtype\": \"bfloat16\"")
                        .write(to: file, atomically: true, encoding: .utf8)
                }
            ),
            (
                // Two problems, and both are said.
                ["num_experts", "spiece.model"],
                { folder in
                    let file = folder.appendingPathComponent("config.json")
                    let text = try String(contentsOf: file, encoding: .utf8)
                    try text.replacing("\"num_experts\": 8", with: "\"num_experts\": 7")
                        .write(to: file, atomically: true, encoding: .utf8)
                    try Data("nothing".utf8).write(to: folder.appendingPathComponent("spiece.model"))
                }
            ),
        ]
        for (words, change) in cases {
            let folder = try self.copy(change)
            defer { try? FileManager.default.removeItem(at: folder) }
            let output = try await self.inspect(folder.path)
            #expect(output.status == 1, "\(words): \(output.text)\(output.errors)")
            #expect(output.text.contains("cannot be served"), "\(output.text)\(output.errors)")
            for word in words { #expect(output.text.contains(word), "no \"\(word)\" in\n\(output.text)") }
            let json = try await self.inspect(folder.path, ["--json"])
            #expect(json.status == 1)
            #expect(json.text.contains("\"problems\""))
        }
    }

    @Test("a part is described as what it is")
    func part() async throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("inspect-\(UUID().uuidString)").path
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let cut = try await Commands.run(
            TestCluster.executable,
            ["shard", TestCluster.miniature, "--out", folder, "--pools", "2"]
        )
        #expect(cut.status == 0, "\(cut.errors)")
        let gateway = try await self.inspect("\(folder)/gateway")
        #expect(gateway.status == 0, "\(gateway.text)")
        #expect(gateway.text.contains("Next:  switchyard gateway --model"), "\(gateway.text)")
        let experts = try await self.inspect("\(folder)/pool-1")
        #expect(experts.status == 0, "\(experts.text)")
        #expect(experts.text.contains("Next:  switchyard expert-host --shard"), "\(experts.text)")
    }
}
