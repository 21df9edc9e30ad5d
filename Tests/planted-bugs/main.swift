// SPDX-License-Identifier: Apache-2.0

import FaultSimulation
import PlantedBugs

// `planted BUG FIRST-SEED SEEDS SECONDS` runs seeds until one finds the bug, and prints what it found.
// Bug 0 is none, with which every seed is run and what was reached is printed; a fifth argument prints what happens.
let arguments = CommandLine.arguments.dropFirst().compactMap { Int($0) }
guard arguments.count >= 4 else { fatalError("usage: planted BUG FIRST-SEED SEEDS SECONDS") }
PlantedBugs.number = arguments[0]
let clock = ContinuousClock()
let end = clock.now.advanced(by: .seconds(arguments[3]))
var totals = FaultTotals()
var count = 0
var broken = 0
for seed in arguments[1]..<(arguments[1] + arguments[2]) {
    count += 1
    let scenario = FaultScenario(seed: UInt64(seed))
    if arguments.count > 4 { for line in FaultOracle.trace(of: scenario) { print(line) } }
    let oracle = FaultOracle(scenario)
    totals.add(oracle)
    if let first = oracle.violations.first {
        broken += 1
        print("\(arguments[0])\tfound\t\(count)\tseed \(seed): \(first)")
        if arguments[0] != 0 { break }
    }
    if clock.now > end || count == arguments[2] {
        if arguments[0] != 0 { print("\(arguments[0])\tmissed\t\(count)\t") }
        break
    }
}
if arguments[0] == 0 {
    print("\(totals.seeds) seeds, \(broken) broken, \(totals.requests) requests, \(totals.answered) answered")
    print(
        "\(totals.calls) calls, \(totals.events) events, \(totals.dropped) rows dropped, \(totals.taintedRows) tainted"
    )
    for state in RareState.allCases { print("\(totals.rareStates[state] ?? 0)\t\(state)") }
}
