// SPDX-License-Identifier: Apache-2.0

import CommandKit
import FaultTools
import Foundation
import Testing

@testable import switchyard

@Suite("Receipts of a cluster", .serialized)
struct ReceiptCommandTests {
    private static let prompt =
        "Now is the winter of our <extra_id_0> Made glorious summer by this <extra_id_1> of York;"

    private static func verify(_ arguments: [String]) async throws -> Commands.Output {
        try await Commands.run(TestCluster.executable, ["verify"] + arguments)
    }

    @Test("generate writes a receipt, streamed or not, and verify computes the answer again")
    func commands() async throws {
        let folder = FileManager.default.temporaryDirectory.appending(path: "switchyard-receipts-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        @Sendable func file(_ name: String) -> String { folder.appending(path: name).path(percentEncoded: false) }
        try await TestCluster.runProcesses(pools: 2) { cluster in
            let remote = ["--endpoint", cluster.gatewayAddress]
            let local = ["--local", TestCluster.miniature, "--threads", "1"]
            for (name, flags) in [
                ("plain", remote), ("stream", remote + ["--stream"]), ("local", local),
                ("beams", remote + ["--beams", "3"]),
            ] {
                let output = try await Commands.run(
                    TestCluster.executable,
                    ["generate"] + flags + ["--receipt", file(name), Self.prompt]
                )
                #expect(output.status == 0, "\(output.errors)")
                #expect(output.text.contains("discontent"))
                // Routes are recorded, and printed only where they are asked for.
                #expect(!output.text.contains("encoder 1"), "\(output.text)")
            }
        }
        // One receipt, for a cluster and for a model in this process, streamed or not.
        #expect(try Data(contentsOf: URL(filePath: file("plain"))) == Data(contentsOf: URL(filePath: file("stream"))))
        #expect(try Data(contentsOf: URL(filePath: file("plain"))) == Data(contentsOf: URL(filePath: file("local"))))
        let all = ["plain", "stream", "local", "beams"].map(file)
        let good = try await Self.verify(all + ["--model", TestCluster.miniature])
        #expect(good.status == 0, "\(good.errors)")
        #expect(good.text.split(separator: "\n").count == 4)
        #expect(good.text.split(separator: "\n").allSatisfy { $0.contains(": verified: ") }, "\(good.text)")
        let text = try String(contentsOfFile: file("plain"), encoding: .utf8)
        try text.replacing("\"finish_reason\": \"END_OF_SEQUENCE\"", with: "\"finish_reason\": \"STOP\"")
            .write(toFile: file("changed"), atomically: true, encoding: .utf8)
        let bad = try await Self.verify([
            file("changed"), file("missing"), file("plain"), "--model", TestCluster.miniature,
        ])
        #expect(bad.status == 1)
        let lines = bad.text.split(separator: "\n")
        #expect(lines.count == 3)
        #expect(lines.first?.contains("NOT verified: the receipt's digests.generations is") == true, "\(bad.text)")
        #expect(lines.dropFirst().first?.contains("cannot be opened") == true, "\(bad.text)")
        #expect(lines.last?.contains(": verified: ") == true, "\(bad.text)")
    }

    @Test("receipts made with one instruction set are verified with another, and each tampering is found")
    func levels() async throws {
        let workspace = try FaultWorkspace(executable: TestCluster.executable)
        defer { workspace.discard() }
        let outcome = try await ReceiptTrial(workspace) { _ in }.run(count: 48, tamperings: 100)
        #expect(outcome.receipts == 48)
        #expect(outcome.withDrops >= 4, "\(outcome.lines)")
        #expect(outcome.mismatches == [])
        #expect(outcome.tampered == 100)
        #expect(outcome.missed == [])
    }

    @Test("a level that this machine does not have is refused with those that it has")
    func unknownLevel() async throws {
        let output = try await Commands.run(
            "/usr/bin/env",
            ["SWITCHYARD_KERNELS=sse", TestCluster.executable, "--version"]
        )
        #expect(output.status != 0)
        #expect(output.errors.contains("SWITCHYARD_KERNELS is \"sse\"; this machine computes with portable"))
    }
}
