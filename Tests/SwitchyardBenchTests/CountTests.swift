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

    /// Whether valgrind can run the program: it gives up on the debugging information of builds without optimisation.
    private static var canCountInstructions: Bool {
        #if DEBUG
        false
        #else
        Self.valgrind != nil
        #endif
    }

    /// The library that counts allocations, built for this test.
    private func withCounter<Result>(_ body: (String) async throws -> Result) async throws -> Result {
        let compiler = try #require(Self.compiler)
        let library = FileManager.default.temporaryDirectory.appendingPathComponent("count-\(UUID().uuidString).so")
            .path
        defer { try? FileManager.default.removeItem(atPath: library) }
        let source = BenchProgram.root.appendingPathComponent("Tests/Allocations/count_allocations.c").path
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
        "a warm decoder step allocates no more than is committed",
        .enabled(if: CountTests.compiler != nil, "no C compiler is on PATH, so allocations cannot be counted"),
        arguments: [1, 8]
    )
    func stepAllocations(batch: Int) async throws {
        try await self.withCounter { library in
            let output = try await PeerProcess.run(
                "/usr/bin/env",
                [
                    "LD_PRELOAD=\(library)", BenchProgram.path, "model", BenchProgram.miniature, "--batch", "\(batch)",
                    "--input-tokens", "8", "--new-tokens", "24", "--runs", "1", "--threads", "1",
                ]
            )
            #expect(output.status == 0, "\(output.errors)")
            let counts = output.text.split(separator: "\n")
                .compactMap { self.number(before: " allocations per decoder step", in: $0) }
            self.check("allocations of a step, batch \(batch)", try #require(counts.first, "\(output.text)"))
        }
    }

    @Test(
        "a call allocates no more than is committed",
        .enabled(if: CountTests.compiler != nil, "no C compiler is on PATH, so allocations cannot be counted"),
        arguments: [1, 64]
    )
    func callAllocations(inFlight: Int) async throws {
        try await self.withCounter { library in
            let output = try await PeerProcess.run(
                "/usr/bin/env",
                [
                    "LD_PRELOAD=\(library)", BenchProgram.path, "count-calls", "--calls", "2048", "--in-flight",
                    "\(inFlight)",
                ]
            )
            #expect(output.status == 0, "\(output.errors)")
            let counts = output.text.split(separator: "\n")
                .compactMap { self.number(before: " allocations per call", in: $0) }
            self.check("allocations of a call, \(inFlight) in flight", try #require(counts.first, "\(output.text)"))
        }
    }

    @Test(
        "a call takes no more instructions than are committed",
        .enabled(
            if: CountTests.canCountInstructions,
            "valgrind is not installed, or cannot read this build without optimisation: no instructions can be counted"
        ),
        arguments: [1, 64]
    )
    func callInstructions(inFlight: Int) async throws {
        let few = try await self.instructions(calls: 128, inFlight: inFlight)
        let many = try await self.instructions(calls: 640, inFlight: inFlight)
        self.check("instructions of a call, \(inFlight) in flight", ((many - few) / 512).rounded())
    }

    /// The instructions of a process that makes some calls.
    private func instructions(calls: Int, inFlight: Int) async throws -> Double {
        let valgrind = try #require(Self.valgrind)
        let output = try await PeerProcess.run(
            valgrind,
            [
                "--tool=callgrind", "--callgrind-out-file=/dev/null", BenchProgram.path, "count-calls", "--calls",
                "\(calls)", "--in-flight", "\(inFlight)",
            ]
        )
        #expect(output.status == 0, "\(output.errors)")
        // "==123== Collected : 1234567"
        let line = output.errors.split(separator: "\n").first { $0.contains("Collected :") }
        return try #require(line?.split(separator: " ").last.flatMap { Double($0) }, "\(output.errors)")
    }
}
