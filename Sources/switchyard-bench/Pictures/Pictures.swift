// SPDX-License-Identifier: Apache-2.0

import CommandKit
import Figures
import Foundation
import PoolSimulation
import TrainingRuns

/// Files of the documents that are made from committed figures: the pictures, and the table of the simulator.
struct Pictures {
    /// A file and its expected content.
    struct Made: Equatable {
        /// From the project's root.
        var path: String
        var content: String
    }

    /// The project's folder.
    let root: String

    /// Where the figures for the pictures are.
    static let data = "docs/images/data"

    /// Every generated file.
    ///
    /// - Returns: Paths and contents, the same at every call.
    /// - Throws: ``BenchError`` where figures are missing or are something else.
    func all() throws -> [Made] {
        let bench = try BenchReport(contentsOf: "\(self.root)/\(Self.data)/bench-full-shape.json")
        guard let memory = ResidentMemoryPlot(csv: try self.read("\(Self.data)/soak.csv")) else {
            throw BenchError("\(Self.data)/soak.csv is not what `switchyard-faults soak --csv` writes")
        }
        let drops: DropReport
        do {
            drops = try DropReport(json: Data(try self.read("\(Self.data)/drops.json").utf8))
        } catch let error as DecodingError {
            throw BenchError("\(Self.data)/drops.json is not what `switchyard-bench drops --json` writes: \(error)")
        }
        let balance: BalancePlot
        do {
            balance = try JSONDecoder()
                .decode(BalancePlot.self, from: Data(try self.read("\(Self.data)/balance.json").utf8))
        } catch let error as DecodingError {
            throw BenchError("\(Self.data)/balance.json is not what Tests/training-bench/bench.py writes: \(error)")
        }
        let distil: DistilPlot
        do {
            distil = try JSONDecoder()
                .decode(DistilPlot.self, from: Data(try self.read("\(Self.data)/distil.json").utf8))
        } catch let error as DecodingError {
            throw BenchError("\(Self.data)/distil.json is not what Tests/training-bench/distil.py writes: \(error)")
        }
        let reports = try self.read("\(Self.data)/training.jsonl").split(separator: "\n")
            .compactMap { RunReport(line: String($0)) }
        guard let training = RunPicture(reports).svg else {
            throw BenchError("\(Self.data)/training.jsonl is not the metrics.jsonl of a run of `switchyard train`")
        }
        let records = try self.records()
        return [
            Made(path: "docs/images/bench-full-shape.svg", content: BenchPlot(report: bench).figure.svg),
            Made(path: "docs/images/drops.svg", content: drops.figure.svg),
            Made(path: "docs/images/soak.svg", content: memory.figure.svg),
            Made(path: "docs/images/simulation.svg", content: SimulationPlot(records: records).figure.svg),
            Made(path: "docs/images/training.svg", content: training),
            Made(path: "docs/images/balance.svg", content: balance.figure.svg),
            Made(path: "docs/images/distil.svg", content: distil.figure.svg),
            Made(path: "docs/images/overview.svg", content: OverviewDiagram.diagram.svg),
            Made(path: "docs/images/deployment.svg", content: DeploymentDiagram.diagram.svg),
            Made(
                path: "docs/simulation.md",
                content: try Self.replaceTable(
                    in: try self.read("docs/simulation.md"),
                    by: SimulationTable(records: records).document.markdown
                )
            ),
        ]
    }

    /// The simulations that docs/simulation.md describes.
    ///
    /// - Returns: A record for each scenario and variant.
    /// - Throws: ``BenchError`` where the file is missing or is something else.
    func records() throws -> [SimulationRecord] {
        let path = "\(Self.data)/simulation.json"
        do {
            return try JSONDecoder().decode([SimulationRecord].self, from: Data(try self.read(path).utf8))
        } catch let error as DecodingError {
            throw BenchError("\(path) is not what `switchyard-bench simulate --json` prints: \(error)")
        }
    }

    private static let marks = (begin: "<!-- simulate: begin -->\n", end: "<!-- simulate: end -->")

    /// Puts a table between the marks of a document.
    static func replaceTable(in text: String, by table: String) throws -> String {
        guard let begin = text.range(of: Self.marks.begin),
            let end = text.range(of: Self.marks.end, range: begin.upperBound..<text.endIndex)
        else {
            throw BenchError("docs/simulation.md has no table between \(Self.marks.begin)and \(Self.marks.end)")
        }
        return text[..<begin.upperBound] + table + "\n" + text[end.lowerBound...]
    }

    private func read(_ path: String) throws -> String {
        guard let text = try? String(contentsOfFile: "\(self.root)/\(path)", encoding: .utf8) else {
            throw BenchError("\(path) cannot be read in \(self.root); run this in the project's folder")
        }
        return text
    }
}
