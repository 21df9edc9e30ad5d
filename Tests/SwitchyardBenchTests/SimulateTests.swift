// SPDX-License-Identifier: Apache-2.0

import CommandKit
import ExpertPooling
import Foundation
import PeerTools
import PoolSimulation
import SwitchyardTypes
import Testing

@testable import switchyard_bench

@Suite("simulate")
struct SimulateTests {
    @Test("two processes simulate the same to the last digit, and print what cannot be simulated")
    func simulate() async throws {
        let arguments = [
            "simulate", "--json", "--scenario", "crash", "--hosts", "8", "--experts", "16", "--steps", "60", "--seed",
            "3",
        ]
        let first = try await PeerProcess.run(BenchProgram.path, arguments)
        let second = try await PeerProcess.run(BenchProgram.path, arguments)
        #expect(first.status == 0, "\(first.errors)")
        #expect(first.text == second.text)
        #expect(first.text.contains("\"violations\" : ["))
        let wrong = try await PeerProcess.run(BenchProgram.path, ["simulate", "--hosts", "0"])
        #expect(wrong.status != 0)
        #expect(wrong.errors.contains("hosts is 0, but must be from 1 to 65535"))
        let unknown = try await PeerProcess.run(BenchProgram.path, ["simulate", "--scenario", "flood"])
        #expect(unknown.status != 0)
        #expect(unknown.errors.contains("use one of calm, crash"))
    }

    /// `make simulation` runs the same, and the large cluster of docs/simulation.md with it.
    private static let small = ["--steps", "200", "--hosts", "16", "--experts", "64", "--sequences", "2"]

    @Test("the machines decide as they did when docs/simulation.md was written")
    func recorded() async throws {
        let kept = try Data(
            contentsOf: BenchProgram.root.appendingPathComponent("docs/images/data/simulation-small.json")
        )
        let expected = try JSONDecoder().decode([SimulationRecord].self, from: kept)
        let output = try await PeerProcess.run(BenchProgram.path, ["simulate", "--json"] + Self.small)
        #expect(output.status == 0, "\(output.errors)")
        let records = try JSONDecoder().decode([SimulationRecord].self, from: Data(output.text.utf8))
        // The large cluster takes minutes. It is made of the same decisions, so that it is stale where this one is.
        #expect(
            SimulationTable(records: records).full.text == SimulationTable(records: expected).full.text,
            "docs/simulation.md is out of date: run `make simulation`, and look at what it says of the figures"
        )
    }

    @Test("tables show what the records hold")
    func table() throws {
        var report = SimulationReport()
        report.scenario = .crash
        report.variant = .oneReplica
        report.stepTimes = (1...1000).map { $0 * 1_000_000 }
        report.rows = 1000
        report.dropped = [.init(stack: .decoder, cause: .unavailable): 23]
        report.calls = 10_000
        report.expertReads = 640
        report.hedges = 5
        report.recoveries = [1_140_000_000]
        report.tokensPerSecond = 585.7
        let record = SimulationRecord(report)
        #expect(
            SimulationTable(records: [record]).document.markdown.split(separator: "\n").last
                == "| crash | one replica | 500.0 ms | 900.0 ms | 990.0 ms | 1000.0 ms | 586 | 0.64 | 2.3 % | 0.0500 % | 0 | 0 | 1.14 s |"
        )
        #expect(SimulationTable(records: [record]).full.text.contains("unavailable"))
        // From all steps down to one of a thousand.
        #expect(record.curve.first?.fraction == 1)
        #expect(abs((record.curve.last?.fraction ?? 0) - 0.001) < 1e-9)
        #expect(record.curve.map(\.milliseconds) == record.curve.map(\.milliseconds).sorted())
        #expect(record.curve.last?.milliseconds == 1000)
        let text = try SimulationTable(records: [record]).json()
        #expect(try JSONDecoder().decode([SimulationRecord].self, from: Data(text.utf8)) == [record])
    }
}
