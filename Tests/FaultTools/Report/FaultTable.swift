// SPDX-License-Identifier: Apache-2.0

internal import Foundation

/// The results as the table of `docs/reliability.md`.
package enum FaultTable {
    private static let titles = [
        "Fault", "Replica", "Calls", "Failed", "Other ids", "Tokens lost", "Longest stall", "Throughput lost",
        "Back after", "Result",
    ]

    private static let hostileTitles = [
        "Fault", "Replica", "Calls", "Failed", "Other ids", "Tokens lost", "Longest stall", "Wrong answers for",
        "Gateway's memory", "Processors", "Back after", "Result",
    ]

    /// Markdown with one line per row: a table of faults, and one of hostile clients, files and hosts.
    ///
    /// - Parameter results: The rows' results.
    /// - Returns: The tables, each with a line break at its end, and an empty line between them.
    package static func markdown(_ results: [FaultResult]) -> String {
        let plain = results.filter { !$0.isHostile }
        let hostile = results.filter(\.isHostile)
        return [(plain, self.titles, self.cells), (hostile, self.hostileTitles, self.hostileCells)]
            .filter { !$0.0.isEmpty }
            .map { self.table($0.1, $0.0.map($0.2)) }
            .joined(separator: "\n")
    }

    private static func table(_ titles: [String], _ rows: [[String]]) -> String {
        let rule = ["---", "---"] + Array(repeating: "---:", count: titles.count - 3) + ["---"]
        return ([titles, rule] + rows).map { "| \($0.joined(separator: " | ")) |\n" }.joined()
    }

    /// One row in words, for the terminal: its figures and failed checks.
    ///
    /// - Parameter result: The row's result.
    /// - Returns: Several lines.
    package static func words(_ result: FaultResult) -> String {
        var lines = [self.headline(result)]
        if let figures = result.figures { lines.append("  \(self.sentence(figures))") }
        lines += result.checks.map { "  \($0.holds ? "ok  " : "FAIL") \($0.name): \($0.found)" }
        lines += result.notes.map { "  note: \($0)" }
        return lines.joined(separator: "\n")
    }

    private static func headline(_ result: FaultResult) -> String {
        let verdict =
            switch result.verdict {
            case .passed: "PASS"
            case .failed: "FAIL"
            case .skipped: "SKIP"
            }
        let reason = result.reason.isEmpty ? "" : ": \(result.reason)"
        let time = Figure.seconds(result.seconds)
        return "\(verdict) \(result.name)/\(result.variant.rawValue) (\(result.title), \(time))\(reason)"
    }

    private static func sentence(_ figures: FaultFigures) -> String {
        let load = figures.load
        return "\(load.calls) calls, \(load.failed) failed, \(load.otherIDs) other ids, lost \(self.lost(load)), stall "
            + "\(Figure.seconds(figures.longestStall)) (quiet \(Figure.seconds(figures.quietStall))), p99 step "
            + "\(Figure.seconds(figures.faultStep)) (quiet \(Figure.seconds(figures.quietStep))), quiet "
            + "\(Figure.decimal(figures.quietRate, 0)) tokens/s, lost "
            + (figures.throughputLost.map { Figure.percent($0) } ?? "-")
            + (figures.toll.map { ", gateway \(self.memory($0)), \(self.processors($0)) processors" } ?? "")
            + (figures.wrongFor.map { ", wrong for \(Figure.seconds($0))" } ?? "")
    }

    private static func processors(_ toll: GatewayToll) -> String {
        "\(toll.processors.map { Figure.decimal($0, 2) } ?? "-") (quiet \(Figure.decimal(toll.quietProcessors, 2)))"
    }

    private static func cells(_ result: FaultResult) -> [String] {
        guard let figures = result.figures else { return self.blank(result, self.titles.count) }
        return self.start(result, figures.load) + [
            figures.longestStall > 0 ? Figure.seconds(figures.longestStall) : "",
            figures.throughputLost.map { Figure.percent($0) } ?? "",
            figures.recovery.map { Figure.seconds($0) } ?? "", self.verdict(result),
        ]
    }

    private static func hostileCells(_ result: FaultResult) -> [String] {
        guard let figures = result.figures else { return self.blank(result, self.hostileTitles.count) }
        return self.start(result, figures.load) + [
            figures.longestStall > 0 ? Figure.seconds(figures.longestStall) : "",
            figures.wrongFor.map { Figure.seconds($0) } ?? "", figures.toll.map(self.memory) ?? "",
            figures.toll?.processors.map { Figure.decimal($0, 2) } ?? "",
            figures.recovery.map { Figure.seconds($0) } ?? "", self.verdict(result),
        ]
    }

    /// The cells that both tables begin with.
    private static func start(_ result: FaultResult, _ load: LoadSummary) -> [String] {
        self.name(result) + ["\(load.calls)", self.failed(load), "\(load.otherIDs)", self.lost(load)]
    }

    private static func name(_ result: FaultResult) -> [String] {
        ["\(result.title) (`\(result.name)`)", result.variant == .replica ? "yes" : "no"]
    }

    private static func blank(_ result: FaultResult, _ count: Int) -> [String] {
        self.name(result) + Array(repeating: "", count: count - 3) + [self.verdict(result)]
    }

    /// Before the fault, at its worst, and after it, in MiB.
    private static func memory(_ toll: GatewayToll) -> String {
        let after = [toll.residentPeak, toll.residentAfter].map { $0.map { "\($0 >> 20)" } ?? "gone" }
        return "\(toll.residentBefore >> 20), \(after.joined(separator: ", ")) MiB"
    }

    /// Calls that failed; those that asked to fail rather than lose a token are listed separately.
    private static func failed(_ load: LoadSummary) -> String {
        load.strictRefusals == 0 ? "\(load.failed)" : "\(load.failed) (+ \(load.strictRefusals) strict)"
    }

    private static func lost(_ load: LoadSummary) -> String {
        let parts = load.lost.filter { $0.value > 0 }.sorted { $0.key < $1.key }
        return parts.isEmpty ? "0" : parts.map { "\($0.value) \($0.key)" }.joined(separator: ", ")
    }

    /// The part of a reason that fits into a cell of a table.
    private static func firstLine(_ text: String) -> String {
        String(text.prefix { $0 != "\n" }.prefix(120)).replacingOccurrences(of: "|", with: "/")
    }

    private static func verdict(_ result: FaultResult) -> String {
        switch result.verdict {
        case .passed: return "pass"
        case .skipped: return "skipped: needs root"
        case .failed:
            let broken = result.checks.filter { !$0.holds }.map { "\($0.name) (\($0.found))" }
            return broken.isEmpty
                ? "FAIL: could not be run: \(self.firstLine(result.reason))"
                : "FAIL: \(broken.joined(separator: "; "))"
        }
    }
}
