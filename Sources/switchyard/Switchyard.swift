// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import CommandKit
import Foundation

/// The `switchyard` command.
@main
struct Switchyard: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "switchyard",
        abstract: "Serve Switch Transformers as a cluster: one gateway, and expert hosts that hold the experts.",
        discussion: """
            EXAMPLE
              switchyard up deploy/models/switch-mini --pools 4
              switchyard generate "A horse! a horse! my <extra_id_0> for a horse!"
            """,
        version: "0.1.0",
        subcommands: [
            UpCommand.self, GenerateCommand.self, StatusCommand.self, HealthCommand.self, PlanCommand.self,
            ShardCommand.self,
            ExpertHostCommand.self, GatewayCommand.self, CertsCommand.self, SimulateCommand.self, BenchCommand.self,
            DemoCommand.self, PullCommand.self, ConfigCommand.self,
        ]
    )

    /// Runs the command that the arguments name.
    ///
    /// Help and errors take the same path as all other output, so that one place handles failed writes.
    static func main() async {
        do {
            var command = try Self.parseAsRoot()
            if var command = command as? any AsyncParsableCommand {
                try await command.run()
            } else {
                try command.run()
            }
        } catch {
            let code = Self.exitCode(for: error)
            let text = Self.fullMessage(for: error)
            if code == .success {
                if !text.isEmpty { Terminal.print(text) }
            } else if !text.isEmpty {
                Terminal.printError(text)
            }
            Foundation.exit(code.rawValue)
        }
    }
}
