// SPDX-License-Identifier: Apache-2.0

import Foundation
import PeerTools
import Testing

/// Counts that do not depend on the machine's mood, compared with the committed ones of Tests/Allocations/thresholds.json.
@Suite("Counted work", .serialized, .timeLimit(.minutes(30)))
struct CountTests {
    /// The most that a piece of work may cost in the build that is tested, by its name.
    private static let thresholds: [String: Double] = {
        #if DEBUG
        let build = "debug"
        #else
        let build = "release"
        #endif
        let path = BenchProgram.root.appendingPathComponent("Tests/Allocations/thresholds.json")
        guard let data = try? Data(contentsOf: path),
            let all = try? JSONDecoder().decode([String: [String: Double]].self, from: data)
        else { return [:] }
        return all[build] ?? [:]
    }()

    /// A program of this machine, found on PATH.
    private static func program(_ names: String...) -> String? {
        let folders = (ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin").split(separator: ":")
        return names.lazy.flatMap { name in folders.map { "\($0)/\(name)" } }
            .first { FileManager.default.isExecutableFile(atPath: $0) }
    }

    private static let compiler = Self.program("clang", "cc", "gcc")
    private static let valgrind = Self.program("valgrind")
    /// Takes debugging information out of a copy of the program: valgrind gives up on that of builds without optimisation.
    private static let copier = Self.program("llvm-objcopy", "objcopy")
    private static var canCountInstructions: Bool {
        Self.valgrind != nil && Self.copier != nil && Self.compiler != nil
    }

    /// A library of Tests/Allocations to preload, built for this test.
    private func withLibrary<Result>(_ name: String, _ body: (String) async throws -> Result) async throws -> Result {
        let compiler = try #require(Self.compiler)
        let library = FileManager.default.temporaryDirectory.appendingPathComponent("count-\(UUID().uuidString).so")
            .path
        defer { try? FileManager.default.removeItem(atPath: library) }
        let source = BenchProgram.root.appendingPathComponent("Tests/Allocations/\(name).c").path
        let built = try await PeerProcess.run(compiler, ["-O1", "-shared", "-fPIC", source, "-o", library, "-ldl"])
        try #require(built.status == 0, "\(built.errors)")
        return try await body(library)
    }

    /// The number before some words in a program's output.
    private func number(before words: String, in line: Substring) -> Double? {
        guard let end = line.range(of: words) else { return nil }
        return line[..<end.lowerBound].split(separator: " ").last.flatMap { Double($0) }
    }

    /// Compares a count with what is committed.
    private func check(_ name: String, _ count: Double) {
        guard let most = Self.thresholds[name] else {
            Issue.record("thresholds.json has no \"\(name)\", which is \(count) here")
            return
        }
        #expect(count <= most, "\(name): \(count), more than the committed \(most)")
        // A threshold that is far away finds nothing.
        #expect(count >= most * 0.7, "\(name): \(count), far below the committed \(most); lower it")
    }

    @Test(
        "a warm decoder step allocates no more than is committed, at both ends of its calls together",
        .enabled(if: CountTests.compiler != nil, "no C compiler is on PATH, so allocations cannot be counted"),
        arguments: [1, 8],
        [0, 2]
    )
    func stepAllocations(batch: Int, hosts: Int) async throws {
        let count = try await self.allocations(
            per: "decoder step",
            ["count-steps", BenchProgram.miniature, "--batch", "\(batch)", "--hosts", "\(hosts)"]
        )
        let way = hosts > 0 ? " through \(hosts) hosts" : ""
        self.check("allocations of a step\(way), batch \(batch)", count)
    }

    /// The allocations that a command counts for one of its pieces of work.
    private func allocations(per piece: String, _ command: [String]) async throws -> Double {
        try await self.withLibrary("count_allocations") { library in
            let output = try await PeerProcess.run(
                "/usr/bin/env",
                ["LD_PRELOAD=\(library)", BenchProgram.path] + command
            )
            #expect(output.status == 0, "\(output.errors)")
            let counts = output.text.split(separator: "\n")
                .compactMap { self.number(before: " allocations per \(piece)", in: $0) }
            return try #require(counts.first, "\(output.text)")
        }
    }

    @Test(
        "a call allocates no more than is committed",
        .enabled(if: CountTests.compiler != nil, "no C compiler is on PATH, so allocations cannot be counted"),
        arguments: [1, 64]
    )
    func callAllocations(inFlight: Int) async throws {
        let count = try await self.allocations(
            per: "call",
            ["count-calls", "--calls", "2048", "--in-flight", "\(inFlight)"]
        )
        self.check("allocations of a call, \(inFlight) in flight", count)
    }

    @Test(
        "a call takes no more instructions than are committed",
        .enabled(
            if: CountTests.canCountInstructions,
            "valgrind, objcopy or a C compiler is not installed, so instructions cannot be counted"
        ),
        arguments: [1, 64]
    )
    func callInstructions(inFlight: Int) async throws {
        let each = try await self.instructions(
            of: "--calls",
            from: 64,
            to: 192,
            ["count-calls", "--in-flight", "\(inFlight)", "--warm-up", "64"]
        )
        self.check("instructions of a call, \(inFlight) in flight", each)
    }

    @Test(
        "a decoder step takes no more instructions than are committed",
        .enabled(
            if: CountTests.canCountInstructions,
            "valgrind, objcopy or a C compiler is not installed, so instructions cannot be counted"
        ),
        arguments: [1, 8]
    )
    func stepInstructions(batch: Int) async throws {
        let each = try await self.instructions(
            of: "--steps",
            from: 2,
            to: 10,
            ["count-steps", BenchProgram.miniature, "--batch", "\(batch)"]
        )
        self.check("instructions of a step, batch \(batch)", each)
    }

    /// What a piece of work takes: the difference between processes that do more and less of it, divided.
    private func instructions(
        of option: String,
        from few: Int,
        to many: Int,
        _ command: [String]
    ) async throws -> Double {
        let copier = try #require(Self.copier)
        let program = FileManager.default.temporaryDirectory.appendingPathComponent("bench-\(UUID().uuidString)").path
        defer { try? FileManager.default.removeItem(atPath: program) }
        let copied = try await PeerProcess.run(copier, ["--strip-debug", BenchProgram.path, program])
        try #require(copied.status == 0, "\(copied.errors)")
        return try await self.withLibrary("copy_signal_mask") { library in
            let least = try await self.instructions(program, command + [option, "\(few)"], library)
            let most = try await self.instructions(program, command + [option, "\(many)"], library)
            return ((most - least) / Double(many - few)).rounded()
        }
    }

    /// The instructions of a process.
    private func instructions(_ program: String, _ arguments: [String], _ library: String) async throws -> Double {
        let valgrind = try #require(Self.valgrind)
        let output = try await PeerProcess.run(
            "/usr/bin/env",
            [
                "LD_PRELOAD=\(library)", "SWIFT_DETERMINISTIC_HASHING=1", valgrind, "--tool=callgrind",
                "--callgrind-out-file=/dev/null", program,
            ] + arguments
        )
        #expect(output.status == 0, "\(output.errors)")
        // "==123== Collected : 1234567"
        let line = output.errors.split(separator: "\n").first { $0.contains("Collected :") }
        return try #require(line?.split(separator: " ").last.flatMap { Double($0) }, "\(output.errors)")
    }
}
