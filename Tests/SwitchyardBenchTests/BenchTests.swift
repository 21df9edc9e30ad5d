// SPDX-License-Identifier: Apache-2.0

import Foundation
import PeerTools
import SwitchyardTypes
import Testing

@testable import switchyard_bench

/// The benchmarks as commands, at the smallest sizes that do all there is to do.
@Suite("Benchmarks", .serialized)
struct BenchTests {
    /// Runs a benchmark and reads what it wrote.
    private func report(_ arguments: [String], rows: String) async throws -> BenchReport {
        let file = FileManager.default.temporaryDirectory.appendingPathComponent("switchyard-\(UUID().uuidString).json")
            .path
        defer { try? FileManager.default.removeItem(atPath: file) }
        let output = try await PeerProcess.run(
            BenchProgram.path,
            arguments + ["--json", file, "--markdown"]
        )
        #expect(output.status == 0, "\(output.errors)")
        #expect(output.text.contains(rows), "\(output.text)")
        #expect(output.text.contains("packed product:"), "the machine is not named")
        let report = try BenchReport(contentsOf: file)
        for figure in report.figures {
            #expect(!figure.values.isEmpty)
            let isSound = figure.values.allSatisfy { $0.isFinite && ($0 > 0 || figure.work == "dropped") }
            #expect(isSound, "\(figure)")
        }
        return report
    }

    @Test("frozen: training and serving, alone and both at once, with answers that keep their bits")
    func frozen() async throws {
        let report = try await self.report(
            [
                "frozen", BenchProgram.miniature, "--batch-examples", "2", "--words", "3", "--input-tokens", "4",
                "--new-tokens", "3", "--streams", "2", "--seconds", "0.2", "--rounds", "2", "--threads", "2",
            ],
            rows: "Every answer had the tokens and the score"
        )
        for work in ["training step", "training outputs", "training gradients", "serving p50", "serving p99"] {
            for system in ["alone", "both", "ratio"] {
                let figure = try #require(report.figure(work, 2, system), "\(work), \(system)")
                #expect(figure.values.count == 2)
            }
        }
        let alone = try #require(report.figure("training step", 2, "alone"))
        let outputs = try #require(report.figure("training outputs", 2, "alone"))
        #expect(outputs.median < alone.median)
    }

    @Test("kernels: every type, beside the read loop and OpenBLAS")
    func kernels() async throws {
        let report = try await self.report(
            [
                "kernels", "--shape", "96x40", "--rows", "1", "--rows", "3", "--runs", "2", "--seconds", "0",
                "--working-set", "1", "--threads", "2",
            ],
            rows: "| 96x40 |"
        )
        let systems = Set(report.figures.map(\.system))
        #expect(systems == ["OpenBLAS", "float32", "bfloat16", "int8"])
        #expect(report.versions["OpenBLAS"]?.hasSuffix("1 thread for each part") == true)
        #expect(report.figures.count == 2 * systems.count)
        let figure = try #require(report.figure("96x40, 2 threads", 3, "bfloat16"))
        #expect(figure.values.count == 2)
        #expect(figure.details["bytes"] == Double(96 * 40 * 2))
        let rates = try #require(figure.details["gb_per_second"])
        #expect(abs(rates - figure.median * 96 * 40 * 2 / (2 * 3 * 96 * 40)) < 1e-9)
        #expect(try #require(figure.details["read_gb_per_second"]) > 0)
    }

    @Test("model: rates, and the bytes of a step")
    func model() async throws {
        let report = try await self.report(
            [
                "model", BenchProgram.miniature, "--batch", "1", "--batch", "2", "--input-tokens", "8", "--new-tokens",
                "2", "--runs", "2", "--threads", "2",
            ],
            rows: "| batch |"
        )
        #expect(report.figures.count == 6)
        #expect(try #require(report.figure("prefill", 2, "Switchyard")).values.count == 2)
        let one = try #require(report.figure("decode", 1, "Switchyard"))
        let two = try #require(report.figure("decode", 2, "Switchyard"))
        let bytes = try #require(one.details["bytes_per_step"])
        #expect(bytes > 100_000)
        // A second token goes to another expert or to the same one.
        #expect(try #require(two.details["bytes_per_step"]) >= bytes)
        #expect(try #require(one.details["fraction_of_read_bandwidth"]) > 0)
    }

    @Test("experts: hosts and this process, with equal bits")
    func experts() async throws {
        let report = try await self.report(
            [
                "experts", "--experts", "4", "--width", "16", "--inner", "32", "--tokens", "1", "--tokens", "5",
                "--calls", "3", "--runs", "2",
            ],
            rows: "| 2 hosts |"
        )
        #expect(Set(report.figures.map(\.system)) == ["2 hosts", "in this process"])
        #expect(Set(report.figures.map(\.work)) == ["p50", "p99"])
        #expect(report.figures.count == 8)
    }

    @Test("scale: more experts, the same weights")
    func scale() async throws {
        let report = try await self.report(
            [
                "scale", "--experts", "2", "--experts", "16", "--weights", "2", "--batch", "1", "--batch", "6",
                "--blocks", "2", "--width", "16", "--inner", "32", "--heads", "1", "--vocabulary", "40", "--steps", "2",
                "--runs", "2", "--threads", "1",
            ],
            rows: "as with the fewest experts"
        )
        // A single token reads one expert's weights in either way, and is measured once.
        #expect(report.figures.count == 2 + 4)
        let few = try #require(report.figure("a token at batch 6", 2, "each expert's own"))
        let many = try #require(report.figure("a token at batch 6", 16, "each expert's own"))
        #expect(try #require(few.details["experts_touched"]) <= 2)
        #expect(try #require(many.details["experts_touched"]) > 2)
    }

    @Test("cluster: rates of encoding and decoding, and who dropped nothing")
    func cluster() async throws {
        let report = try await self.report(
            [
                "cluster", BenchProgram.miniature, "--batch", "2", "--input-tokens", "6", "--new-tokens", "8", "--runs",
                "2", "--threads", "1", "--host-threads", "1",
            ],
            rows: "| batch |"
        )
        #expect(Set(report.figures.map(\.work)).isSuperset(of: ["encode", "decode", "dropped"]))
    }

    @Test("compare: systems take turns; what is missing or breaks is skipped and said")
    func compare() async throws {
        let own =
            "\(BenchProgram.path) model \(BenchProgram.miniature) --turns --batch 1 --input-tokens 4 "
            + "--new-tokens 2 --threads 1"
        let other = "while read case; do echo '{\"value\": 2.5, \"unit\": \"tokens/s\"}'; done"
        let ready =
            "echo noise; echo '{\"ready\": true, \"versions\": \"v1\", \"cases\": [{\"work\": \"decode\", \"size\": 1}]}'"
        let report = try await self.report(
            [
                "compare", "--rounds", "2", "--baseline", "peer", "--system", "own=\(own)",
                "--system", "peer=sh -c \"\(Self.quoted("\(ready); \(other)"))\"",
                "--system", "absent=echo '{\"skipped\": \"not installed\"}'", "--system", "gone=/nowhere/at/all",
                "--system", "breaks=sh -c \"\(Self.quoted("\(ready); read case; echo '{\"error\": \"too small\"}'"))\"",
            ],
            rows: "| decode | 1 | peer | 2.50 tokens/s | 2.50 to 2.50 | 1.00 |"
        )
        #expect(report.skipped["absent"] == "not installed")
        #expect(report.skipped["gone"]?.contains("exited") == true)
        #expect(report.skipped["breaks"]?.contains("too small") == true)
        #expect(report.versions["peer"] == "v1")
        #expect(report.figure("decode", 1, "own")?.values.count == 2)
        #expect(report.figure("encode", 1, "own")?.values.count == 2)
        #expect(report.figure("encode", 1, "peer") == nil)
    }

    /// A text inside a shell's double quotes.
    private static func quoted(_ text: String) -> String {
        text.replacingOccurrences(of: "\\", with: "\\\\").replacingOccurrences(of: "\"", with: "\\\"")
            .replacingOccurrences(of: "$", with: "\\$")
    }

    @Test("remote experts take turns too")
    func expertTurns() async throws {
        let own = "\(BenchProgram.path) experts --turns --experts 2 --width 8 --inner 8 --calls 2 --tokens 3"
        let report = try await self.report(
            ["compare", "--rounds", "1", "--system", "own=\(own)", "--size-name", "tokens"],
            rows: "| remote layer | 3 | own |"
        )
        #expect(report.figure("remote layer", 3, "own")?.details["p99_ms"] ?? 0 > 0)
    }

    @Test(
        "what cannot be measured is said",
        arguments: [
            (["kernels", "--shape", "3x"], "3x"), (["kernels", "--dtype", "float8"], "float8"),
            (["kernels", "--rows", "0"], "65536"), (["kernels", "--threads", "0"], "1024"),
            (["model", "/nowhere/at/all"], "/nowhere/at/all"), (["model", "x", "--batch", "0"], "--batch is 0"),
            (["model", "x", "--runs", "0"], "--runs"), (["experts", "--hosts", "0"], "--hosts"),
            (["experts", "--experts", "2", "--width", "4", "--inner", "4", "--hosts", "3"], "3 pools"),
            (["scale", "--experts", "4"], "--experts is 4"), (["scale", "--dtype", "int3"], "int3"),
            (["compare"], "--system"), (["compare", "--system", "x"], "name=command"),
            (["compare", "--system", "a=b", "--system", "a=c"], "same name"),
            (["compare", "--system", "a=b", "--baseline", "c"], "baseline"),
            (["plot", "/nowhere/at/all"], "--json"), (["plot", "/dev/null"], "/dev/null"),
        ]
    )
    func refusals(arguments: [String], part: String) async throws {
        let output = try await PeerProcess.run(BenchProgram.path, arguments)
        #expect(output.status > 0, "\(output.text)")
        #expect(output.errors.contains(part), "\(output.errors)")
    }
}
