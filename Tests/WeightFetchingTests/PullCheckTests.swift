// SPDX-License-Identifier: Apache-2.0

import Foundation
import Synchronization
import Testing

@testable import WeightFetching

/// `switchyard pull` opens what it fetched: what a service would refuse is said at once, and what was fetched stays.
@Suite("what switchyard pull checks", .serialized)
struct PullCheckTests {
    /// The miniature's small files, with one replaced, and noise for weights: `pull` reads no weights.
    private func hub(_ name: String, _ content: String) throws -> TestHub {
        var files: [String: TestHub.File] = [:]
        for file in ["config.json", "generation_config.json", "spiece.model", name] {
            let bytes =
                file == name
                ? Array(content.utf8)
                : [UInt8](try Data(contentsOf: URL(fileURLWithPath: "\(Workplace.miniature)/\(file)")))
            files[file] = TestHub.File(content: ServedFile(bytes: bytes, etag: "\"\(file)\""), isLarge: false)
        }
        let weights = ServedFile(bytes: noise(3_000, seed: 1), etag: "\"weights\"")
        files["model.safetensors"] = TestHub.File(content: weights, isLarge: true)
        return TestHub("test/checked", files: files)
    }

    /// One run of `pull`, and how often it asked the hub.
    private struct Pulled: Sendable {
        var status: Int32
        var text: String
        var errors: String
        var requests: Int
    }

    private func pull(
        _ hub: TestHub,
        _ arguments: [String] = [],
        environment: [String: String] = [:]
    ) async throws -> Pulled {
        let result = Mutex<Pulled?>(nil)
        try await Workplace.with { place in
            try await TestHub.with(hub) { server, _ in
                let output = try await place.switchyard(
                    ["pull", "test/checked", "--endpoint", server.address] + arguments,
                    environment: environment
                )
                let pulled = Pulled(
                    status: output.status,
                    text: output.text,
                    errors: output.errors,
                    requests: server.requests.count
                )
                result.withLock { $0 = pulled }
            }
        }
        return try #require(result.withLock { $0 })
    }

    @Test(
        "a faulty tokenizer and refused settings are named, after the folder",
        arguments: [
            ("spiece.model", "nothing", "SentencePiece"),
            ("tokenizer.json", #"{"model": {"type": "WordPiece", "vocab": {}}, "added_tokens": []}"#, "WordPiece"),
            ("generation_config.json", #"{"guidance_scale": 1.5}"#, "guidance_scale"),
            ("generation_config.json", #"{"num_beams": 0}"#, "num_beams"),
            ("config.json", #"{"model_type": "switch_transformers", "d_model": -1}"#, "d_model"),
        ]
    )
    func faults(file: String, content: String, word: String) async throws {
        let output = try await self.pull(try self.hub(file, content))
        #expect(output.status != 0)
        #expect(output.text.contains("is in "), "\(output.text)")
        #expect(output.errors.contains(file) && output.errors.contains(word), "\(output.errors)")
    }

    @Test("a model of another family is fetched and not judged, unless values are overridden for it")
    func otherFamily() async throws {
        let hub = try self.hub("config.json", #"{"model_type": "bert", "hidden_act": "gelu"}"#)
        let output = try await self.pull(hub)
        #expect(output.status == 0 && output.errors.isEmpty, "\(output.errors)")
        let overridden = try await self.pull(hub, ["--override", "d_ff=8"])
        #expect(overridden.status != 0 && overridden.errors.contains("bert"), "\(overridden.errors)")
    }

    @Test(
        "an adapter comes along, and the next line merges it into its model, or into the one beside it",
        arguments: [true, false]
    )
    func adapters(isAlone: Bool) async throws {
        let fixtures = URL(fileURLWithPath: Workplace.miniature).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().appendingPathComponent("Tests/Fixtures")
        func file(_ path: String, _ replaced: (String, String)? = nil) throws -> TestHub.File {
            var bytes = [UInt8](try Data(contentsOf: fixtures.appendingPathComponent(path)))
            if let replaced {
                let text = String(decoding: bytes, as: UTF8.self)
                #expect(text.contains(replaced.0))
                bytes = Array(text.replacing(replaced.0, with: replaced.1).utf8)
            }
            return TestHub.File(content: ServedFile(bytes: bytes, etag: "\"\(path)\""), isLarge: false)
        }
        var files = [
            "adapter_config.json": try file("adapters/linear/adapter/adapter_config.json"),
            "adapter_model.safetensors": try file("adapters/linear/adapter/adapter_model.safetensors"),
        ]
        if !isAlone {
            for name in ["config.json", "generation_config.json", "model.safetensors", "spiece.model"] {
                files[name] = try file("cases/plain/\(name)")
            }
        }
        let sound = try await self.pull(TestHub("test/checked", files: files))
        #expect(sound.status == 0, "\(sound.errors)")
        #expect(sound.text.contains("adapter_model.safetensors"))
        let model = isAlone ? "tiny/plain" : "test/checked"
        let next = "Next:  switchyard shard \(model) --out shards --pools 2 --merge-adapter test/checked"
        #expect(sound.text.contains(next), "\(sound.text)")
        #expect(sound.text.components(separatedBy: "Next:").count == 2)
        files["adapter_config.json"] = try file(
            "adapters/linear/adapter/adapter_config.json",
            ("\"use_dora\": false", "\"use_dora\": true")
        )
        let dora = try await self.pull(TestHub("test/checked", files: files))
        #expect(dora.status != 0 && dora.errors.contains("use_dora is true"), "\(dora.errors)")
    }

    @Test("overrides that cannot be are refused before anything is fetched, and the variable is for other commands")
    func overrides() async throws {
        let hub = try self.hub("generation_config.json", "{}")
        for (text, word) in [
            ("num_expert=7", "did you mean num_experts?"), ("d_ff=x", "d_ff must be an integer"), ("x", "KEY=VALUE"),
        ] {
            let output = try await self.pull(hub, ["--override", text])
            #expect(output.status != 0 && output.errors.contains(word), "\(output.errors)")
            #expect(output.requests == 0)
        }
        let variable = try await self.pull(hub, environment: ["SWITCHYARD_OVERRIDE": "num_expert=7"])
        #expect(variable.status == 0, "\(variable.errors)")
        // With an override the weights are opened, too, and these are noise.
        let opened = try await self.pull(hub, ["--override", "expert_capacity=9"])
        #expect(opened.status != 0 && opened.errors.contains("model.safetensors"), "\(opened.errors)")
    }
}
