// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import FaultTools
import Foundation

struct RunCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "run",
        abstract: "Run rows; prints the table and fails if a row fails.",
        discussion: """
            EXAMPLE
              switchyard-faults run --row sigkill/replica --row rolling --seconds 30 --markdown table.md
            """
    )

    @Option(
        name: .customLong("row"),
        help: "A row's name, with or without /replica or /alone; all rows if none is named."
    )
    var names: [String] = []

    @Flag(help: "Only the rows with hostile clients, files and hosts.")
    var hostile = false

    @Option(help: "Seconds under the fault where throughput is compared; the other phases scale with it.")
    var seconds = 30

    @Option(help: ArgumentHelp("Write the table as Markdown.", valueName: "file"))
    var markdown: String?

    @Option(help: ArgumentHelp("Write every figure and check as JSON.", valueName: "file"))
    var json: String?

    @OptionGroup var place: PlaceOptions

    func validate() throws {
        guard (1...3600).contains(self.seconds) else {
            throw ValidationError("--seconds is \(self.seconds); it must be from 1 to 3600")
        }
    }

    func run() async throws {
        let rows = try self.rows()
        var labProblem: String?
        if rows.contains(where: \.needsLab), !NetworkLab.isInside {
            // Continues in a new process; the rest is for where that is not possible.
            labProblem = await NetworkLab.enter(Array(CommandLine.arguments.dropFirst()))
        }
        Self.leaveOnSignals()
        var results: [FaultResult] = []
        var lab: NetworkLab?
        do {
            if NetworkLab.isInside { lab = try await NetworkLab() }
        } catch {
            labProblem = "\(error)"
        }
        for row in rows {
            tell("\(row.name)/\(row.variant.rawValue): \(row.title) ...")
            let workspace = try self.place.workspace()
            defer { workspace.discard() }
            let context = try RowContext(
                workspace: workspace,
                timing: self.place.timing(seconds: self.seconds),
                lab: lab
            )
            let result = await row.run(context, labProblem: labProblem)
            tell(FaultTable.words(result))
            if result.verdict == .failed { self.place.keep(workspace, as: "\(row.name)/\(row.variant.rawValue)") }
            results.append(result)
            try self.write(results)
        }
        print(FaultTable.markdown(results), terminator: "")
        let failed = results.count { $0.verdict == .failed }
        let skipped = results.count { $0.verdict == .skipped }
        tell("\(results.count) rows: \(results.count - failed - skipped) passed, \(failed) failed, \(skipped) skipped")
        if failed > 0 { throw ExitCode.failure }
    }

    private func rows() throws -> [FaultRow] {
        guard !self.names.isEmpty else { return FaultRow.all.filter { !self.hostile || $0.isHostile } }
        return try self.names.flatMap { name in
            let found = FaultRow.named(name)
            guard !found.isEmpty else {
                throw ValidationError("there is no row \(name); see: switchyard-faults list")
            }
            return found
        }
    }

    /// Written after every row, so that an interrupted run leaves its results.
    private func write(_ results: [FaultResult]) throws {
        if let markdown { try Data(FaultTable.markdown(results).utf8).write(to: URL(fileURLWithPath: markdown)) }
        guard let json else { return }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
        try encoder.encode(results).write(to: URL(fileURLWithPath: json))
    }

    /// The first process of a process namespace ignores signals that it does not handle; when it ends, the kernel ends
    /// all others within.
    static func leaveOnSignals() {
        for number in [SIGINT, SIGTERM] {
            signal(number) { _ in _exit(130) }
        }
    }
}
