// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import CommandKit
import FaultSimulation
import ServiceKit
import SwitchyardTypes

/// `switchyard-bench simulate-faults`: whole clusters under drawn faults.
struct SimulateFaultsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "simulate-faults",
        abstract: "Run whole clusters in virtual time under drawn faults, and check every rule after every event.",
        discussion: """
            Each seed draws a cluster, its requests and its faults, and is run twice: without the faults and with them. A
            rule that breaks is printed with its seed, the command that replays it, and the fewest faults and requests
            that still break it.

            EXAMPLES
              switchyard-bench simulate-faults --seeds 1000
              switchyard-bench simulate-faults --replay 42
            """
    )

    @Option(help: "Seeds to run.")
    var seeds = 1000

    @Option(help: "The first seed.")
    var firstSeed: UInt64 = 1

    @Option(help: ArgumentHelp("Run one seed, and print what happens.", valueName: "seed"))
    var replay: UInt64?

    @Option(help: "Seeds that run at the same time.")
    var jobs = Processors.count

    @Option(help: "Broken seeds after which to stop.")
    var stopAfter = 3

    @Flag(help: "Print how often each rare state was reached.")
    var rareStates = false

    @Flag(help: "Fail if a rare state was reached by no seed.")
    var requireRareStates = false

    func validate() throws {
        for (name, value, limit) in [("seeds", self.seeds, 100_000_000), ("jobs", self.jobs, 1024)]
        where !(1...limit).contains(value) {
            throw ValidationError("--\(name) is \(value); it must be from 1 to \(limit)")
        }
        guard self.stopAfter >= 1 else {
            throw ValidationError("--stop-after is \(self.stopAfter); it must be at least 1")
        }
        guard self.firstSeed <= UInt64.max - UInt64(self.seeds) else {
            throw ValidationError("--first-seed is \(self.firstSeed); with --seeds it must stay below 2^64")
        }
    }

    func run() async throws {
        if let seed = self.replay { return try self.replay(seed) }
        let clock = ContinuousClock()
        let start = clock.now
        let (totals, broken) = await self.runSeeds(since: start, clock)
        let seconds = start.duration(to: clock.now) / .seconds(1)
        for seed in broken { self.explain(seed) }
        self.print(totals, broken: broken.count, seconds: seconds)
        let missing = totals.missing
        if !missing.isEmpty, self.rareStates || self.requireRareStates {
            Terminal.print("not reached: " + missing.map(\.rawValue).joined(separator: "; "))
        }
        guard broken.isEmpty, missing.isEmpty || !self.requireRareStates else { throw ExitCode.failure }
    }

    // MARK: - Running

    /// Runs the seeds, several at a time.
    private func runSeeds(
        since start: ContinuousClock.Instant,
        _ clock: ContinuousClock
    ) async -> (totals: FaultTotals, broken: [UInt64]) {
        var totals = FaultTotals()
        var broken: [UInt64] = []
        let bar = ProgressBar()
        await withTaskGroup(of: (seed: UInt64, totals: FaultTotals, isBroken: Bool).self) { group in
            var next = self.firstSeed
            let end = self.firstSeed + UInt64(self.seeds)
            func add() {
                guard next < end, broken.count < self.stopAfter else { return }
                let seed = next
                next += 1
                group.addTask { @concurrent in
                    let oracle = FaultOracle(FaultScenario(seed: seed))
                    var totals = FaultTotals()
                    totals.add(oracle)
                    return (seed, totals, oracle.isBroken)
                }
            }
            for _ in 0..<self.jobs { add() }
            for await result in group {
                totals.add(result.totals)
                if result.isBroken { broken.append(result.seed) }
                add()
                if totals.seeds % 20 == 0 || totals.seeds == self.seeds {
                    bar.update("seeds", completed: totals.seeds, total: self.seeds, isBytes: false)
                }
            }
        }
        return (totals, broken.sorted())
    }

    /// Prints what a seed breaks, how to run it again, and its smallest form.
    private func explain(_ seed: UInt64) {
        Terminal.print(
            "seed \(seed) breaks a rule; run it again with: switchyard-bench simulate-faults --replay \(seed)"
        )
        guard let small = FaultShrinker.shrink(FaultScenario(seed: seed)) else {
            Terminal.print("  not a second time: two runs of one seed differ")
            return
        }
        for violation in small.violations { Terminal.print("  \(violation)") }
        Terminal.print("  with these faults and requests alone (found in \(small.runs) runs):")
        for fault in small.scenario.faults { Terminal.print("    \(fault)") }
        for request in small.scenario.requests { Terminal.print("    \(request)") }
    }

    private func replay(_ seed: UInt64) throws {
        let scenario = FaultScenario(seed: seed)
        for line in FaultOracle.trace(of: scenario) { Terminal.print(line) }
        guard FaultOracle(scenario).isBroken else {
            Terminal.print("seed \(seed) breaks no rule")
            return
        }
        self.explain(seed)
        throw ExitCode.failure
    }

    private func print(_ totals: FaultTotals, broken: Int, seconds: Double) {
        if self.rareStates {
            for state in RareState.allCases {
                let count = String(totals.rareStates[state] ?? 0)
                Terminal.print(String(repeating: " ", count: max(0, 8 - count.count)) + count + "  " + state.rawValue)
            }
        }
        let rate = seconds > 0 ? Int(totals.virtualSeconds / seconds) : 0
        Terminal.print(
            """
            \(totals.seeds) seeds, \(broken) of which broke a rule
            \(totals.requests) requests, \(totals.answered) answered; \(totals.faults) faults
            \(totals.calls) calls to hosts, \(totals.dropped) rows dropped, \(totals.taintedRows) wrong rows unnoticed
            \(totals.events) events; \(Int(totals.virtualSeconds)) virtual seconds in \(Int(seconds)) s: \(rate) per second
            """
        )
    }
}
