// SPDX-License-Identifier: Apache-2.0

import CommandKit
import Foundation
import Subprocess
import SystemPackage
import Testing

@testable import switchyard

@Suite("Output that cannot be written", .serialized)
struct OutputTests {
    /// Commands that print and need no server.
    static let commands: [[String]] = [
        ["--help"], ["--version"], ["status", "--help"], ["simulate", "--help"],
        ["config", "gateway", "--model", TestCluster.miniature, "--pool", "a=127.0.0.1:1"],
        ["generate", "--local", TestCluster.miniature, "my <extra_id_0> for a horse!"],
        ["generate", "--local", TestCluster.miniature, "--json", "my <extra_id_0> for a horse!"],
        ["plan", "--help"], ["certs", "--help"], ["pull", "--help"], ["shard", "--help"], ["demo"],
    ]

    /// Runs the program with a standard output of the test's choice.
    private static func run(
        _ arguments: [String],
        output: FileDescriptor
    ) async throws -> (status: TerminationStatus, errors: String) {
        let result = try await Subprocess.run(
            .path(FilePath(TestCluster.executable)),
            arguments: Arguments(arguments),
            workingDirectory: FilePath(TestCluster.root),
            output: .fileDescriptor(output, closeAfterSpawningProcess: true),
            error: .string(limit: 1 << 20)
        )
        return (result.terminationStatus, result.standardError)
    }

    /// Expects a quiet end by SIGPIPE if the output has no reader.
    private static func expectQuietEnd(_ arguments: [String]) async throws {
        let (reader, writer) = try FileDescriptor.pipe()
        try reader.close()
        let (status, errors) = try await Self.run(arguments, output: writer)
        #expect(status == .signaled(SIGPIPE), "\(arguments): \(status)")
        #expect(errors.isEmpty, "\(arguments): \(errors)")
    }

    /// Expects an error in words if there is no room for the output.
    private static func expectComplaint(_ arguments: [String]) async throws {
        let full = try FileDescriptor.open("/dev/full", .writeOnly)
        let (status, errors) = try await Self.run(arguments, output: full)
        #expect(status == .exited(1), "\(arguments): \(status)")
        #expect(
            errors.hasSuffix("error: cannot write standard output: No space left on device\n"),
            "\(arguments): \(errors)"
        )
    }

    @Test("a closed pipe ends a command quietly, by SIGPIPE", arguments: Self.commands)
    func closedPipe(arguments: [String]) async throws {
        try await Self.expectQuietEnd(arguments)
    }

    @Test("a full disk is an error in words, and the status is 1", arguments: Self.commands)
    func fullDisk(arguments: [String]) async throws {
        try await Self.expectComplaint(arguments)
    }

    @Test("the same holds for commands that ask a gateway")
    func gateway() async throws {
        try await TestCluster.runProcesses(pools: 1) { cluster in
            let text = "my <extra_id_0> for a horse!"
            for command in [
                ["health"], ["status"], ["status", "--json"], ["status", "--experts"], ["generate", text],
                ["generate", text, "--json"], ["generate", text, "--stream"],
            ] {
                let arguments = command + ["--endpoint", cluster.gatewayAddress]
                try await Self.expectQuietEnd(arguments)
                try await Self.expectComplaint(arguments)
            }
        }
    }

    @Test("a reader that stops early ends a command quietly, and the lines it read are whole")
    func head() async throws {
        let output = try await Commands.run(
            "/bin/sh",
            ["-c", "{ \"$0\" --help; echo \"status $?\" >&2; } | head -n 1", TestCluster.executable]
        )
        #expect(output.text.hasPrefix("OVERVIEW:"))
        #expect(!output.errors.contains("Fatal error") && !output.errors.contains("132"), "\(output.errors)")
    }
}
