// SPDX-License-Identifier: Apache-2.0

import CommandKit
import Figures
import Foundation
import SwitchyardTypes

/// What a ``DropAblation`` found, as tables, as JSON and as a figure.
struct DropReport {
    let result: DropAblation.Result
    /// The model and the text, for people.
    let subject: String

    /// Titles of the kinds of loss, in order of appearance.
    private static let kinds: [(kind: String, title: String)] = [
        ("rows", "single token rows at random"), ("calls", "late calls: a pool, a layer, a step"),
        ("stalls", "stalled hosts: a pool for some steps"), ("missing", "dead hosts without a replica"),
    ]

    // MARK: - Tables

    /// Accuracy, and what a dropped token costs: a row for each loss, a column for each place.
    ///
    /// - Parameter value: What to print of some runs.
    /// - Returns: A table.
    func table(_ value: ([DropAblation.Tally]) -> String) -> TextTable {
        var table = TextTable([
            ("lost", .left), ("dropped", .right), ("encoder", .right), ("decoder", .right), ("both", .right),
        ])
        for row in self.rows {
            let first = row[0]
            let dropped = mean(row.flatMap(\.runs).map(\.droppedFraction))
            let name =
                first.label.isEmpty ? String(format: "%g", first.fraction * 100) + " % of \(first.kind)" : first.label
            table.add([name, Self.percent(dropped)] + row.map { value($0.runs) })
        }
        return table
    }

    /// `97.4 (97.1 to 97.6)`: the mean of the runs' accuracies, in percent, and their range.
    static func accuracy(_ runs: [DropAblation.Tally]) -> String {
        Self.spread(runs.map { $0.accuracy * 100 }, digits: 1)
    }

    /// The mean agreement with the undisturbed model, in percent, and the runs' range.
    static func agreement(_ runs: [DropAblation.Tally]) -> String {
        Self.spread(runs.map { $0.agreement * 100 }, digits: 1)
    }

    /// The mean cross-entropy, in nats, and the runs' range.
    static func crossEntropy(_ runs: [DropAblation.Tally]) -> String {
        Self.spread(runs.map(\.crossEntropy), digits: 3)
    }

    /// Correct positions lost for each dropped (token, layer) pair, over all runs together; `-` where none was dropped.
    func price(_ runs: [DropAblation.Tally]) -> String {
        let dropped = runs.reduce(0) { $0 + $1.dropped }
        guard dropped > 0 else { return "-" }
        let lost = runs.reduce(0) { $0 + self.result.undisturbed.correct - $1.correct }
        return String(format: "%.3f", Double(lost) / Double(dropped))
    }

    private static func spread(_ values: [Double], digits: Int) -> String {
        let format = "%.\(digits)f"
        let middle = String(format: format, mean(values))
        guard let low = values.min(), let high = values.max(), high > low else { return middle }
        return "\(middle) (\(String(format: format, low)) to \(String(format: format, high)))"
    }

    private static func percent(_ fraction: Double) -> String {
        String(format: fraction > 0 && fraction < 0.01 ? "%.2f %%" : "%.1f %%", fraction * 100)
    }

    /// The cells of each loss, one for each place.
    private var rows: [[DropAblation.Cell]] {
        let width = DropAblation.Place.allCases.count
        return stride(from: 0, to: self.result.cells.count, by: width)
            .map { Array(self.result.cells[$0..<min($0 + width, self.result.cells.count)]) }
    }

    // MARK: - JSON

    /// The form of the file.
    private struct File: Codable {
        struct Entry: Codable {
            var loss: String
            var label: String
            var fraction: Double
            var place: DropAblation.Place
            var runs: [DropAblation.Tally]
        }
        var subject: String
        var examples: Int
        var inputTokens: Int
        var steps: Int
        var batches: Int
        var undisturbed: DropAblation.Tally
        var cells: [Entry]
    }

    /// Keeps what was found.
    ///
    /// - Parameters:
    ///   - result: What was found.
    ///   - subject: The model and the text, for people.
    init(result: DropAblation.Result, subject: String) {
        self.result = result
        self.subject = subject
    }

    /// Reads what ``json()`` wrote.
    ///
    /// - Parameter json: The file's content.
    /// - Throws: What the decoder throws.
    init(json: Data) throws {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        let file = try decoder.decode(File.self, from: json)
        self.subject = file.subject
        self.result = DropAblation.Result(
            undisturbed: file.undisturbed,
            cells: file.cells.map {
                .init(kind: $0.loss, label: $0.label, fraction: $0.fraction, place: $0.place, runs: $0.runs)
            },
            examples: file.examples,
            inputTokens: file.inputTokens,
            steps: file.steps,
            batches: file.batches
        )
    }

    /// The runs as JSON.
    ///
    /// - Returns: The same bytes for the same figures.
    /// - Throws: What the encoder throws.
    func json() throws -> Data {
        let file = File(
            subject: self.subject,
            examples: self.result.examples,
            inputTokens: self.result.inputTokens,
            steps: self.result.steps,
            batches: self.result.batches,
            undisturbed: self.result.undisturbed,
            cells: self.result.cells.map {
                .init(loss: $0.kind, label: $0.label, fraction: $0.fraction, place: $0.place, runs: $0.runs)
            }
        )
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
        encoder.keyEncodingStrategy = .convertToSnakeCase
        return try encoder.encode(file) + Data("\n".utf8)
    }

    // MARK: - Figure

    /// Accuracy against the fraction of dropped tokens, a diagram for each kind of loss; nothing and everything lost are
    /// left to the tables.
    var figure: SVGFigure {
        let undisturbed = self.result.undisturbed.accuracy * 100
        let shown = self.result.cells.filter { $0.fraction > 0 && $0.fraction < 1 }
        let lowest = shown.flatMap(\.runs).map { $0.accuracy * 100 }.min() ?? 0
        let plots = Self.kinds.compactMap { kind, title -> SVGPlot? in
            let cells = shown.filter { $0.kind == kind }
            guard !cells.isEmpty else { return nil }
            return SVGPlot(
                title: title,
                x: SVGAxis(
                    "dropped tokens",
                    scale: .logarithmic,
                    range: min(0.07, (shown.map(\.fraction).min() ?? 1) * 70)...40,
                    ticks: [0.01, 0.1, 1, 5, 20],
                    format: .number(suffix: " %")
                ),
                y: SVGAxis(
                    "next tokens right",
                    range: ((lowest / 10).rounded(.down) * 10)...100,
                    format: .number(suffix: " %")
                ),
                series: DropAblation.Place.allCases.enumerated()
                    .map { index, place in
                        SVGPlot.Series(
                            place == .both ? "lost in both" : "lost in the \(place.rawValue)",
                            style: kind == "missing" ? .points : .linePoints,
                            points: cells.filter { $0.place == place }.compactMap(Self.point),
                            shift: 5 * Double(index - 1)
                        )
                    },
                references: [
                    .init(y: undisturbed, label: String(format: "nothing lost: %.1f %%", undisturbed))
                ]
            )
        }
        return SVGFigure(
            title: "What dropped tokens cost",
            subtitle: self.subject,
            plots: plots,
            columns: 2
        )
    }

    /// The mean of a cell's runs at the fraction that was really dropped; nil where hardly anything was dropped.
    private static func point(_ cell: DropAblation.Cell) -> SVGPlot.Point? {
        let dropped = mean(cell.runs.map(\.droppedFraction))
        let values = cell.runs.map { $0.accuracy * 100 }
        guard dropped > cell.fraction / 2, let low = values.min(), let high = values.max() else { return nil }
        return SVGPlot.Point(dropped * 100, mean(values), range: low...high)
    }
}

/// The mean of some numbers; zero where there are none.
///
/// - Parameter values: The numbers.
/// - Returns: Their sum over their count.
func mean(_ values: [Double]) -> Double {
    values.isEmpty ? 0 : values.reduce(0, +) / Double(values.count)
}
