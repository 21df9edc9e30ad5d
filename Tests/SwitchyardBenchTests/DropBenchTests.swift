// SPDX-License-Identifier: Apache-2.0

import Figures
import Foundation
import PeerTools
import Testing
import Tokenization

@testable import switchyard_bench

@Suite("bench drops")
struct DropBenchTests {
    private func task(_ part: SpanCorruption.Part = .known) throws -> SpanCorruption {
        let text = try String(contentsOfFile: BenchProgram.miniature + "/scenes.txt", encoding: .utf8)
        return try SpanCorruption(text: text, tokenizer: Tokenizer(directory: BenchProgram.miniature), part: part)
    }

    @Test("examples put back together are pieces of the text", arguments: [SpanCorruption.Part.known, .heldOut])
    func examples(part: SpanCorruption.Part) throws {
        let tokenizer = try Tokenizer(directory: BenchProgram.miniature)
        let text = try String(contentsOfFile: BenchProgram.miniature + "/scenes.txt", encoding: .utf8)
        let tokens = Array(tokenizer.encode(text).dropLast())
        let examples = try self.task(part).examples(positions: 120, seed: 5)
        #expect(examples == (try self.task(part).examples(positions: 120, seed: 5)))
        #expect(examples.reduce(0) { $0 + $1.target.count } >= 120)
        let boundary = tokens.count - 400
        for example in examples {
            // Each span of the target goes where its sentinel stands in the input.
            var spans: [Int32: [Int32]] = [:]
            var sentinel: Int32 = -1
            for token in example.target.dropLast() {
                if token >= 1948 { sentinel = token } else { spans[sentinel, default: []].append(token) }
            }
            #expect(spans.count >= 1)
            #expect(example.target.last == 1)
            #expect(example.input.last == 1)
            let whole = example.input.dropLast().flatMap { $0 >= 1948 ? spans[$0] ?? [] : [$0] }
            #expect(SpanCorruption.lengths.contains(whole.count))
            let places = (0...(tokens.count - whole.count))
                .filter { tokens[$0..<($0 + whole.count)].elementsEqual(whole) }
            #expect(places.contains { part == .known ? $0 + whole.count <= boundary : $0 >= boundary })
        }
    }

    @Test("prints tables, JSON and a figure; losing nothing changes nothing")
    func command() async throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("switchyard-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let json = folder.appendingPathComponent("drops.json")
        let svg = folder.appendingPathComponent("drops.svg")
        let output = try await PeerProcess.run(
            BenchProgram.path,
            [
                "drops", "--model", BenchProgram.miniature, "--positions", "10", "--seeds", "2", "--pools", "2",
                "--fraction", "0", "--fraction", "0.3", "--json", json.path, "--svg", svg.path,
            ]
        )
        #expect(output.status == 0, "\(output.errors)")
        #expect(output.text.contains("30 % of rows"))
        #expect(output.text.contains("1 of 2 pools"))
        #expect(try String(contentsOf: svg, encoding: .utf8).contains("What dropped tokens cost"))

        let report = try #require(
            try JSONSerialization.jsonObject(with: Data(contentsOf: json)) as? [String: Any]
        )
        let undisturbed = try #require(report["undisturbed"] as? [String: Double])
        let positions = try #require(undisturbed["positions"])
        #expect(positions >= 10)
        #expect(try #require(undisturbed["correct"]) > positions * 0.5)
        let cells = try #require(report["cells"] as? [[String: Any]])
        #expect(cells.count == 3 * 6)
        for cell in cells {
            let fraction = try #require(cell["fraction"] as? Double)
            let runs = try #require(cell["runs"] as? [[String: Double]])
            let kind = try #require(cell["loss"] as? String)
            #expect(runs.count == (kind == "missing" ? Int(1 / fraction) : fraction == 0 ? 1 : 2))
            for run in runs {
                let routed = try #require(run["routed"])
                let dropped = try #require(run["dropped"])
                #expect(routed > 0)
                if fraction == 0 {
                    #expect(dropped == 0)
                    #expect(run["correct"] == undisturbed["correct"])
                    #expect(run["loss"] == undisturbed["loss"])
                    #expect(run["agreeing"] == positions)
                } else if kind == "rows" {
                    #expect(abs(dropped / routed - fraction) < 0.2)
                }
            }
        }
        // Each host is dead in one run, so together they miss what all have, but for tokens that go elsewhere once an
        // earlier layer's output is missing.
        let halves = try #require(cells.last { $0["label"] as? String == "1 of 2 pools" })
        let runs = try #require(halves["runs"] as? [[String: Double]])
        let missed = runs.reduce(0) { $0 + ($1["dropped"] ?? 0) } / (runs.first?["routed"] ?? 1)
        #expect(abs(missed - 1) < 0.1)
    }

    @Test(
        "what cannot be measured is said",
        arguments: [
            (["--fraction", "1.5"], "1.5"), (["--pools", "9"], "1 through 8"), (["--part", "both"], "held-out"),
            (["--text", "/nowhere/at/all"], "/nowhere/at/all"), (["--positions", "0"], "positions"),
        ]
    )
    func refusals(arguments: [String], part: String) async throws {
        let output = try await PeerProcess.run(
            BenchProgram.path,
            ["drops", "--model", BenchProgram.miniature] + arguments
        )
        #expect(output.status > 0)
        #expect(output.errors.contains(part), "\(output.errors)")
    }
}
