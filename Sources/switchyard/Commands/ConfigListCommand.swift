// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import CommandKit
import Foundation
import ServiceKit

/// `switchyard config list`: every setting, with its default, range and purpose.
struct ConfigListCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "list",
        abstract: "List all settings of a program, with their defaults, allowed values and purpose.",
        discussion: """
            EXAMPLES
              switchyard config list gateway
              switchyard config list client --markdown
            """
    )

    /// Whose settings are listed.
    enum Program: String, CaseIterable, ExpressibleByArgument {
        case gateway
        case expertHost = "expert-host"
        case client
        case pull
        case train
        case distill

        var settings: [SettingDefinition] {
            switch self {
            case .gateway: CommandSettings.gateway
            case .expertHost: CommandSettings.expertHost
            case .client: CommandSettings.client
            case .pull: CommandSettings.pull
            case .train: CommandSettings.train
            case .distill: CommandSettings.distill
            }
        }
    }

    @Argument(help: "Whose settings: gateway, expert-host, client, pull, train or distill.")
    var program: Program = .gateway

    @Flag(help: "Print a table in Markdown.")
    var markdown = false

    @Option(help: .hidden)
    var update: String?

    func run() throws {
        if let update {
            // For docs/operations.md and docs/training.md, whose tables a test compares with the definitions.
            let text = try String(contentsOfFile: update, encoding: .utf8)
            try DocumentTables.updated(text).write(toFile: update, atomically: true, encoding: .utf8)
            return
        }
        let settings = self.program.settings
        guard !self.markdown else {
            let titles = ["Setting", "Default", "Allowed", "Meaning"]
            Terminal.print(DocumentTables.markdown(titles, settings.map(\.markdownRow)).joined(separator: "\n"))
            return
        }
        var table = TextTable([("setting", .left), ("default", .left), ("allowed", .left), ("meaning", .left)])
        for setting in settings {
            table.add([setting.key, setting.shownDefault ?? "-", setting.range, setting.help])
        }
        Terminal.print(table.text)
    }
}
