// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import FaultSimulation

@Suite("broken scenarios are made small")
struct FaultShrinkerTests {
    /// A scenario with many faults and requests.
    private static let large: FaultScenario = {
        var scenario = FaultScenario(seed: 3)
        scenario.faults = (0..<9)
            .map { SimulatedFault(time: Int64($0), duration: 1, kind: .slow($0, 2)) }
        return scenario
    }()

    @Test("what does not matter is taken away, and what matters stays")
    func minimal() throws {
        func isNeeded(_ scenario: FaultScenario) -> Bool {
            scenario.faults.contains { $0.kind == .slow(2, 2) } && scenario.faults.contains { $0.kind == .slow(7, 2) }
                && scenario.requests.contains { $0.id == 4 }
        }
        let small = try #require(
            FaultShrinker.shrink(Self.large, limit: 400) { isNeeded($0) ? ["at 12.000 ms: request 4 is lost"] : [] }
        )
        #expect(small.scenario.faults.map(\.kind) == [.slow(2, 2), .slow(7, 2)])
        #expect(small.scenario.requests.map(\.id) == [4])
        #expect(small.violations == ["at 12.000 ms: request 4 is lost"])
        #expect(small.runs < 100)
    }

    @Test("another rule that breaks instead does not count")
    func sameRule() throws {
        let small = try #require(
            FaultShrinker.shrink(Self.large, limit: 400) {
                $0.faults.count == 9 ? ["at 1.000 ms: nine"] : ["at 2.000 ms: fewer"]
            }
        )
        #expect(small.scenario.faults.count == 9)
        #expect(
            FaultShrinker.rule("at 12.500 ms: call 7 ended twice")
                == FaultShrinker.rule("at 3.1 ms: call 9 ended twice")
        )
    }

    @Test("a scenario that breaks nothing is not shrunk")
    func whole() {
        #expect(FaultShrinker.shrink(Self.large, limit: 10) { _ in [] } == nil)
    }
}
