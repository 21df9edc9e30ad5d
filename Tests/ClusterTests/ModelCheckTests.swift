// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@testable import switchyard

/// What is wrong in a model's folder is said by the commands that come before a service, in the same words; and so are
/// overrides and adapters that cannot be.
@Suite("checks of a model by commands", .serialized)
struct ModelCheckTests {
    /// A fault of a checkpoint's folder, and the words that name it.
    struct Fault: Sendable, CustomTestStringConvertible {
        var file: String
        var content: String
        var words: [String]

        var testDescription: String { "\(self.file): \(self.content)" }
    }

    static let faults = [
        Fault(file: "spiece.model", content: "nothing", words: ["spiece.model", "SentencePiece"]),
        Fault(
            file: "tokenizer.json",
            content: #"{"model": {"type": "BPE", "vocab": {}}, "added_tokens": []}"#,
            words: ["tokenizer.json", "model.type", "BPE"]
        ),
        Fault(
            file: "tokenizer_config.json",
            content: #"{"tokenizer_class": "BertTokenizer"}"#,
            words: ["tokenizer_config.json", "BertTokenizer"]
        ),
        Fault(
            file: "generation_config.json",
            content: #"{"guidance_scale": 1.5}"#,
            words: ["generation_config.json", "guidance_scale", "1.5"]
        ),
        Fault(
            file: "generation_config.json",
            content: #"{"num_beams": 0}"#,
            words: ["generation_config.json", "num_beams"]
        ),
    ]

    /// Gives a body a copy of the miniature, and a path beside it where nothing is.
    private func withCopy(_ body: (URL, String) async throws -> Void) async throws {
        let place = FileManager.default.temporaryDirectory.appendingPathComponent("checks-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: place, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: place) }
        let model = place.appendingPathComponent("model")
        try FileManager.default.copyItem(at: URL(fileURLWithPath: TestCluster.miniature), to: model)
        try await body(model, place.appendingPathComponent("out").path)
    }

    private func run(_ arguments: [String], environment: [String: String] = [:]) async throws -> Commands.Output {
        try await Commands.run(TestCluster.executable, arguments, environment: environment)
    }

    @Test("shard, up, config --check, generate --local and inspect refuse a faulty folder alike", arguments: faults)
    func faultyFolder(fault: Fault) async throws {
        try await self.withCopy { model, out in
            try fault.content.write(to: model.appendingPathComponent(fault.file), atomically: true, encoding: .utf8)
            for arguments in [
                ["shard", model.path, "--out", out, "--pools", "2"],
                ["up", model.path, "--shards", out, "--listen", "127.0.0.1:0"],
                ["config", "gateway", "--model", model.path, "--pool", "a=127.0.0.1:1", "--check"],
                ["generate", "--local", model.path, "x"],
                ["inspect", model.path],
            ] {
                let output = try await self.run(arguments)
                let text = output.text + output.errors
                #expect(output.status != 0, "\(arguments)")
                for word in fault.words {
                    #expect(text.replacing("\n", with: " ").contains(word), "no \(word) from \(arguments): \(text)")
                }
            }
            #expect(!FileManager.default.fileExists(atPath: out))
        }
    }

    @Test("config --check opens a sound part, and says what is wrong with its weights")
    func parts() async throws {
        try await self.withCopy { model, out in
            let cut = try await self.run(["shard", model.path, "--out", out, "--pools", "2"])
            #expect(cut.status == 0, "\(cut.errors)")
            let gateway = ["config", "gateway", "--model", "\(out)/gateway", "--check"]
            let pools = ["--pool", "pool-0=127.0.0.1:1", "--pool", "pool-1=127.0.0.1:2"]
            let sound = try await self.run(gateway + pools)
            #expect(sound.status == 0 && sound.errors.isEmpty && sound.text.isEmpty, "\(sound.errors)")
            let host = try await self.run(["config", "expert-host", "--shard", "\(out)/pool-1", "--check"])
            #expect(host.status == 0 && host.errors.isEmpty, "\(host.errors)")
            let stranger = try await self.run(gateway + ["--pool", "a=127.0.0.1:1"])
            #expect(stranger.status != 0 && stranger.errors.contains("pool-0"), "\(stranger.errors)")
            let wrong = try await self.run(["config", "expert-host", "--shard", "\(out)/gateway", "--check"])
            #expect(wrong.status != 0 && wrong.errors.contains("no experts are in \(out)/gateway"), "\(wrong.errors)")
            try Data("short".utf8).write(to: URL(fileURLWithPath: "\(out)/pool-1/model.safetensors"))
            let damaged = try await self.run(["config", "expert-host", "--shard", "\(out)/pool-1", "--check"])
            #expect(damaged.status != 0 && damaged.errors.contains("pool-1/model.safetensors"), "\(damaged.errors)")
        }
    }

    // MARK: - Overrides

    @Test(
        "an override that cannot be is refused by every command, given as a flag or as a variable",
        arguments: [
            ("num_expert=7", ["\"num_expert\"", "did you mean num_experts?"]),
            ("expert_capacity=many", ["expert_capacity must be an integer", "\"many\""]),
            ("router_bias=1", ["router_bias must be true or false"]),
            ("sparse_step_rule=torch", ["sparse_step_rule must be hf or google", "\"torch\""]),
            ("nonsense", ["nonsense", "KEY=VALUE"]),
        ]
    )
    func wrongOverride(text: String, words: [String]) async throws {
        let model = TestCluster.miniature
        let out = FileManager.default.temporaryDirectory.appendingPathComponent("no-\(UUID().uuidString)").path
        for arguments in [
            ["shard", model, "--out", out, "--pools", "2"], ["up", model, "--shards", out, "--listen", "127.0.0.1:0"],
            ["generate", "--local", model], ["inspect", model],
            ["config", "gateway", "--model", model, "--pool", "a=127.0.0.1:1", "--check"],
        ] {
            let last = arguments[0] == "generate" ? ["x"] : []
            for output in [
                try await self.run(arguments + ["--override", text] + last),
                try await self.run(arguments + last, environment: ["SWITCHYARD_OVERRIDE": text]),
            ] {
                #expect(output.status != 0, "\(arguments)")
                let errors = (output.errors + output.text).replacing("\n", with: " ")
                for word in words { #expect(errors.contains(word), "no \(word) from \(arguments): \(errors)") }
            }
        }
        #expect(!FileManager.default.fileExists(atPath: out))
    }

    @Test("generate --local takes overrides from the flag, or else from the variable")
    func overrides() async throws {
        let arguments = ["generate", "--local", TestCluster.miniature, "--max-new-tokens", "12"]
        let prompt = ["Now is the winter of our <extra_id_0> Made glorious summer by this <extra_id_1> of York;"]
        let plain = try await self.run(arguments + prompt)
        let flag = try await self.run(arguments + ["--override", "decoder_start_token_id=17"] + prompt)
        let variable = try await self.run(
            arguments + prompt,
            environment: ["SWITCHYARD_OVERRIDE": " decoder_start_token_id=17; expert_capacity=64 ;"]
        )
        let both = try await self.run(
            arguments + ["--override", "decoder_start_token_id=17"] + prompt,
            environment: ["SWITCHYARD_OVERRIDE": "num_expert=7"]
        )
        for output in [plain, flag, variable, both] { #expect(output.status == 0, "\(output.errors)") }
        #expect(flag.text != plain.text)
        #expect(variable.text == flag.text && both.text == flag.text)
        let gateway = try await self.run(["generate", "--override", "decoder_start_token_id=17"] + prompt)
        #expect(gateway.status != 0 && gateway.errors.contains("--override is for --local"), "\(gateway.errors)")
    }

    // MARK: - Adapters

    /// The tiny model of the adapter cases.
    private static let tiny = "\(TestCluster.root)/Tests/Fixtures/cases/plain"
    private static let adapter = "\(TestCluster.root)/Tests/Fixtures/adapters/linear/adapter"

    @Test("an adapter is merged by shard, generate --local and inspect, and an earlier cut without it is another model")
    func adapter() async throws {
        let out = FileManager.default.temporaryDirectory.appendingPathComponent("merged-\(UUID().uuidString)").path
        defer { try? FileManager.default.removeItem(atPath: out) }
        let merge = ["--merge-adapter", Self.adapter]
        let cut = ["shard", Self.tiny, "--out", out, "--pools", "2", "--keep"]
        let first = try await self.run(cut + merge)
        #expect(first.status == 0 && first.errors.contains("made for tiny/plain"), "\(first.errors)")
        let again = try await self.run(cut + merge)
        #expect(again.status == 0 && again.text.contains("keeping it"), "\(again.errors)")
        let plain = try await self.run(cut)
        #expect(plain.status != 0 && plain.errors.contains("another checkpoint"), "\(plain.errors)")
        let up = try await self.run(["up", Self.tiny, "--shards", out, "--listen", "127.0.0.1:0"])
        #expect(up.status != 0 && up.errors.contains("plain + adapter"), "\(up.errors)")
        let inspected = try await self.run(["inspect", Self.tiny] + merge, environment: ["COLUMNS": "300"])
        #expect(inspected.status == 0, "\(inspected.text)")
        #expect(inspected.text.contains("46 modules"), "\(inspected.text)")
        #expect(inspected.text.contains("switchyard up \(Self.tiny) --merge-adapter \(Self.adapter)"))
        let local = ["generate", "--local", Self.tiny, "--max-new-tokens", "6"]
        let answers = [try await self.run(local + ["horse"]), try await self.run(local + merge + ["horse"])]
        for output in answers { #expect(output.status == 0, "\(output.errors)") }
        #expect(answers[0].text != answers[1].text)
    }

    @Test("an adapter in a model's place is refused with the command that merges it, by every command")
    func adapterAlone() async throws {
        for arguments in [
            ["shard", Self.adapter, "--out", "/nowhere/out", "--pools", "2"], ["up", Self.adapter],
            ["generate", "--local", Self.adapter, "x"], ["inspect", Self.adapter],
        ] {
            let output = try await self.run(arguments, environment: ["COLUMNS": "400"])
            #expect(output.status != 0)
            let text = (output.errors + output.text).split { $0.isWhitespace }.joined(separator: " ")
            #expect(text.contains("switchyard up tiny/plain --merge-adapter \(Self.adapter)"), "\(arguments): \(text)")
        }
        let gateway = try await self.run(["generate", "--merge-adapter", Self.adapter, "x"])
        #expect(gateway.status != 0 && gateway.errors.contains("--merge-adapter is for --local"), "\(gateway.errors)")
    }
}
