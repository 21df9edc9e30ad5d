// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import FaultTools
import Foundation

struct SoakCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "soak",
        abstract: "Inject random faults into a cluster under load; fails if an answer changes or memory grows.",
        discussion: """
            Two pools of two hosts; one fault at a time: a host is killed, stopped, drained or added. Every answer must be
            the undisturbed one, and processes that live throughout must not grow.

            EXAMPLE
              switchyard-faults soak --minutes 30 --seed 1 --csv memory.csv --svg memory.svg
            """
    )

    @Option(help: "How long to inject faults, in minutes.")
    var minutes = 30.0

    @Option(help: "The same seed draws the same faults.")
    var seed: UInt64 = 1

    @Option(help: ArgumentHelp("Write every process's memory over time.", valueName: "file"))
    var csv: String?

    @Option(help: ArgumentHelp("Draw every process's memory over time.", valueName: "file"))
    var svg: String?

    @OptionGroup var place: PlaceOptions

    func validate() throws {
        guard self.minutes > 0, self.minutes <= 10_000 else {
            throw ValidationError("--minutes is \(self.minutes); it must be over 0 and at most 10000")
        }
    }

    func run() async throws {
        let workspace = try self.place.workspace()
        defer { workspace.discard() }
        let context = try RowContext(
            workspace: workspace,
            timing: self.place.timing(seconds: 30)
        )
        let soak = Soak(context: context, time: .seconds(self.minutes * 60), seed: self.seed) { tell($0) }
        do {
            let outcome = try await soak.run()
            if let csv { try Data(outcome.memory.csv.utf8).write(to: URL(fileURLWithPath: csv)) }
            if let svg { try Data(outcome.memory.svg.utf8).write(to: URL(fileURLWithPath: svg)) }
            for check in outcome.checks { tell("\(check.holds ? "ok  " : "FAIL") \(check.name): \(check.found)") }
            for (status, count) in outcome.load.statuses { tell("note: \(count) x \(status)") }
            print(outcome.summary)
            if !outcome.checks.allSatisfy(\.holds) {
                self.place.keep(workspace, as: "soak")
                throw ExitCode.failure
            }
        } catch let error as FaultError {
            self.place.keep(workspace, as: "soak")
            throw error
        }
    }
}
