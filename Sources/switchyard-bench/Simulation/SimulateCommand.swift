// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import CommandKit
import Figures
import PoolSimulation
import SwitchyardTypes

/// `switchyard-bench simulate`: clusters in virtual time.
struct SimulateCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "simulate",
        abstract: "Run the gateway's choices against thousands of made-up hosts in virtual time.",
        discussion: """
            The model is Switch-C: 1.57 trillion parameters, 2,048 experts in each of 15 + 15 layers. In the scenario
            gateways it is switch-base-8: 8 experts in each of 6 + 6 layers. The same seed gives the same figures.

            EXAMPLE
              switchyard-bench simulate --scenario stragglers --steps 500
            """
    )

    @Option(help: "Expert hosts (default: 256; 2 in gateways).")
    var hosts: Int?

    @Option(help: "Experts of each sparse layer (default: 2048; 8 in gateways).")
    var experts: Int?

    @Option(help: "Hosts of each pool.")
    var replicas = 2

    @Option(help: "Gateways, each with its own view of the hosts (default: 1; 4 in gateways).")
    var gateways: Int?

    @Option(help: "Steps of each gateway.")
    var steps = 2000

    @Option(help: "Sequences that a gateway decodes at once (default: 32; 8 in gateways).")
    var sequences: Int?

    @Option(help: "How unevenly tokens go to the experts: the power with which popularity falls with rank.")
    var skew = 0.5

    @Option(help: "calm, crash, hang, stragglers, rolling, partition, hot, gateways, or all.")
    var scenario = "all"

    @Option(help: "Seed of the random numbers.")
    var seed: UInt64 = 1

    @Flag(help: "Print JSON.")
    var json = false

    @Flag(help: "Print the columns of docs/simulation.md, as Markdown.")
    var markdown = false

    @Option(help: ArgumentHelp("Draw the distribution of step times into this SVG file.", valueName: "file"))
    var plot: String?

    func run() throws {
        let scenarios = try self.scenarios()
        var records: [SimulationRecord] = []
        for scenario in scenarios {
            for variant in scenario.variants {
                var simulation = try ClusterSimulation(self.cluster(scenario, variant))
                records.append(SimulationRecord(simulation.run()))
            }
        }
        if let plot = self.plot {
            try SimulationPlot(records: records).figure.write(to: plot)
        }
        let table = SimulationTable(records: records)
        if self.json {
            Terminal.print(try table.json())
        } else {
            Terminal.print(self.markdown ? table.document.markdown : table.full.text)
        }
        let violations = records.flatMap(\.violations)
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
        var configuration = SimulationConfiguration(scenario, variant)
        configuration.hosts = self.hosts ?? configuration.hosts
        configuration.replicas = self.replicas
        configuration.gateways = self.gateways ?? configuration.gateways
        configuration.steps = self.steps
        configuration.warmUp = min(configuration.warmUp, max(0, self.steps / 10))
        configuration.model.experts = self.experts ?? configuration.model.experts
        configuration.sequences = self.sequences ?? configuration.sequences
        configuration.skew = self.skew
        configuration.seed = self.seed
        do {
            try configuration.check()
        } catch {
            throw ValidationError(error.description)
        }
        return configuration
    }
}
