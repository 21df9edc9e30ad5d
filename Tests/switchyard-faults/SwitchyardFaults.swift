// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import FaultTools
import Foundation

/// Faults in whole clusters of processes while clients call, and what the clients see of them.
@main
struct SwitchyardFaults: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "switchyard-faults",
        abstract: "Inject faults into clusters of real processes under load, and report what clients see.",
        discussion: """
            Rows that need delay, loss or partition run their hosts in network namespaces on their own bridge; the
            machine's network is not touched. Where namespaces are not available, those rows are reported as skipped.

            EXAMPLES
              switchyard-faults list
              switchyard-faults run --row sigkill --row nan/alone --seconds 10
              switchyard-faults run --markdown table.md --json figures.json --artifacts logs
              switchyard-faults soak --minutes 30 --seed 1 --svg memory.svg
              switchyard-faults receipts --count 1000 --tamperings 100
              switchyard-faults victims --count 10000
            """,
        subcommands: [
            RunCommand.self, SoakCommand.self, ReceiptsCommand.self, VictimsCommand.self, TrainingCommand.self,
            ListCommand.self,
        ]
    )
}

/// Writes a line for people, apart from the output for programs.
func tell(_ text: String) {
    try? FileHandle.standardError.write(contentsOf: Data("\(text)\n".utf8))
}

/// Where the commands find programs and models.
struct PlaceOptions: ParsableArguments {
    @Option(help: ArgumentHelp("The switchyard program; by default the one next to this one.", valueName: "file"))
    var switchyard: String?

    @Option(help: ArgumentHelp("The model to serve; by default the miniature.", valueName: "dir"))
    var model: String?

    @Option(help: ArgumentHelp("Where to leave the processes' logs when something fails.", valueName: "dir"))
    var artifacts: String?

    @Option(help: "Number of concurrent clients.")
    var clients = 4

    @Option(help: "Load in percent of what the clients could make without pauses.")
    var load = 60

    func validate() throws {
        guard (1...256).contains(self.clients) else {
            throw ValidationError("--clients is \(self.clients); it must be from 1 to 256")
        }
        guard (1...100).contains(self.load) else {
            throw ValidationError("--load is \(self.load); it must be from 1 to 100")
        }
    }

    func timing(seconds: Int) -> FaultTiming {
        FaultTiming(seconds: seconds, clients: self.clients, share: Double(self.load) / 100)
    }

    func workspace() throws -> FaultWorkspace {
        try FaultWorkspace(executable: self.switchyard, model: self.model ?? FaultWorkspace.miniature)
    }

    /// Keeps the logs of a failed row.
    func keep(_ workspace: FaultWorkspace, as name: String) {
        let target = "\(self.artifacts ?? "fault-logs")/\(name.replacingOccurrences(of: "/", with: "-"))"
        try? FileManager.default.removeItem(atPath: target)
        do {
            try FileManager.default.createDirectory(atPath: target, withIntermediateDirectories: true)
            for folder in try FileManager.default.contentsOfDirectory(atPath: workspace.folder)
            where folder.hasPrefix("cluster-") {
                try FileManager.default.copyItem(atPath: "\(workspace.folder)/\(folder)", toPath: "\(target)/\(folder)")
            }
            tell("  logs: \(target)")
        } catch {
            tell("  the logs cannot be kept: \(error)")
        }
    }
}

struct ListCommand: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "list", abstract: "List the rows.")

    func run() {
        for row in FaultRow.all {
            let name = "\(row.name)/\(row.variant.rawValue)"
            let padding = String(repeating: " ", count: max(1, 26 - name.count))
            print("\(name)\(padding)\(row.title)\(row.needsLab ? "  [needs namespaces]" : "")")
        }
    }
}
