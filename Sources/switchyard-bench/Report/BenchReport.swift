// SPDX-License-Identifier: Apache-2.0

import CommandKit
import Foundation

/// The runs of one measurement: what was measured, at what size, on what system.
struct BenchFigure: Sendable, Equatable {
    /// What was measured, such as `decode`; a diagram each in a plot.
    var work: String
    /// How much at once, such as a batch; the horizontal axis of a plot.
    var size: Int
    /// The system, such as `Switchyard, float32`; a line each in a plot.
    var system: String
    /// The values' unit: a rate, of which more is better, if it ends with `/s`, else less is better.
    var unit: String
    /// One value for each run.
    var values: [Double]
    /// Further figures about the same runs, by name.
    var details: [String: Double] = [:]

    /// The middle of the runs; 0 where there are none.
    var median: Double { switchyard_bench.median(self.values) }

    /// Whether more of the unit is better.
    var isRate: Bool { self.unit.hasSuffix("/s") }

    /// How many times as fast as another system these runs are.
    ///
    /// - Parameter other: The same work of the other one.
    /// - Returns: A ratio of medians, above 1 where this one is faster; nil where one of them did nothing.
    func speed(against other: BenchFigure) -> Double? {
        let (own, others) = self.isRate ? (self.median, other.median) : (other.median, self.median)
        return own > 0 && others > 0 && self.unit == other.unit ? own / others : nil
    }
}

extension BenchFigure: Codable {
    private enum CodingKeys: String, CodingKey {
        case work, size, system, unit, values, details, median, lowest, highest
    }

    init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        self.init(
            work: try container.decode(String.self, forKey: .work),
            size: try container.decode(Int.self, forKey: .size),
            system: try container.decode(String.self, forKey: .system),
            unit: try container.decode(String.self, forKey: .unit),
            values: try container.decode([Double].self, forKey: .values),
            details: try container.decodeIfPresent([String: Double].self, forKey: .details) ?? [:]
        )
    }

    /// The median and the range are next to the values, for readers that only draw them.
    func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(self.work, forKey: .work)
        try container.encode(self.size, forKey: .size)
        try container.encode(self.system, forKey: .system)
        try container.encode(self.unit, forKey: .unit)
        try container.encode(self.values.map(Self.finite), forKey: .values)
        try container.encode(Self.finite(self.median), forKey: .median)
        try container.encode(Self.finite(self.values.min() ?? 0), forKey: .lowest)
        try container.encode(Self.finite(self.values.max() ?? 0), forKey: .highest)
        if !self.details.isEmpty { try container.encode(self.details.mapValues(Self.finite), forKey: .details) }
    }

    /// JSON has no other numbers.
    private static func finite(_ value: Double) -> Double { value.isFinite ? value : 0 }
}

/// What one run of a benchmark found, as it is written to a file and read again for a plot.
struct BenchReport: Codable, Sendable, Equatable {
    /// The title of a plot.
    var title: String
    /// What the figures' sizes count: `batch`.
    var sizeName: String
    /// The machine and the kernel families that ran.
    var machine: String
    /// How it was measured, in words.
    var conditions: String
    /// Each system's versions, by system.
    var versions: [String: String] = [:]
    /// Why a system has no figures, by system.
    var skipped: [String: String] = [:]
    /// The measurements, in the order in which they are shown.
    var figures: [BenchFigure] = []

    /// Reads a report.
    ///
    /// - Parameter path: A file that a benchmark wrote with `--json`.
    /// - Throws: ``BenchError`` where there is no such file or it is something else.
    init(contentsOf path: String) throws {
        guard let data = FileManager.default.contents(atPath: path) else {
            throw BenchError("\(path) cannot be read; write it first with --json")
        }
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        do {
            self = try decoder.decode(BenchReport.self, from: data)
        } catch {
            throw BenchError("\(path) is not what a benchmark writes with --json: \(error)")
        }
    }

    init(title: String, sizeName: String, machine: String = SwitchyardBench.machine, conditions: String) {
        self.title = title
        self.sizeName = sizeName
        self.machine = machine
        self.conditions = conditions
    }

    /// The report as JSON.
    ///
    /// - Returns: The same bytes for the same figures.
    /// - Throws: What the encoder throws.
    func json() throws -> Data {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        encoder.keyEncodingStrategy = .convertToSnakeCase
        return try encoder.encode(self) + Data("\n".utf8)
    }

    /// Writes the report if a path is given.
    ///
    /// - Parameter path: The file, or nil.
    /// - Throws: ``BenchError`` where the file cannot be written.
    func write(to path: String?) throws {
        guard let path else { return }
        do {
            try self.json().write(to: URL(fileURLWithPath: path), options: .atomic)
        } catch {
            throw BenchError(
                "\(path) cannot be written: \(error.localizedDescription); name a file in a folder that exists"
            )
        }
    }

    /// Adds a run to a measurement, which is made on its first value; of further figures the means are kept.
    ///
    /// - Parameters:
    ///   - value: What a run found.
    ///   - figure: What was measured, and the run's further figures; its own values do not matter.
    mutating func add(_ value: Double, to figure: BenchFigure) {
        if let index = self.figures.firstIndex(where: {
            $0.work == figure.work && $0.size == figure.size && $0.system == figure.system
        }) {
            self.figures[index].values.append(value)
            let count = Double(self.figures[index].values.count)
            self.figures[index].details.merge(figure.details) { mean, new in mean + (new - mean) / count }
        } else {
            var figure = figure
            figure.values = [value]
            self.figures.append(figure)
        }
    }

    /// One measurement.
    ///
    /// - Returns: Nil where it was not made.
    func figure(_ work: String, _ size: Int, _ system: String) -> BenchFigure? {
        self.figures.first { $0.work == work && $0.size == size && $0.system == system }
    }

    /// All measurements in one table: a row for each system, grouped by work and size.
    ///
    /// - Parameter baseline: The system that the others are compared with; nil compares nothing.
    /// - Returns: Medians, ranges, and how many times as fast as the baseline.
    func table(baseline: String? = nil) -> TextTable {
        var columns: [(title: String, alignment: TextTable.Alignment)] = [
            ("work", .left), (self.sizeName, .right), ("system", .left), ("median", .right),
            ("lowest to highest", .right),
        ]
        if let baseline { columns.append(("x \(baseline)", .right)) }
        var table = TextTable(columns)
        for figure in self.grouped {
            var row = [
                figure.work, "\(figure.size)", figure.system, "\(Self.number(figure.median)) \(figure.unit)",
                Self.range(figure.values),
            ]
            if let baseline {
                let other = self.figure(figure.work, figure.size, baseline)
                let ratio = other.flatMap { figure.speed(against: $0) }
                row.append(ratio.map { String(format: "%.2f", $0) } ?? "-")
            }
            table.add(row)
        }
        return table
    }

    /// The figures by work and then by size, each in the order of its first appearance.
    var grouped: [BenchFigure] {
        var works: [String] = []
        for figure in self.figures where !works.contains(figure.work) { works.append(figure.work) }
        return works.flatMap { work in
            let figures = self.figures.filter { $0.work == work }
            return Set(figures.map(\.size)).sorted().flatMap { size in figures.filter { $0.size == size } }
        }
    }

    /// Skipped systems and why, one line each.
    var notes: [String] {
        self.skipped.sorted { $0.key < $1.key }.map { "skipped: \($0.key): \($0.value)" }
    }

    /// A number with about three digits: `0.412`, `42.6`, `1172`.
    static func number(_ value: Double) -> String {
        let size = abs(value)
        let digits = size == 0 || size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3
        return String(format: "%.\(digits)f", value)
    }

    /// `40.1 to 43.9`.
    static func range(_ values: [Double]) -> String {
        guard let low = values.min(), let high = values.max() else { return "-" }
        return "\(Self.number(low)) to \(Self.number(high))"
    }
}

/// A benchmark cannot be run as asked; the message says what to do next.
struct BenchError: Error, CustomStringConvertible {
    var description: String

    init(_ description: String) { self.description = description }
}
