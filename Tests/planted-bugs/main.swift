// SPDX-License-Identifier: Apache-2.0

import FaultSimulation
import PlantedBugs

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

// `planted BUG FIRST-SEED SEEDS SECONDS` runs seeds until one finds the bug, and prints what it found.
//
// Bug 0 is none: then every seed is run, and it is a failure if one breaks a rule, or if a rare state was never reached. A fifth
// argument prints what happens.

/// Looks for a bug.
func look(for bug: Int, first: UInt64, count: Int, seconds: Int) {
    let clock = ContinuousClock()
    let end = clock.now.advanced(by: .seconds(seconds))
    for index in 0..<count where clock.now < end {
        let seed = first + UInt64(index)
        if let broken = FaultOracle(FaultScenario(seed: seed)).violations.first {
            print("\(bug)\tfound\t\(index + 1)\t\(broken)")
            return
        }
    }
    print("\(bug)\tmissed\t\(count)\t")
}

/// Runs seeds without a bug, on all processors.
///
/// - Returns: Whether all went well.
func run(first: UInt64, count: Int, seconds: Int, isTraced: Bool) async -> Bool {
    let clock = ContinuousClock()
    let start = clock.now
    let end = start.advanced(by: .seconds(seconds))
    var totals = FaultTotals()
    var broken: [(seed: UInt64, violation: String)] = []
    await withTaskGroup(of: (seed: UInt64, totals: FaultTotals, violation: String?)?.self) { group in
        for seed in first..<first + UInt64(count) {
            group.addTask { @concurrent in
                guard clock.now < end else { return nil }
                let oracle = FaultOracle(FaultScenario(seed: seed))
                var totals = FaultTotals()
                totals.add(oracle)
                return (seed, totals, oracle.violations.first)
            }
        }
        for await case let result? in group {
            totals.add(result.totals)
            if let violation = result.violation { broken.append((result.seed, violation)) }
        }
    }
    if isTraced {
        for seed in first..<first + UInt64(count) {
            for line in FaultOracle.trace(of: FaultScenario(seed: seed)) { print(line) }
        }
    }
    for (seed, violation) in broken.sorted(by: { $0.seed < $1.seed }) {
        print("seed \(seed) breaks a rule: \(violation)")
        print("  run it again with: switchyard-bench simulate-faults --replay \(seed)")
    }
    let time = start.duration(to: clock.now) / .seconds(1)
    print("\(totals.seeds) seeds in \(Int(time)) s, \(broken.count) of which broke a rule")
    print(
        "\(totals.requests) requests, \(totals.answered) answered; \(totals.faults) faults; \(totals.calls) calls to hosts"
    )
    print("\(totals.dropped) rows dropped, \(totals.taintedRows) wrong rows unnoticed; \(totals.events) events")
    print("\(Int(totals.virtualSeconds)) virtual seconds, \(Int(totals.virtualSeconds / max(time, 0.001))) per second")
    for state in RareState.allCases where isTraced || totals.rareStates[state, default: 0] < 12 {
        print("\(totals.rareStates[state] ?? 0)\t\(state.rawValue)")
    }
    return broken.isEmpty && totals.seeds == count && totals.missing.isEmpty
}

let arguments = CommandLine.arguments.dropFirst().compactMap { Int($0) }
guard arguments.count >= 4, arguments[1] >= 0 else { fatalError("usage: planted BUG FIRST-SEED SEEDS SECONDS [1]") }
PlantedBugs.number = arguments[0]
let first = UInt64(arguments[1])
if arguments[0] != 0 {
    look(for: arguments[0], first: first, count: arguments[2], seconds: arguments[3])
} else if await !run(first: first, count: arguments[2], seconds: arguments[3], isTraced: arguments.count > 4) {
    exit(1)
}
