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

/// Runs seeds without a bug.
///
/// - Returns: Whether all went well.
func run(first: UInt64, count: Int, seconds: Int, isTraced: Bool) -> Bool {
    let clock = ContinuousClock()
    let start = clock.now
    var totals = FaultTotals()
    var broken = 0
    for index in 0..<count where clock.now < start.advanced(by: .seconds(seconds)) {
        let seed = first + UInt64(index)
        let scenario = FaultScenario(seed: seed)
        if isTraced { for line in FaultOracle.trace(of: scenario) { print(line) } }
        let oracle = FaultOracle(scenario)
        totals.add(oracle)
        guard let violation = oracle.violations.first else { continue }
        broken += 1
        print("seed \(seed) breaks a rule: \(violation)")
        print("  run it again with: switchyard-bench simulate-faults --replay \(seed)")
    }
    let time = start.duration(to: clock.now) / .seconds(1)
    print("\(totals.seeds) seeds in \(Int(time)) s, \(broken) of which broke a rule")
    print(
        "\(totals.requests) requests, \(totals.answered) answered; \(totals.faults) faults; \(totals.calls) calls to hosts"
    )
    print("\(totals.dropped) rows dropped, \(totals.taintedRows) wrong rows unnoticed; \(totals.events) events")
    print("\(Int(totals.virtualSeconds)) virtual seconds, \(Int(totals.virtualSeconds / max(time, 0.001))) per second")
    for state in RareState.allCases where isTraced || totals.rareStates[state, default: 0] < 12 {
        print("\(totals.rareStates[state] ?? 0)\t\(state.rawValue)")
    }
    return broken == 0 && totals.seeds == count && totals.missing.isEmpty
}

let arguments = CommandLine.arguments.dropFirst().compactMap { Int($0) }
guard arguments.count >= 4, arguments[1] >= 0 else { fatalError("usage: planted BUG FIRST-SEED SEEDS SECONDS [1]") }
PlantedBugs.number = arguments[0]
let first = UInt64(arguments[1])
if arguments[0] != 0 {
    look(for: arguments[0], first: first, count: arguments[2], seconds: arguments[3])
} else if !run(first: first, count: arguments[2], seconds: arguments[3], isTraced: arguments.count > 4) {
    exit(1)
}
