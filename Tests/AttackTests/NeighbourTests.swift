// SPDX-License-Identifier: Apache-2.0

import FaultTools
import PeerTools
import Testing

/// Requests built to change what others are answered, beside requests whose answers are known.
@Suite("Requests beside attackers", .serialized)
struct NeighbourTests {
    private static func run(victims: Int, capacity: String) async throws -> NeighbourTrial.Outcome {
        let workspace = try FaultWorkspace(executable: Peers.built("switchyard"))
        defer { workspace.discard() }
        var plan = NeighbourTrial.Plan(victims: victims)
        plan.turns = 2
        plan.capacity = capacity
        return try await NeighbourTrial(workspace, plan) { _ in }.run()
    }

    @Test("no attack changes a bit of another request's answer, and what is broken is refused")
    func sameBits() async throws {
        let outcome = try await Self.run(victims: 160, capacity: "checkpoint")
        #expect(outcome.victims == 160 && outcome.harmlessVictims == 160)
        #expect(outcome.changed == 0 && outcome.harmlessChanged == 0)
        #expect(outcome.failures == [])
        #expect(outcome.refused > 0 && outcome.accepted == 0)
        let attacks = outcome.attacks.filter { $0.key != "harmless" }
        #expect(attacks.values.reduce(0, +) > 0)
        // Every attack is a request that the gateway takes.
        #expect(!attacks.keys.contains { $0.contains("refused") }, "\(attacks)")
    }

    @Test("with a capacity that requests share, the same comparison finds changes")
    func sharedCapacity() async throws {
        let outcome = try await Self.run(victims: 80, capacity: "factor:1")
        #expect(outcome.changed > 0)
    }
}
