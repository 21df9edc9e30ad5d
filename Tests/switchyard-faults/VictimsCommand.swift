// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import FaultTools

struct VictimsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "victims",
        abstract:
            "Call a cluster beside attackers, and compare answers with those alone and times with harmless company.",
        discussion: """
            Two hosts that hold all experts, and a gateway that places hot experts on both. Attackers' requests go to one expert, copy
            victims' inputs, fill slots with beams, and have extreme parameters; some are broken. Harmless neighbours send as many of the
            same sizes. Fails if a victim's answer differs in a bit from its answer alone, or if the 99th percentile of its time is more
            than --limit times that beside harmless neighbours.

            EXAMPLES
              switchyard-faults victims --count 10000
              switchyard-faults victims --count 500 --capacity factor:1.25 --accept-changes
            """
    )

    @Option(help: "How many victims beside attackers; as many again call beside harmless neighbours.")
    var count = 10_000

    @Option(help: "The gateway's setting capacity.")
    var capacity = "checkpoint"

    @Option(help: "How often attackers and harmless neighbours take turns.")
    var turns = 10

    @Option(help: "How many times longer the 99th percentile of victims' times may be beside attackers.")
    var limit = 1.3

    @Flag(help: "Report changed answers and times without failing.")
    var acceptChanges = false

    @OptionGroup var place: PlaceOptions

    func validate() throws {
        guard (1...1_000_000).contains(self.count) else {
            throw ValidationError("--count is \(self.count); it must be from 1 to 1000000")
        }
        guard (1...1_000).contains(self.turns) else {
            throw ValidationError("--turns is \(self.turns); it must be from 1 to 1000")
        }
        guard self.limit >= 1, self.limit <= 1_000 else {
            throw ValidationError("--limit is \(self.limit); it must be from 1 to 1000")
        }
    }

    func run() async throws {
        let workspace = try self.place.workspace()
        defer { workspace.discard() }
        var plan = NeighbourTrial.Plan(victims: self.count)
        plan.capacity = self.capacity
        plan.turns = self.turns
        let start = ContinuousClock.now
        let outcome = try await NeighbourTrial(workspace, plan, tell: tell).run()
        for line in outcome.lines { print(line) }
        print("\(start.duration(to: .now))")
        for failure in outcome.failures.prefix(10) { tell(failure) }
        guard !self.acceptChanges else { return }
        let isGood =
            outcome.changed == 0 && outcome.harmlessChanged == 0 && outcome.failures.isEmpty && outcome.accepted == 0
        guard isGood, outcome.ratio <= self.limit else { throw ExitCode.failure }
    }
}
