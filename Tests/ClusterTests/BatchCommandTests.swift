// SPDX-License-Identifier: Apache-2.0

import CommandKit
import Foundation
import SwitchyardProtos
import Testing

@testable import switchyard

/// Files of lines through a cluster and through a model in this process: the same bytes, whatever dies on the way.
@Suite("batch", .serialized)
struct BatchCommandTests {
    private static func withFolder(_ body: (URL) async throws -> Void) async throws {
        let folder = FileManager.default.temporaryDirectory.appending(path: "switchyard-batch-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        try await body(folder)
    }

    private static func path(_ folder: URL, _ name: String) -> String {
        folder.appending(path: name).path(percentEncoded: false)
    }

    private static func batch(_ arguments: [String]) async throws -> Commands.Output {
        try await Commands.run(TestCluster.executable, ["batch"] + arguments)
    }

    /// JSON lines of each kind: generated from, sampled, by token ids, and three that must fail.
    private static let requests = """
        {"id": "a", "text": "A horse! a horse! my <extra_id_0> for a horse!"}
        {"id": 2, "text": "my <extra_id_0> for", "parameters": {"doSample": true, "max_new_tokens": 5, "numReturnSequences": 2}}
        {"inputIds": {"ids": [261, 28, 9, 2047, 1]}, "parameters": {"topLogprobs": 2}}
        {"text": "a", "colour": "red"}
        not JSON
        {"id": "late", "text": "my <extra_id_0>", "parameters": {"maxNewTokens": 4000000}}
        """

    @Test("a cluster and this process write the same bytes, and a line that fails says why")
    func sameBytes() async throws {
        try await Self.withFolder { folder in
            let input = Self.path(folder, "in.jsonl")
            try Data(Self.requests.utf8).write(to: URL(fileURLWithPath: input))
            let (here, there) = (Self.path(folder, "here.jsonl"), Self.path(folder, "there.jsonl"))
            let flags = ["--max-new-tokens", "8", "--seed", "3"]
            let local = try await Self.batch([input, here, "--local", TestCluster.miniature] + flags)
            #expect(local.status == 0, "\(local.errors)")
            try await TestCluster.runProcesses(pools: 2) { cluster in
                let remote = try await Self.batch([input, there, "--endpoint", cluster.gatewayAddress] + flags)
                #expect(remote.status == 0, "\(remote.errors)")
                #expect(remote.text.contains("3 of these have an error"), "\(remote.text)")
            }
            let lines = try String(contentsOfFile: there, encoding: .utf8).split(separator: "\n")
            #expect(lines.count == 6)
            let prompt = try #require(try TestCluster.prompts().first { $0.prompt.hasPrefix("A horse!") })
            let ids = prompt.tokenIDs.prefix(8).map(String.init).joined(separator: ",")
            #expect(lines[0].hasPrefix(#"{"line":1,"id":"a","response":"#) && lines[0].contains(ids), "\(lines[0])")
            #expect(lines[1].contains(#""id":2"#) && lines[1].contains(#""seed":"4""#), "\(lines[1])")
            #expect(lines[3].contains("INVALID_ARGUMENT") && lines[3].contains("colour"), "\(lines[3])")
            #expect(lines[4].contains("not JSON"), "\(lines[4])")
            #expect(lines[5].contains(#""id":"late","error""#), "\(lines[5])")
            // The limit of new tokens is the gateway's own, and wider in this process.
            let others = try String(contentsOfFile: here, encoding: .utf8).split(separator: "\n")
            #expect(others.prefix(5) == lines.prefix(5))
        }
    }

    @Test("a batch that is killed three times ends with the bytes of one that was not, though its lines are sampled")
    func killed() async throws {
        try await Self.withFolder { folder in
            let input = Self.path(folder, "in.txt")
            let prompts = try TestCluster.prompts().map(\.prompt)
            let lines = (0..<64).map { prompts[$0 % prompts.count] + " \($0)" }
            try Data(lines.joined(separator: "\n").utf8).write(to: URL(fileURLWithPath: input))
            let (whole, pieces) = (Self.path(folder, "whole.jsonl"), Self.path(folder, "pieces.jsonl"))
            let flags = ["--local", TestCluster.miniature, "--threads", "1", "--sample", "--max-new-tokens", "10"]
            let first = try await Self.batch([input, whole, "--seed", "11"] + flags)
            #expect(first.status == 0, "\(first.errors)")
            let all = try Data(contentsOf: URL(fileURLWithPath: whole))
            let partial = pieces + ".partial"
            for share in 1...3 {
                let process = Process()
                process.executableURL = URL(fileURLWithPath: TestCluster.executable)
                process.arguments = ["batch", input, pieces, "--seed", "11"] + flags
                process.standardOutput = FileHandle.nullDevice
                process.standardError = FileHandle.nullDevice
                try process.run()
                // Killed once it has written another fifth of the file.
                while process.isRunning {
                    let size = (try? FileManager.default.attributesOfItem(atPath: partial)[.size] as? Int) ?? 0
                    if size * 5 >= all.count * share { break }
                    try await Task.sleep(for: .milliseconds(5))
                }
                kill(process.processIdentifier, SIGKILL)
                process.waitUntilExit()
            }
            #expect(!FileManager.default.fileExists(atPath: pieces), "it was over before it was killed")
            let other = try await Self.batch([input, pieces, "--seed", "12"] + flags)
            #expect(other.status != 0 && other.errors.contains("its seed is 11"), "\(other.errors)")
            let last = try await Self.batch([input, pieces] + flags)
            #expect(last.status == 0 && last.errors.contains("Going on after"), "\(last.errors)")
            #expect(try Data(contentsOf: URL(fileURLWithPath: pieces)) == all)
            let again = try await Self.batch([input, pieces] + flags)
            #expect(again.status != 0 && again.errors.contains("--overwrite"), "\(again.errors)")
        }
    }

    /// Lines of OpenAI's format: two that are answered, one for each address, and three that are not.
    private static let openAILines = [
        ("a", "completions", #""prompt": ["A horse! a horse! my <extra_id_0> for a horse!", "my"], "max_tokens": 8"#),
        ("b", "embeddings", #""input": "my""#), ("c", "chat/completions", #""messages": []"#),
        ("a", "completions", #""prompt": "my""#),
        ("d", "completions", #""prompt": "my", "temperature": 1, "n": 2, "max_tokens": 6"#),
        ("e", "completions", #""prompt": "my", "echo": true"#),
    ]
    .map { id, url, body in
        #"{"custom_id": "\#(id)", "method": "POST", "url": "/v1/\#(url)", "body": {"model": "switch-mini", \#(body)}}"#
    }
    .joined(separator: "\n")

    @Test("OpenAI's batch lines have OpenAI's answers, the same from a cluster and after a kill")
    func openAI() async throws {
        try await Self.withFolder { folder in
            let input = Self.path(folder, "in.jsonl")
            try Data(Self.openAILines.utf8).write(to: URL(fileURLWithPath: input))
            let (here, there) = (Self.path(folder, "here.jsonl"), Self.path(folder, "there.jsonl"))
            let flags = ["--format", "openai", "--seed", "3"]
            let local = try await Self.batch([input, here, "--local", TestCluster.miniature] + flags)
            #expect(
                local.status == 0 && local.text.contains("3 of these have an error"),
                "\(local.errors) \(local.text)"
            )
            try await TestCluster.runProcesses(pools: 2) { cluster in
                let lines = try String(contentsOfFile: here, encoding: .utf8).split(separator: "\n")
                let remote = try await Self.batch([input, there, "--endpoint", cluster.gatewayAddress] + flags)
                #expect(remote.status == 0, "\(remote.errors)")
                let others = try String(contentsOfFile: there, encoding: .utf8).split(separator: "\n")
                let time = /"created":[0-9]+/
                #expect(others.map { $0.replacing(time, with: "") } == lines.map { $0.replacing(time, with: "") })
            }
            let lines = try String(contentsOfFile: here, encoding: .utf8).split(separator: "\n").map(String.init)
            try #require(lines.count == 6)
            let values = try lines.map {
                try #require(try JSONSerialization.jsonObject(with: Data($0.utf8)) as? [String: Any])
            }
            #expect(values.map { $0["custom_id"] as? String } == ["a", "b", "c", "a", "d", "e"])
            let codes = values.map { (($0["response"] as? [String: Any])?["status_code"] as? Int) }
            #expect(codes == [200, 200, nil, nil, 200, 400])
            let errors = values.map { (($0["error"] as? [String: Any])?["code"] as? String) }
            #expect(errors == [nil, nil, "invalid_url", "duplicate_custom_id", nil, nil])
            let prompt = try #require(try TestCluster.prompts().first { $0.prompt.hasPrefix("A horse!") })
            #expect(lines[0].contains("text_completion") && !prompt.tokenIDs.isEmpty)
            let refused = try await Self.batch([input, here, "--beams", "2", "--local", TestCluster.miniature] + flags)
            #expect(refused.status != 0 && refused.errors.contains("say how to generate"), "\(refused.errors)")
            let unnamed = Self.path(folder, "unnamed.jsonl")
            let plain = try await Self.batch([input, unnamed, "--local", TestCluster.miniature])
            let hint = try String(contentsOfFile: unnamed, encoding: .utf8)
            #expect(plain.status == 0 && hint.contains("--format openai"), "\(hint.prefix(300))")
        }
    }

    @Test("a batch of OpenAI's lines that is killed goes on with the same names and the same time")
    func openAIKilled() async throws {
        try await Self.withFolder { folder in
            let input = Self.path(folder, "in.jsonl")
            let lines = (0..<24)
                .map {
                    #"{"custom_id":"\#($0)","method":"POST","url":"/v1/completions","body":{"model":"switch-mini","#
                        + #""prompt":"my <extra_id_0> \#($0)","temperature":1,"max_tokens":10}}"#
                }
            try Data(lines.joined(separator: "\n").utf8).write(to: URL(fileURLWithPath: input))
            let output = Self.path(folder, "out.jsonl")
            let flags = ["--format", "openai", "--local", TestCluster.miniature, "--threads", "1"]
            let process = Process()
            process.executableURL = URL(fileURLWithPath: TestCluster.executable)
            process.arguments = ["batch", input, output] + flags
            process.standardOutput = FileHandle.nullDevice
            process.standardError = FileHandle.nullDevice
            try process.run()
            while process.isRunning, (try? Data(contentsOf: URL(fileURLWithPath: output + ".partial")))?.isEmpty ?? true
            {
                try await Task.sleep(for: .milliseconds(5))
            }
            kill(process.processIdentifier, SIGKILL)
            process.waitUntilExit()
            #expect(!FileManager.default.fileExists(atPath: output), "it was over before it was killed")
            let record = try String(contentsOfFile: output + ".partial.json", encoding: .utf8)
            let written = try Data(contentsOf: URL(fileURLWithPath: output + ".partial"))
            let last = try await Self.batch([input, output] + flags)
            #expect(last.status == 0 && last.errors.contains("Going on after"), "\(last.errors)")
            let all = try Data(contentsOf: URL(fileURLWithPath: output))
            let end = try #require(written.lastIndex(of: UInt8(ascii: "\n")))
            #expect(all.starts(with: written[...end]))
            // The whole batch from the same record: the same bytes.
            let again = Self.path(folder, "again.jsonl")
            try Data(record.utf8).write(to: URL(fileURLWithPath: again + ".partial.json"))
            try Data().write(to: URL(fileURLWithPath: again + ".partial"))
            let second = try await Self.batch([input, again] + flags)
            #expect(second.status == 0, "\(second.errors)")
            #expect(try Data(contentsOf: URL(fileURLWithPath: again)) == all)
        }
    }

    @Test("targets are scored and inputs are encoded, as the gateway does one by one")
    func otherTasks() async throws {
        try await Self.withFolder { folder in
            let input = Self.path(folder, "in.jsonl")
            let line = #"{"text": "my <extra_id_0> for a horse!", "targetText": "<extra_id_0> kingdom"}"#
            try Data(line.utf8).write(to: URL(fileURLWithPath: input))
            let (scores, vectors) = (Self.path(folder, "scores.jsonl"), Self.path(folder, "vectors.jsonl"))
            let local = ["--local", TestCluster.miniature]
            let scored = try await Self.batch([input, scores, "--task", "score"] + local)
            #expect(scored.status == 0, "\(scored.errors)")
            let score = try String(contentsOfFile: scores, encoding: .utf8)
            #expect(score.contains("totalLogprob") && score.contains("logprobs"), "\(score)")
            let texts = Self.path(folder, "in.txt")
            try Data("my <extra_id_0> for a horse!".utf8).write(to: URL(fileURLWithPath: texts))
            let encoded = try await Self.batch([texts, vectors, "--task", "encode", "--pooling", "mean"] + local)
            #expect(encoded.status == 0, "\(encoded.errors)")
            let vector = try String(contentsOfFile: vectors, encoding: .utf8)
            #expect(vector.contains("hiddenStates"), "\(vector.prefix(200))")
            let refused = try await Self.batch([texts, vectors, "--task", "score"] + local)
            #expect(refused.status != 0 && refused.errors.contains("no target"), "\(refused.errors)")
        }
    }

    @Test("a batch whose gateway is killed waits for the next one, and goes on by itself")
    func gatewayAway() async throws {
        try await Self.withFolder { folder in
            let input = Self.path(folder, "in.txt")
            let prompts = try TestCluster.prompts().map(\.prompt)
            let lines = (0..<40).map { prompts[$0 % prompts.count] + " \($0)" }
            try Data(lines.joined(separator: "\n").utf8).write(to: URL(fileURLWithPath: input))
            let (here, there) = (Self.path(folder, "here.jsonl"), Self.path(folder, "there.jsonl"))
            let flags = ["--max-new-tokens", "12", "--seed", "0"]
            let local = try await Self.batch([input, here, "--local", TestCluster.miniature] + flags)
            #expect(local.status == 0, "\(local.errors)")
            try await TestCluster.runProcesses(pools: 2, onGatewayExit: .restart) { cluster in
                async let batch = Self.batch(
                    [input, there, "--endpoint", cluster.gatewayAddress, "--in-flight", "4"] + flags
                )
                let gateway = try #require(cluster.gateway.running.first)
                while (try? Data(contentsOf: URL(fileURLWithPath: there + ".partial")))?.isEmpty ?? true {
                    try await Task.sleep(for: .milliseconds(5))
                }
                signal(SIGKILL, to: gateway)
                let output = try await batch
                #expect(output.status == 0, "\(output.errors)")
            }
            #expect(try Data(contentsOf: URL(fileURLWithPath: here)) == Data(contentsOf: URL(fileURLWithPath: there)))
        }
    }
}
