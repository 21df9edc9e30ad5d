// SPDX-License-Identifier: Apache-2.0

import CommandKit
import Foundation
import PoolSimulation

/// Simulations side by side, a row each.
struct SimulationTable {
    var records: [SimulationRecord]

    /// All that a terminal shows.
    var full: TextTable {
        self.table([
            Self.scenario, Self.variant, Self.step("step p50", "p50"), Self.step("p90", "p90"),
            Self.step("p99", "p99"), Self.step("p99.9", "p99.9"), Self.step("max", "max"), Self.tokens, Self.dropped,
            Column(title: "why", alignment: .left, cell: Self.causes),
            Column(title: "calls") { "\($0.calls)" }, Self.reads, Self.hedged,
            Column(title: "retries") { "\($0.retries)" },
            Self.ejections, Self.faults, Self.recovery,
        ])
    }

    /// The columns of docs/simulation.md.
    var document: TextTable {
        self.table([
            Self.scenario, Self.variant, Self.step("step p50", "p50"), Self.step("p90", "p90"),
            Self.step("p99", "p99"), Self.step("max", "max"), Self.tokens, Self.reads, Self.dropped, Self.hedged,
            Self.ejections, Self.faults, Self.recovery,
        ])
    }

    /// The records as JSON.
    ///
    /// - Returns: The same bytes for the same simulations.
    /// - Throws: What the encoder throws.
    func json() throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
        return String(decoding: try encoder.encode(self.records), as: UTF8.self)
    }

    private struct Column {
        var title: String
        var alignment = TextTable.Alignment.right
        var cell: (SimulationRecord) -> String
    }

    private static var scenario: Column { Column(title: "scenario", alignment: .left) { $0.scenario } }
    private static var variant: Column { Column(title: "with", alignment: .left) { $0.variant } }
    private static var tokens: Column {
        Column(title: "tokens/s") { String(format: "%.0f", $0.tokensPerSecond) }
    }
    private static var reads: Column {
        Column(title: "reads/row") { record in
            record.expertReads.map { String(format: "%.2f", Double($0) / Double(max(1, record.rows))) } ?? ""
        }
    }
    private static var dropped: Column { Column(title: "dropped") { Self.part($0.droppedRows, of: $0.rows) } }
    private static var hedged: Column { Column(title: "hedged") { Self.part($0.hedges, of: $0.calls) } }
    private static var ejections: Column { Column(title: "ejections") { "\($0.ejections)" } }
    private static var faults: Column { Column(title: "faults") { "\($0.faults)" } }
    private static var recovery: Column {
        Column(title: "back after") { $0.longestRecoverySeconds.map { String(format: "%.2f s", $0) } ?? "" }
    }

    private static func step(_ title: String, _ percentile: String) -> Column {
        Column(title: title) { String(format: "%.1f ms", ($0.stepSeconds[percentile] ?? 0) * 1000) }
    }

    private func table(_ columns: [Column]) -> TextTable {
        var table = TextTable(columns.map { ($0.title, $0.alignment) })
        for record in self.records { table.add(columns.map { $0.cell(record) }) }
        return table
    }

    private static func causes(_ record: SimulationRecord) -> String {
        var byCause: [String: Int] = [:]
        for (drop, rows) in record.dropped {
            byCause[drop.split(separator: " ").last.map(String.init) ?? drop, default: 0] += rows
        }
        return byCause.sorted { ($1.value, $0.key) < ($0.value, $1.key) }
            .map { byCause.count == 1 ? $0.key : "\($0.key) \($0.value)" }
            .joined(separator: ", ")
    }

    private static func part(_ count: Int, of all: Int) -> String {
        guard count > 0, all > 0 else { return "0" }
        let percent = 100 * Double(count) / Double(all)
        return String(format: percent < 0.1 ? "%.4f %%" : "%.1f %%", percent)
    }
}
