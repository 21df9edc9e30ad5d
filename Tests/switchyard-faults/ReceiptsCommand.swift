// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import FaultTools

struct ReceiptsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "receipts",
        abstract: "Make receipts with one instruction set, verify them with another, and tamper with some.",
        discussion: """
            Clusters of two hosts, with float32, bfloat16 and int8 weights and rows of both types on the wire, some of which lose a host
            halfway. Fails if a receipt is not verified, or a tampered one is.

            EXAMPLE
              switchyard-faults receipts --count 1000 --tamperings 100
            """
    )

    @Option(help: "How many receipts to make.")
    var count = 1_000

    @Option(help: "How many receipts to tamper with, one field or bit each.")
    var tamperings = 100

    @OptionGroup var place: PlaceOptions

    func validate() throws {
        guard (60...1_000_000).contains(self.count) else {
            throw ValidationError("--count is \(self.count); it must be from 60 to 1000000")
        }
        guard (1...10_000).contains(self.tamperings) else {
            throw ValidationError("--tamperings is \(self.tamperings); it must be from 1 to 10000")
        }
    }

    func run() async throws {
        let workspace = try self.place.workspace()
        defer { workspace.discard() }
        let start = ContinuousClock.now
        let outcome = try await ReceiptTrial(workspace, tell: tell).run(count: self.count, tamperings: self.tamperings)
        for line in outcome.lines { print(line) }
        print(
            "\(outcome.receipts) receipts, \(outcome.withDrops) with dropped rows, \(outcome.mismatches.count) not verified; "
                + "\(outcome.tampered) tampered, \(outcome.missed.count) not found; \(start.duration(to: .now))"
        )
        for line in (outcome.mismatches + outcome.missed).prefix(20) { tell(line) }
        guard outcome.mismatches.isEmpty, outcome.missed.isEmpty else { throw ExitCode.failure }
    }
}
