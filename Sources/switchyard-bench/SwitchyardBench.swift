// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import CommandKit
import Foundation
import SwitchyardTypes
import TensorKernels

/// The program.
@main
enum Program {
    static func main() { SwitchyardBench.runAndExit() }
}

/// The `switchyard-bench` command: the benchmarks of docs/benchmarks.md and the simulator of docs/simulation.md.
struct SwitchyardBench: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "switchyard-bench",
        abstract: "Measure kernels, calls, layers and models on this machine; simulate large clusters.",
        discussion: """
            EXAMPLES
              switchyard-bench kernels
              switchyard-bench rpc
              switchyard-bench model deploy/models/switch-mini
              switchyard-bench cluster deploy/models/switch-mini --pools 2
              switchyard-bench experts
              switchyard-bench stages
              switchyard-bench frozen
              switchyard-bench drops --svg drops.svg
              switchyard-bench plot compare.json --svg compare.svg
              switchyard-bench audit --draws 100
              switchyard-bench simulate --scenario stragglers
              switchyard-bench simulate-faults --seeds 1000
            """,
        version: "0.1.0",
        subcommands: [
            BenchKernelsCommand.self, BenchModelCommand.self, BenchClusterCommand.self, BenchExpertsCommand.self,
            BenchStagesCommand.self, CountCallsCommand.self, CountStepsCommand.self,
            BenchScaleCommand.self, BenchFrozenCommand.self, BenchRPCCommand.self, BenchRPCServerCommand.self,
            BenchRawServerCommand.self, BenchDropsCommand.self,
            BenchCompareCommand.self, BenchPlotCommand.self, BenchAllCommand.self,
            AuditCommand.self, SimulateCommand.self, SimulateFaultsCommand.self, PicturesCommand.self,
        ]
    )

    /// The machine in two lines, for the head of every table.
    static var machine: String {
        let model =
            (try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8))?
            .split(separator: "\n").first { $0.hasPrefix("model name") }?
            .split(separator: ":").last.map { $0.trimmingCharacters(in: .whitespaces) } ?? "unknown processor"
        return "\(Processors.count) processors (\(model)); \(KernelReport.describe())"
    }
}

/// `switchyard-bench all`: every benchmark that needs no argument.
struct BenchAllCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "all",
        abstract: "Calls, then the model in this process, then the same model through a cluster."
    )

    @Argument(help: "A folder in Hugging Face layout, or a hub id in the local cache.")
    var model: String = "deploy/models/switch-mini"

    func run() async throws {
        let rpc = try BenchRPCCommand.parse([])
        try await rpc.run()
        let local = try BenchModelCommand.parse([self.model])
        try await local.run()
        let cluster = try BenchClusterCommand.parse([self.model])
        try await cluster.run()
    }
}
