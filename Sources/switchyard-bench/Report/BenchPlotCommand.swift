// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import CommandKit
import Figures
import Foundation

/// Where a benchmark's figures go; the same for all of them.
struct BenchOutputOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp("Write every run's figures here, for `switchyard-bench plot` and others.", valueName: "file")
    )
    var json: String?

    @Flag(help: "Print the tables as Markdown.")
    var markdown = false

    /// Prints a table in the requested form.
    func print(_ table: TextTable) {
        Terminal.print(self.markdown ? table.markdown : table.text)
    }
}

/// `switchyard-bench plot`: draws what a benchmark wrote.
struct BenchPlotCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "plot",
        abstract: "Draw the figures that a benchmark wrote with --json, or print them as a table.",
        discussion: """
            EXAMPLES
              switchyard-bench plot compare.json --svg compare.svg
              switchyard-bench plot compare.json --work decode --system "transformers, float32" --svg decode.svg
              switchyard-bench plot compare.json --baseline "transformers, float32" --markdown
            """
    )

    @Argument(help: "A file that a benchmark wrote with --json.")
    var file: String

    @Option(help: ArgumentHelp("Draw here; without it the figures are printed.", valueName: "file"))
    var svg: String?

    @Option(help: "Only this work; may be given several times. (default: all)")
    var work: [String] = []

    @Option(help: "Only this system; may be given several times. (default: all)")
    var system: [String] = []

    @Option(help: "In the table, compare with this system.")
    var baseline: String?

    @Flag(help: "Print the table as Markdown.")
    var markdown = false

    func run() async throws {
        var report = try BenchReport(contentsOf: self.file)
        try Self.require(self.work, among: report.figures.map(\.work), option: "--work")
        try Self.require(self.system, among: report.figures.map(\.system), option: "--system")
        try Self.require(self.baseline.map { [$0] } ?? [], among: report.figures.map(\.system), option: "--baseline")
        if let svg {
            let figure = BenchPlot(report: report, works: self.work, systems: self.system).figure
            do {
                try figure.write(to: svg)
            } catch {
                throw BenchError("\(svg) cannot be written: name a file in a folder that exists")
            }
            return
        }
        let baseline = self.baseline
        report.figures.removeAll { figure in
            !(self.work.isEmpty || self.work.contains(figure.work))
                || !(self.system.isEmpty || self.system.contains(figure.system) || figure.system == baseline)
        }
        let table = report.table(baseline: baseline)
        Terminal.print(report.conditions)
        Terminal.print(report.machine)
        Terminal.print(self.markdown ? table.markdown : table.text)
        for note in report.notes { Terminal.print(note) }
    }

    private static func require(_ wanted: [String], among known: [String], option: String) throws {
        for name in wanted where !known.contains(name) {
            throw BenchError("\(option) is \"\(name)\"; the file has \(Set(known).sorted().joined(separator: "; "))")
        }
    }
}
