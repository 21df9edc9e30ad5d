// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@testable import switchyard

@Suite("switchyard upcycle", .serialized)
struct UpcycleCommandTests {
    private static let t5 = "\(TestCluster.root)/Tests/Fixtures/dense/t5"

    @Test("writes a folder that inspect finds sound, with the dense model's generation settings")
    func upcycles() async throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("upcycle-\(UUID().uuidString)").path
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let arguments = ["upcycle", Self.t5, "--experts", "4", "--out", folder]
        let made = try await Commands.run(TestCluster.executable, arguments)
        #expect(made.status == 0, "\(made.errors)")
        #expect(made.text.contains("2 sparse layers of 4 experts"), "\(made.text)")
        let command = try #require(made.text.firstMatch(of: /Next:  switchyard (.*)/)?.1)
        let inspected = try await Commands.run(
            TestCluster.executable,
            command.split(separator: " ").map(String.init)
        )
        #expect(inspected.status == 0, "\(inspected.text) \(inspected.errors)")
        let settings = try Data(contentsOf: URL(fileURLWithPath: "\(folder)/generation_config.json"))
        #expect(settings == (try Data(contentsOf: URL(fileURLWithPath: "\(Self.t5)/generation_config.json"))))
        // The same seed gives the same bytes, and what is there stays there.
        let weights = try Data(contentsOf: URL(fileURLWithPath: "\(folder)/model.safetensors"))
        let again = try await Commands.run(TestCluster.executable, arguments)
        #expect(again.status == 1)
        #expect(again.errors.contains("exists and is not empty"), "\(again.errors)")
        try FileManager.default.removeItem(atPath: folder)
        let repeated = try await Commands.run(TestCluster.executable, arguments)
        #expect(repeated.status == 0)
        #expect(try Data(contentsOf: URL(fileURLWithPath: "\(folder)/model.safetensors")) == weights)
        try FileManager.default.removeItem(atPath: folder)
        let other = try await Commands.run(TestCluster.executable, arguments + ["--seed", "1"])
        #expect(other.status == 0)
        #expect(try Data(contentsOf: URL(fileURLWithPath: "\(folder)/model.safetensors")) != weights)
    }

    @Test(
        "says what it cannot do",
        arguments: [
            (["--experts", "1"], "2 through 4096"), (["--scale", "twice"], "compensated or plain"),
            (["--router-deviation", "11"], "0 to 10"), (["--sparse-step", "5"], "steps 1, 2"),
        ]
    )
    func refused(more: [String], part: String) async throws {
        let output = try await Commands.run(
            TestCluster.executable,
            ["upcycle", Self.t5, "--out", "/tmp/never-written"] + more
        )
        #expect(output.status != 0)
        #expect(output.errors.contains(part), "\(output.errors)")
    }
}
