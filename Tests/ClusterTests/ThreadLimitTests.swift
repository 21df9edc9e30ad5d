// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@testable import switchyard

/// Processes that may start only a few threads.
@Suite("Too few threads", .serialized)
struct ThreadLimitTests {
    /// Runs the program as a user of its own, whose limit counts nothing else; only root can.
    private static func limited(_ threads: Int, _ arguments: [String]) async throws -> Commands.Output {
        // A user that no other test and no system has.
        let user = "\(600_000 + Int.random(in: 0..<100_000))"
        return try await Commands.run(
            "/usr/bin/env",
            [
                "timeout", "-s", "KILL", "240", "setpriv", "--reuid", user, "--regid", user, "--clear-groups",
                "prlimit", "--nproc=\(threads)", "--", TestCluster.executable,
            ] + arguments,
            environment: ["HOME": "/nonexistent"]
        )
    }

    /// Whether this process may become another user, who can reach the program.
    static let isPossible: Bool = {
        guard getuid() == 0 else { return false }
        var folder = URL(fileURLWithPath: TestCluster.executable).deletingLastPathComponent()
        while folder.path != "/" {
            var status = stat()
            guard stat(folder.path, &status) == 0, status.st_mode & 0o001 != 0 else { return false }
            folder.deleteLastPathComponent()
        }
        return ["setpriv", "prlimit", "timeout"].allSatisfy { access("/usr/bin/\($0)", X_OK) == 0 }
    }()

    static let commands: [[String]] = [
        ["expert-host", "--shard", "/nonexistent", "--threads", "1"],
        ["gateway", "--model", "/nonexistent", "--pool", "a=127.0.0.1:1"],
        ["up", TestCluster.miniature, "--listen", "127.0.0.1:0"], ["demo", "--model", TestCluster.miniature],
        ["shard", TestCluster.miniature, "--out", "/nonexistent/out", "--pools", "2"],
        ["generate", "--local", TestCluster.miniature, "my <extra_id_0>"],
        ["pull", "a/b", "--endpoint", "http://127.0.0.1:1", "--plaintext"], ["status"], ["health"],
    ]

    @Test(
        "a command says which limit, what it needs and what to do",
        .enabled(if: Self.isPossible),
        arguments: Self.commands,
        [1, 2, 4, 6]
    )
    func refused(command: [String], threads: Int) async throws {
        let output = try await Self.limited(threads, command)
        #expect(output.status == 1, "\(command): \(output)")
        let lines = output.errors.split(separator: "\n")
        #expect(lines.count == 1, "\(output.errors)")
        #expect(lines.first?.contains("switchyard \(command[0]) needs ") == true, "\(output.errors)")
        #expect(output.errors.contains("ulimit -u is \(threads)"), "\(output.errors)")
        #expect(output.errors.contains("raise the limit"), "\(output.errors)")
    }

    @Test("with whatever limit, a command ends with an answer or with a sentence", .enabled(if: Self.isPossible))
    func neverSilent() async throws {
        for threads in 7...20 {
            let output = try await Self.limited(
                threads,
                ["generate", "--local", TestCluster.miniature, "my <extra_id_0> for a horse!"]
            )
            #expect(
                output.status == 0 || output.status == 1 && output.errors.contains("more threads"),
                "\(threads): \(output)"
            )
        }
    }

    @Test("compute threads that a setting asks for count", .enabled(if: Self.isPossible))
    func computeThreads() async throws {
        let output = try await Self.limited(
            100,
            ["expert-host", "--shard", "/nonexistent", "--listen", "127.0.0.1:0", "--threads", "200"]
        )
        #expect(output.status == 1)
        #expect(output.errors.contains("switchyard expert-host needs"), "\(output.errors)")
    }
}
