// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import CommandKit
import Figures
import Foundation
import SwitchyardTypes

/// `switchyard-bench compare`: systems that take turns.
struct BenchCompareCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "compare",
        abstract: "Measure this and other implementations in turn, run by run, so that noise hits all alike.",
        discussion: """
            A system is a command that measures when it is asked to: `switchyard-bench model DIR --turns`, the same of bench
            `cluster` and `experts`, and the scripts Tests/Peers/bench_*.py with --turns. All are started, then every round
            asks each of them for each of its cases once; the order changes from round to round. The first round is thrown
            away. What is not installed is skipped and listed.

            EXAMPLE
              switchyard-bench compare --baseline transformers \\
                --system "Switchyard=.build/release/switchyard-bench model DIR --turns" \\
                --system "transformers=python3 Tests/Peers/bench_transformers.py --turns --model DIR"
            """
    )

    @Option(help: ArgumentHelp("A system; may be given several times.", valueName: "name=command"))
    var system: [String] = []

    @Option(help: "Compare all with this system.")
    var baseline: String?

    @Option(help: "Rounds that count.")
    var rounds: Int = 5

    @Option(help: "Only this work; may be given several times. (default: all)")
    var work: [String] = []

    @Option(help: "Only this size; may be given several times. (default: all)")
    var size: [Int] = []

    @Option(help: "Seconds that a start, or one turn, may take.")
    var limit: Int = 600

    @Option(help: "Title of the plot.")
    var title: String = "Systems in turn"

    @Option(help: "What the sizes count, such as sequences.")
    var sizeName: String = "batch"

    @Option(help: ArgumentHelp("Draw the figures here.", valueName: "file"))
    var svg: String?

    @OptionGroup(title: "Output") var output: BenchOutputOptions

    func validate() throws {
        let names = self.system.map { TurnSystemSpecification($0)?.name }
        for (text, name) in zip(self.system, names) where name == nil {
            throw ValidationError("--system \(text) is not name=command")
        }
        guard !self.system.isEmpty else {
            throw ValidationError("no --system is named; name at least one, as name=command")
        }
        guard Set(names).count == names.count else {
            throw ValidationError("two systems have the same name; give each --system its own name")
        }
        if let baseline, !names.contains(baseline) {
            throw ValidationError("--baseline is \"\(baseline)\", which is the name of no --system")
        }
        guard (1...10_000).contains(self.rounds) else {
            throw ValidationError("--rounds is \(self.rounds); set a value from 1 to 10000")
        }
        guard (1...86_400).contains(self.limit) else {
            throw ValidationError("--limit is \(self.limit); set a value from 1 to 86400")
        }
    }

    func run() async throws {
        var report = BenchReport(
            title: self.title,
            sizeName: self.sizeName,
            conditions: "\(self.rounds) rounds in turn; medians"
        )
        try await TurnSystem.run(
            self.system.compactMap { TurnSystemSpecification($0) }[...],
            limit: .seconds(self.limit)
        ) { systems in
            await self.measure(systems, into: &report)
        }
        let isSkipped = self.baseline.map { report.skipped[$0] != nil } ?? true
        let table = report.table(baseline: isSkipped ? nil : self.baseline)
        Terminal.print(report.conditions)
        Terminal.print(report.machine)
        for (name, versions) in report.versions.sorted(by: { $0.key < $1.key }) where versions != report.machine {
            Terminal.print("\(name): \(versions)")
        }
        self.output.print(table)
        for note in report.notes { Terminal.print(note) }
        try report.write(to: self.output.json)
        if let svg {
            do {
                try BenchPlot(report: report).figure.write(to: svg)
            } catch {
                throw BenchError("\(svg) cannot be written: name a file in a folder that exists")
            }
        }
    }

    private func measure(_ systems: [TurnSystem], into report: inout BenchReport) async {
        var cases: [TurnCase] = []
        for system in systems {
            for one in system.cases where !cases.contains(one) && self.wants(one) { cases.append(one) }
        }
        for round in 0...self.rounds {
            for one in cases {
                for turn in systems.indices {
                    // No system is always measured after the same one.
                    let system = systems[(turn + round) % systems.count]
                    guard system.reason == nil, system.cases.contains(one), let result = await system.take(one),
                        round > 0
                    else { continue }
                    report.add(
                        result.value,
                        to: BenchFigure(
                            work: one.work,
                            size: one.size,
                            system: system.name,
                            unit: result.unit,
                            values: [],
                            details: result.details ?? [:]
                        )
                    )
                }
                Terminal.printError("round \(round) of \(self.rounds): \(one.work) \(one.size)")
            }
        }
        // In the order on the command line, whatever the order of the turns.
        let order = Dictionary(uniqueKeysWithValues: systems.enumerated().map { ($1.name, $0) })
        report.figures.sort { (order[$0.system] ?? 0) < (order[$1.system] ?? 0) }
        for system in systems {
            if let reason = system.reason { report.skipped[system.name] = reason }
            if !system.versions.isEmpty { report.versions[system.name] = system.versions }
        }
    }

    private func wants(_ one: TurnCase) -> Bool {
        (self.work.isEmpty || self.work.contains(one.work)) && (self.size.isEmpty || self.size.contains(one.size))
    }
}
