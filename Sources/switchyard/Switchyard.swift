// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import CommandKit

/// The program.
@main
enum Program {
    static func main() { Switchyard.runAndExit() }
}

/// The `switchyard` command.
struct Switchyard: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "switchyard",
        abstract: "Serve Switch Transformers as a cluster of one gateway and expert hosts, and train them.",
        discussion: """
            EXAMPLE
              switchyard up deploy/models/switch-mini --pools 4
              switchyard generate "A horse! a horse! my <extra_id_0> for a horse!"
            """,
        version: "0.1.0",
        subcommands: [
            UpCommand.self, GenerateCommand.self, BatchCommand.self, StatusCommand.self, TopCommand.self,
            HealthCommand.self, PlanCommand.self, RolloutCommand.self,
            InspectCommand.self, VerifyCommand.self, ShardCommand.self,
            ExpertHostCommand.self, GatewayCommand.self, CertsCommand.self, SimulateCommand.self, BenchCommand.self,
            DemoCommand.self, PullCommand.self, ConfigCommand.self,
            UpcycleCommand.self, TrainCommand.self, DistillCommand.self, PruneCommand.self,
            EvaluateCommand.self,
        ]
    )
}
