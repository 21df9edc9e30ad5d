// SPDX-License-Identifier: Apache-2.0

import CommandKit
import Foundation
import SwitchyardProtos
import Testing

@testable import switchyard

/// One generator: a model in this process and a cluster answer alike, and impossible requests are errors in words.
@Suite("generate", .serialized)
struct GenerateCommandTests {
    private static let prompt =
        "Now is the winter of our <extra_id_0> Made glorious summer by this <extra_id_1> of York;"

    /// Gives a copy of the miniature with another `generation_config.json` to the body, and removes it.
    private static func withModel(
        generation: [String: any Sendable],
        _ body: (String) async throws -> Void
    ) async throws {
        let folder = FileManager.default.temporaryDirectory.appending(path: "switchyard-model-\(UUID().uuidString)")
        try FileManager.default.copyItem(at: URL(filePath: TestCluster.miniature), to: folder)
        defer { try? FileManager.default.removeItem(at: folder) }
        let file = folder.appending(path: "generation_config.json")
        let old = try JSONSerialization.jsonObject(with: Data(contentsOf: file)) as? [String: Any] ?? [:]
        let new = old.merging(generation) { $1 }
        try JSONSerialization.data(withJSONObject: new).write(to: file, options: .atomic)
        try await body(folder.path(percentEncoded: false))
    }

    private static func generate(_ arguments: [String]) async throws -> Commands.Output {
        try await Commands.run(TestCluster.executable, ["generate"] + arguments + [Self.prompt])
    }

    /// One answer as printed by `--json`.
    private struct Answer: Decodable, Equatable {
        var text: String
        var tokenIds: [UInt32]
        var finishReason: String
        var score: Double
    }

    /// The answers that `--json` prints.
    private static func answers(_ output: Commands.Output) throws -> [Answer] {
        struct Report: Decodable { var generations: [Answer] }
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        return try decoder.decode(Report.self, from: Data(output.text.utf8)).generations
    }

    /// Flags, how many answers they give for a model with three beams by default, and how the first one ends.
    private static let cases: [(flags: [String], count: Int, finish: String?)] = [
        ([], 1, nil),
        (["--return-sequences", "2"], 2, nil),
        (["--beams", "2", "--return-sequences", "2", "--max-new-tokens", "12"], 2, nil),
        (["--beams", "1"], 1, "LENGTH"),
        (["--beams", "1", "--stop", "<extra_id_1>", "--max-new-tokens", "20"], 1, "STOP"),
        (["--beams", "1", "--sample", "--return-sequences", "3", "--seed", "5"], 3, nil),
        (["--beams", "1", "--repetition-penalty", "1.5", "--min-new-tokens", "4", "--strict"], 1, nil),
    ]

    @Test("--local and a cluster give the same answers, with the model's own defaults and with flags")
    func sameAnswers() async throws {
        try await Self.withModel(generation: ["num_beams": 3, "max_new_tokens": 5]) { model in
            try await TestCluster.runProcesses(pools: 2, model: model) { cluster in
                let remote = ["--endpoint", cluster.gatewayAddress]
                let local = ["--local", model, "--threads", "1"]
                for (flags, count, finish) in Self.cases {
                    let served = try await Self.generate(remote + ["--json"] + flags)
                    #expect(served.status == 0, "\(flags): \(served.errors)")
                    let alone = try await Self.generate(local + ["--json"] + flags)
                    #expect(alone.status == 0, "\(flags): \(alone.errors)")
                    let answers = try Self.answers(alone)
                    // Texts, ids, how each ended and scores.
                    #expect(try Self.answers(served) == answers, "\(flags)")
                    #expect(answers.count == count, "\(flags)")
                    if let finish { #expect(answers.first?.finishReason == finish, "\(flags)") }
                }
                for flags in [["--beams", "1", "--return-sequences", "2"], ["--stop", "<extra_id_1>"]] {
                    let served = try await Self.generate(remote + flags)
                    let alone = try await Self.generate(local + flags)
                    #expect(served.status != 0 && alone.status != 0, "\(flags)")
                    let words = flags.contains("--stop") ? "parameters.stop cannot be combined" : "num_return_sequences"
                    #expect(served.errors.contains(words), "\(served.errors)")
                    #expect(alone.errors.contains(words), "\(alone.errors)")
                }
            }
        }
    }

    @Test("--stream shows the same text as a whole answer, and says why a beam search shows nothing before its end")
    func streams() async throws {
        try await Self.withModel(generation: ["num_beams": 3, "max_new_tokens": 9]) { model in
            try await TestCluster.runProcesses(pools: 1, model: model) { cluster in
                for source in [["--endpoint", cluster.gatewayAddress], ["--local", model, "--threads", "1"]] {
                    // Without a seed, each call would draw its own.
                    let draws = ["--beams", "1", "--sample", "--seed", "3", "--return-sequences", "2"]
                    for flags in [[], ["--beams", "1"], draws] {
                        let whole = try await Self.generate(source + flags)
                        let stream = try await Self.generate(source + flags + ["--stream"])
                        #expect(whole.status == 0 && stream.status == 0, "\(stream.errors)")
                        #expect(stream.text == whole.text)
                        #expect(whole.text.count > 1)
                        #expect(stream.errors.contains("pass --beams 1") == flags.isEmpty, "\(stream.errors)")
                    }
                }
            }
        }
    }

    @Test("--local refuses a part of a model, and says what to pass instead", arguments: ["gateway", "pool-0"])
    func parts(name: String) async throws {
        let workspace = try ShardWorkspace.prepare(model: TestCluster.miniature, pools: 2, folder: nil)
        defer { workspace.discard() }
        let output = try await Self.generate(["--local", "\(workspace.folder)/\(name)"])
        #expect(output.status != 0)
        #expect(output.text.isEmpty)
        for words in ["\(name)/manifest.json", "pass the whole checkpoint"] {
            #expect(output.errors.contains(words), "\(output.errors)")
        }
    }

    @Test(
        "flags that would have no effect are refused",
        arguments: [
            (["--local", TestCluster.miniature, "--endpoint", "127.0.0.1:1"], "--endpoint is for a gateway"),
            (["--local", TestCluster.miniature, "--tls"], "--tls is for a gateway"),
            (["--local", TestCluster.miniature, "--threads", "0"], "from 1 to 1024"),
            (["--local", TestCluster.miniature, "--timeout", "90000"], "timeout is 90000"),
            (["--threads", "2"], "--threads is for --local"),
            (["--stream", "--json"], "choose one"),
            (["--stream", "--beams", "2"], "no token is final before the end"),
        ]
    )
    func uselessFlags(arguments: [String], words: String) async throws {
        let output = try await Self.generate(arguments)
        #expect(output.status != 0 && output.status != -1)
        #expect(output.errors.contains(words), "\(output.errors)")
    }
}

@Suite("Text of a stream")
struct StreamedTextTests {
    private func token(_ text: String, sequence: UInt32 = 0) -> GeneratedToken {
        GeneratedToken(sequence: sequence, tokenID: 5, text: text, logprob: nil)
    }

    private func response(_ texts: String...) -> GenerateResponse {
        GenerateResponse(
            generations: texts.map { Generation(text: $0, tokenIDs: [5], finishReason: .length, score: 0) }
        )
    }

    @Test("the first answer arrives token by token, the others whole at the end")
    func sequences() {
        var text = StreamedText()
        let pieces = [
            text.add(self.token("e")), text.add(self.token("x", sequence: 1)), text.add(self.token("\u{301}t")),
        ]
        #expect(pieces == ["e", "", "\u{301}t"])
        #expect(text.rest(of: self.response("e\u{301}te", "xyz")) == "e\nxyz")
        #expect(text.note == nil)
    }

    @Test("without tokens the answers arrive whole, with a note why")
    func beams() {
        let text = StreamedText()
        #expect(text.rest(of: self.response("one", "two")) == "one\ntwo")
        #expect(text.note?.contains("--beams 1") == true)
    }
}
