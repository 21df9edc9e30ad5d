// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import CommandKit
import ExpertPooling
import Foundation
import PoolSimulation

/// `switchyard-bench simulate`: clusters in virtual time.
struct SimulateCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "simulate",
        abstract: "Run the gateway's choices against thousands of made-up hosts in virtual time.",
        discussion: """
            The model is Switch-C: 1.57 trillion parameters, 2,048 experts in each of 15 + 15 layers. The same seed gives
            the same figures.

            EXAMPLE
              switchyard-bench simulate --scenario stragglers --steps 500
            """
    )

    @Option(help: "Expert hosts.")
    var hosts = 256

    @Option(help: "Experts of each sparse layer.")
    var experts = 2048

    @Option(help: "Hosts of each pool.")
    var replicas = 2

    @Option(help: "Gateways, each with its own view of the hosts.")
    var gateways = 1

    @Option(help: "Steps of each gateway.")
    var steps = 2000

    @Option(help: "Sequences that a gateway decodes at once.")
    var sequences = 32

    @Option(help: "How unevenly tokens go to the experts: the power by which popularity falls with rank.")
    var skew = 0.5

    @Option(help: "calm, crash, hang, stragglers, rolling, partition, hot, or all.")
    var scenario = "all"

    @Option(help: "Where chance begins.")
    var seed: UInt64 = 1

    @Flag(help: "Print JSON.")
    var json = false

    @Flag(help: "Print the table as Markdown.")
    var markdown = false

    @Option(help: ArgumentHelp("Draw how many steps took how long into this SVG file.", valueName: "file"))
    var plot: String?

    func run() throws {
        let scenarios = try self.scenarios()
        var reports: [SimulationReport] = []
        for scenario in scenarios {
            for variant in scenario.variants {
                var simulation = try ClusterSimulation(self.cluster(scenario, variant))
                reports.append(simulation.run())
            }
        }
        if let plot = self.plot {
            try SimulationPlot(reports: reports).svg.write(toFile: plot, atomically: true, encoding: .utf8)
        }
        let table = SimulationTable(reports: reports)
        if self.json {
            Terminal.print(try table.json())
        } else {
            Terminal.print(self.markdown ? table.table.markdown : table.table.text)
        }
        let violations = reports.flatMap(\.violations)
        guard violations.isEmpty else {
            throw ValidationError("rules were broken: \(violations.prefix(5).joined(separator: "; "))")
        }
    }

    private func scenarios() throws -> [SimulationScenario] {
        guard self.scenario != "all" else { return SimulationScenario.allCases }
        guard let scenario = SimulationScenario(rawValue: self.scenario) else {
            let known = SimulationScenario.allCases.map(\.rawValue).joined(separator: ", ")
            throw ValidationError("--scenario is \"\(self.scenario)\"; use one of \(known), all")
        }
        return [scenario]
    }

    private func cluster(
        _ scenario: SimulationScenario,
        _ variant: SimulationVariant
    ) throws -> SimulationConfiguration {
        var configuration = SimulationConfiguration()
        configuration.hosts = self.hosts
        configuration.replicas = self.replicas
        configuration.gateways = self.gateways
        configuration.steps = self.steps
        configuration.warmUp = min(configuration.warmUp, max(0, self.steps / 10))
        configuration.model.experts = self.experts
        configuration.sequences = self.sequences
        configuration.skew = self.skew
        configuration.seed = self.seed
        configuration.scenario = scenario
        configuration.variant = variant
        do {
            try configuration.check()
        } catch {
            throw ValidationError(error.description)
        }
        return configuration
    }
}

/// Reports of simulations, side by side.
struct SimulationTable {
    var reports: [SimulationReport]

    /// A row a simulation.
    var table: TextTable {
        var table = TextTable([
            ("scenario", .left), ("with", .left), ("step p50", .right), ("p90", .right), ("p99", .right),
            ("p99.9", .right), ("max", .right), ("tokens/s", .right), ("dropped", .right), ("why", .left),
            ("calls", .right), ("hedged", .right), ("retries", .right), ("ejections", .right), ("faults", .right),
            ("back after", .right),
        ])
        for report in self.reports {
            table.add(
                [report.scenario.rawValue, report.variant.rawValue]
                    + [0.5, 0.9, 0.99, 0.999, 1].map { Self.milliseconds(report.step($0)) }
                    + [
                        String(format: "%.0f", report.tokensPerSecond), Self.part(report.droppedRows, of: report.rows),
                        Self.causes(report), "\(report.calls)", Self.part(report.hedges, of: report.calls),
                        "\(report.retries)", "\(report.ejections)", "\(report.faults)",
                        report.recoveries.isEmpty ? "" : String(format: "%.2f s", report.recovery(1)),
                    ]
            )
        }
        return table
    }

    /// The same for programs; times in seconds.
    func json() throws -> String {
        struct Entry: Encodable {
            var scenario, variant: String
            var stepSeconds: [String: Double]
            var layerSeconds: [String: Double]
            var tokensPerSecond: Double
            var rows, answered: Int
            var dropped: [String: Int]
            var stepsWithDrops, calls, hedges, retries, ejections, faults, planChanges, notServing, events: Int
            var simulatedSeconds, longestRecoverySeconds: Double
            var violations: [String]
        }
        let marks: [(String, Double)] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1)]
        let entries = self.reports.map { report in
            Entry(
                scenario: report.scenario.rawValue,
                variant: report.variant.rawValue,
                stepSeconds: Dictionary(uniqueKeysWithValues: marks.map { ($0, report.step($1)) }),
                layerSeconds: Dictionary(uniqueKeysWithValues: marks.map { ($0, report.layer($1)) }),
                tokensPerSecond: report.tokensPerSecond,
                rows: report.rows,
                answered: report.answered,
                dropped: Dictionary(
                    uniqueKeysWithValues: report.dropped.map {
                        ("\($0.key.isDecoder ? "decoder" : "encoder") \($0.key.cause)", $0.value)
                    }
                ),
                stepsWithDrops: report.stepsWithDrops,
                calls: report.calls,
                hedges: report.hedges,
                retries: report.retries,
                ejections: report.ejections,
                faults: report.faults,
                planChanges: report.planChanges,
                notServing: report.notServing,
                events: report.events,
                simulatedSeconds: Double(report.duration) * 1e-9,
                longestRecoverySeconds: report.recovery(1),
                violations: report.violations
            )
        }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
        return String(decoding: try encoder.encode(entries), as: UTF8.self)
    }

    private static func causes(_ report: SimulationReport) -> String {
        var byCause: [String: Int] = [:]
        for (drop, rows) in report.dropped { byCause["\(drop.cause)", default: 0] += rows }
        return byCause.sorted { ($1.value, $0.key) < ($0.value, $1.key) }
            .map { byCause.count == 1 ? $0.key : "\($0.key) \($0.value)" }
            .joined(separator: ", ")
    }

    private static func milliseconds(_ seconds: Double) -> String { String(format: "%.1f ms", seconds * 1000) }

    private static func part(_ count: Int, of all: Int) -> String {
        guard count > 0, all > 0 else { return "0" }
        let percent = 100 * Double(count) / Double(all)
        return String(format: percent < 0.1 ? "%.4f %%" : "%.1f %%", percent)
    }
}
