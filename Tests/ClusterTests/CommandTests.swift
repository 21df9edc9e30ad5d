// SPDX-License-Identifier: Apache-2.0

import Foundation
import Subprocess
import SystemPackage
import Testing

@testable import switchyard

/// Runs programs and collects what they print.
enum Commands {
    /// What a program printed and how it ended.
    struct Output: Sendable {
        var text: String
        var errors: String
        /// The exit status; -1 if a signal ended it.
        var status: Int32
    }

    static func run(
        _ executable: String,
        _ arguments: [String],
        environment: [String: String] = [:]
    ) async throws -> Output {
        let variables = environment.map { (Environment.Key(stringLiteral: $0.key), String?.some($0.value)) }
        let result = try await Subprocess.run(
            .path(FilePath(executable)),
            arguments: Arguments(arguments),
            environment: .inherit.updating(Dictionary(variables) { first, _ in first }),
            output: .string(limit: 1 << 22),
            error: .string(limit: 1 << 22)
        )
        var status: Int32 = -1
        if case .exited(let code) = result.terminationStatus { status = code }
        return Output(text: result.standardOutput, errors: result.standardError, status: status)
    }
}

@Suite("Commands", .serialized)
struct CommandTests {
    @Test(
        "every command explains itself with an example",
        arguments: [
            "shard", "expert-host", "gateway", "up", "generate", "status", "demo", "certs", "plan", "pull", "config",
            "health", "inspect", "upcycle", "train", "distill", "prune", "evaluate", "verify",
            "batch", "top", "rollout",
        ]
    )
    func help(command: String) async throws {
        let output = try await Commands.run(TestCluster.executable, [command, "--help"])
        #expect(output.status == 0)
        #expect(output.text.contains("EXAMPLE"), "\(command) --help shows no example")
        #expect(output.text.contains("switchyard \(command)"))
    }

    @Test("bench and simulate run the program next to this one, with all further arguments")
    func workshop() async throws {
        let bench = try await Commands.run(TestCluster.executable, ["bench", "rpc", "--help"])
        #expect(bench.status == 0, "\(bench.errors)")
        #expect(bench.text.contains("switchyard-bench rpc --calls"), "\(bench.text)")
        let simulate = try await Commands.run(TestCluster.executable, ["simulate", "--hosts", "0"])
        #expect(simulate.status == 64)
        #expect(simulate.errors.contains("hosts is 0, but must be from 1 to 65535"), "\(simulate.errors)")
    }

    @Test("bench and simulate say where they went if that program is missing", arguments: ["bench", "simulate"])
    func workshopIsMissing(word: String) async throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("switchyard-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let alone = folder.appendingPathComponent("switchyard").path
        try FileManager.default.copyItem(atPath: TestCluster.executable, toPath: alone)
        let output = try await Commands.run(alone, [word, "--anything"])
        #expect(output.status == 64)
        #expect(output.text.isEmpty)
        #expect(output.errors.contains("`switchyard \(word)` is now part of switchyard-bench"), "\(output.errors)")
        #expect(output.errors.contains("--product switchyard-bench"))
        #expect(output.errors.split(separator: "\n").count == 1)
    }

    @Test("generate --local gives transformers' answers without a network")
    func local() async throws {
        for prompt in try TestCluster.prompts().prefix(3) {
            let output = try await Commands.run(
                TestCluster.executable,
                ["generate", "--local", TestCluster.miniature, prompt.prompt]
            )
            #expect(output.status == 0, "\(output.errors)")
            #expect(output.text.contains(prompt.answer.trimmingCharacters(in: .whitespaces)))
        }
    }

    @Test("generate --json names reasons as the protocol does")
    func json() async throws {
        let prompt = try #require(try TestCluster.prompts().first)
        let output = try await Commands.run(
            TestCluster.executable,
            ["generate", "--local", TestCluster.miniature, "--json", prompt.prompt]
        )
        #expect(output.status == 0, "\(output.errors)")
        let report = try #require(try JSONSerialization.jsonObject(with: Data(output.text.utf8)) as? [String: Any])
        let answer = try #require((report["generations"] as? [[String: Any]])?.first)
        #expect(answer["finish_reason"] as? String == "END_OF_SEQUENCE")
        #expect(answer["token_ids"] as? [Int] == prompt.tokenIDs.map { Int($0) })
    }

    @Test(
        "what cannot be done is said, with what to do next",
        arguments: [
            (["generate", "--local", "/nowhere/at/all", "x"], "/nowhere/at/all"),
            (["generate", "--endpoint", "127.0.0.1:1", "--timeout", "1", "x"], "127.0.0.1:1"),
            (["shard", TestCluster.miniature, "--out", "/tmp/never-written", "--pools", "0"], "pools"),
            (["shard", TestCluster.miniature, "--out", "/tmp/never-written", "--pools", "9"], "8"),
            (["expert-host", "--shard", TestCluster.miniature, "--listen", "nonsense"], "nonsense"),
            (["expert-host", "--shard", TestCluster.miniature, "--max-rows", "many"], "max-rows"),
            (["expert-host", "--shard", TestCluster.miniature, "--admin-listen", "nowhere"], "nowhere"),
            (
                ["expert-host", "--shard", TestCluster.miniature, "--metrics-expert-series", "9999999"],
                "metrics-expert-series"
            ),
            (["gateway", "--model", TestCluster.miniature, "--pool", "pool-0"], "NAME=TARGET"),
            (["gateway", "--model", TestCluster.miniature], "pool"),
            (
                ["gateway", "--model", TestCluster.miniature, "--pool", "a=127.0.0.1:1", "--dtype", "float8"],
                "bfloat16"
            ),
            (
                ["gateway", "--model", TestCluster.miniature, "--pool", "a=127.0.0.1:1", "--wire-dtype", "int8"],
                "wire-dtype"
            ),
            (["expert-host", "--shard", TestCluster.miniature, "--dtype", "half"], "float32, bfloat16"),
            (
                ["shard", TestCluster.miniature, "--out", "/tmp/never-written", "--pools", "2", "--dtype", "bfloat16"],
                "--packed"
            ),
            (["generate", "--dtype", "bfloat16", "x"], "--local"),
        ]
    )
    func errors(arguments: [String], part: String) async throws {
        let output = try await Commands.run(TestCluster.executable, arguments)
        #expect(output.status != 0)
        #expect(output.status != -1, "a signal ended it: \(output.errors)")
        #expect(output.errors.contains(part), "\(output.errors)")
    }
}
