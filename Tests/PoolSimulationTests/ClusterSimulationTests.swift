// SPDX-License-Identifier: Apache-2.0

import ExpertPooling
import PoolSimulation
import Testing

/// Eight pools and four layers, whose steps take so long that faults come within few of them.
private func cluster(
    _ scenario: SimulationScenario,
    _ variant: SimulationVariant = .everything,
    seed: UInt64 = 1,
    steps: Int = 150
) -> SimulationConfiguration {
    var configuration = SimulationConfiguration()
    configuration.hosts = 16
    configuration.model.encoderLayers = 2
    configuration.model.decoderLayers = 2
    configuration.model.experts = 32
    configuration.sequences = 8
    configuration.inputTokens = 16
    configuration.outputTokens = 16
    configuration.steps = steps
    configuration.warmUp = 0
    configuration.machines.gatewayStepSeconds = 0.025
    configuration.seed = seed
    configuration.scenario = scenario
    configuration.variant = variant
    return configuration
}

private func run(_ configuration: SimulationConfiguration) throws -> SimulationReport {
    var simulation = try ClusterSimulation(configuration)
    return simulation.run()
}

@Suite("Cluster simulation")
struct ClusterSimulationTests {
    @Test(
        "every row is answered or dropped once, in time, within the budget of hedges",
        arguments: SimulationScenario.allCases
    )
    func invariants(scenario: SimulationScenario) throws {
        for variant in scenario.variants {
            let configuration = cluster(scenario, variant, seed: 3, steps: 100)
            let report = try run(configuration)
            #expect(report.violations.isEmpty, "\(variant): \(report.violations.prefix(3))")
            #expect(report.answered + report.droppedRows == report.rows)
            #expect(report.stepTimes.count == 100)
            // Eight pools save up a burst each; the rest is a fraction of the calls.
            let pools = configuration.pools
            let budget = pools.hedgeFraction * Double(report.calls) + 8 * pools.hedgeBurst
            #expect(Double(report.hedges) <= budget, "\(variant)")
            if variant == .noHedges || variant == .neither { #expect(report.hedges == 0) }
            if variant == .noEjection || variant == .neither { #expect(report.ejections == 0) }
            if scenario == .calm { #expect(report.droppedRows == 0 && report.faults == 0) }
            if ![.calm, .hot, .gateways].contains(scenario) { #expect(report.faults > 0) }
        }
    }

    @Test(
        "the same seed gives the same report, another one another",
        arguments: [SimulationScenario.crash, .stragglers]
    )
    func deterministic(scenario: SimulationScenario) throws {
        let first = try run(cluster(scenario, steps: 60))
        let second = try run(cluster(scenario, steps: 60))
        let other = try run(cluster(scenario, seed: 2, steps: 60))
        #expect(first == second)
        #expect(first.stepTimes != other.stepTimes)
    }

    @Test("with a replica a crash costs no token, without one its pool's tokens are dropped", arguments: [1, 2])
    func crash(seed: UInt64) throws {
        let with = try run(cluster(.crash, seed: seed))
        #expect(with.faults >= 3)
        #expect(with.droppedRows == 0)
        #expect(with.step(1) < 0.5)
        let without = try run(cluster(.crash, .oneReplica, seed: seed))
        #expect(without.droppedRows > 0)
        #expect(without.dropped.keys.allSatisfy { $0.cause == .unavailable })
    }

    @Test("hedges and ejection keep a host that stands still from stopping the steps", arguments: [1, 2])
    func hang(seed: UInt64) throws {
        let with = try run(cluster(.hang, seed: seed))
        let without = try run(cluster(.hang, .neither, seed: seed))
        #expect(without.step(1) > 0.5)
        #expect(with.step(1) < without.step(1) / 2)
        #expect(with.droppedRows == 0)
    }

    @Test("when trouble ends, all hosts serve again and nothing is dropped any more")
    func recovery() throws {
        for scenario in [SimulationScenario.crash, .hang, .partition] {
            for variant in [SimulationVariant.everything, .oneReplica] {
                var configuration = cluster(scenario, variant, steps: 250)
                configuration.faultsEnd = 2.5
                let report = try run(configuration)
                #expect(report.faults > 0)
                #expect(report.notServing == 0, "\(scenario), \(variant)")
                #expect(report.lastStepWithDrops < 240, "\(scenario), \(variant)")
                #expect(report.recovery(1) < 3, "\(scenario), \(variant)")
            }
        }
    }

    @Test("several gateways share the hosts and keep to the rules")
    func gateways() throws {
        var configuration = cluster(.crash, steps: 100)
        configuration.gateways = 3
        let report = try run(configuration)
        #expect(report.violations.isEmpty, "\(report.violations.prefix(3))")
        #expect(report.stepTimes.count == 300)
        #expect(report.droppedRows == 0)
    }

    @Test("drained hosts are left before they go: not one row is lost")
    func rolling() throws {
        let report = try run(cluster(.rolling, steps: 200))
        #expect(report.faults >= 3)
        #expect(report.droppedRows == 0)
        #expect(report.retries == 0)
    }

    @Test("percentiles are by nearest rank")
    func percentiles() {
        var report = SimulationReport()
        #expect(report.step(0.5) == 0)
        report.stepTimes = [1_000_000_000, 2_000_000_000, 3_000_000_000, 4_000_000_000]
        #expect(report.step(0) == 1)
        #expect(report.step(0.5) == 2)
        #expect(report.step(0.51) == 3)
        #expect(report.step(1) == 4)
    }

    @Test("clusters that cannot be are refused with the bound and the value")
    func refusals() {
        func message(_ change: (inout SimulationConfiguration) -> Void) -> String {
            var configuration = cluster(.calm)
            change(&configuration)
            do {
                try configuration.check()
                return ""
            } catch {
                return error.description
            }
        }
        #expect(message { $0.hosts = 0 } == "hosts is 0, but must be from 1 to 65535")
        #expect(message { $0.replicas = 17 } == "replicas is 17, but must be from 1 to 16")
        #expect(message { $0.steps = 0 }.contains("steps is 0"))
        #expect(message { $0.model.experts = 4 } == "experts is 4, but must be from 8 to 65536")
        #expect(message { $0.skew = .nan }.contains("skew"))
        #expect(message { $0.hosts = 70_000 }.contains("65535"))
    }
}
