// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import FaultTools

struct TrainingCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "train",
        abstract: "Train with experts on hosts under faults, and compare weights with those of a run in one process.",
        discussion: """
            Each row trains the same steps with two pools, alone or with replicas, while a fault is made again and again. Fails if
            weights or optimizer state differ in a bit, if an example was lost or counted twice, or if no flipped bit was found.
            The second table says how long new hosts took to be of use again, and the repetition of the log over the same steps,
            and over the same calls, when they were first made: medians, with the least and the most.

            EXAMPLES
              switchyard-faults train
              switchyard-faults train --fault sigkill --steps 2000 --every 29
              switchyard-faults train --lora-rank 8
            """
    )

    @Option(name: .customLong("fault"), help: "A fault; all if none is named.")
    var names: [String] = []

    @Option(help: "Steps of each run.")
    var steps = 300

    @Option(help: "Texts of a step.")
    var examples = 24

    @Option(help: "Seconds from a fault to the next.")
    var every = 10.0

    @Option(help: "Threads of the trainer.")
    var threads = 1

    @Option(help: "Train a LoRA adapter of this rank, for queries and all experts, in place of all weights.")
    var loraRank: Int?

    @Option(help: "Hosts of each pool: 1, 2, or both in turn.")
    var replicas: [Int] = [2, 1]

    @OptionGroup var place: PlaceOptions

    func validate() throws {
        guard self.steps >= 8, (1...4096).contains(self.examples), self.every > 0,
            self.replicas.allSatisfy({ (1...8).contains($0) })
        else {
            throw ValidationError(
                "--steps must be at least 8, --examples from 1 to 4096, --every above 0, --replicas from 1 to 8"
            )
        }
        for name in self.names where TrainingTrial.Fault(rawValue: name) == nil {
            let all = TrainingTrial.Fault.allCases.map(\.rawValue).joined(separator: ", ")
            throw ValidationError("--fault is \"\(name)\", but must be one of \(all)")
        }
    }

    func run() async throws {
        let named = self.names.compactMap { TrainingTrial.Fault(rawValue: $0) }
        let faults = named.isEmpty ? TrainingTrial.Fault.allCases : named
        var problem: String?
        if faults.contains(where: \.needsLab), !NetworkLab.isInside {
            problem = await NetworkLab.enter(Array(CommandLine.arguments.dropFirst()))
        }
        let workspace = try self.place.workspace()
        defer { workspace.discard() }
        let trial = TrainingTrial(
            workspace: workspace,
            steps: self.steps,
            examples: self.examples,
            interval: self.every,
            threads: self.threads,
            adapterRank: self.loraRank,
            lab: NetworkLab.isInside ? try await NetworkLab() : nil
        )
        try trial.prepare()
        tell("the run in one process ...")
        try await trial.reference()
        var outcomes: [TrainingTrial.Outcome] = []
        for replicas in self.replicas {
            tell("calm/\(replicas) ...")
            let calm = try await trial.run(.calm, replicas: replicas, calm: nil)
            outcomes.append(calm)
            for fault in faults where fault != .calm {
                if fault.needsLab, trial.lab == nil {
                    tell("\(fault.rawValue)/\(replicas) is skipped: \(problem ?? "no namespaces")")
                    continue
                }
                tell("\(fault.rawValue)/\(replicas) ...")
                outcomes.append(try await trial.run(fault, replicas: replicas, calm: calm.seconds))
                print(TrainingTrial.markdown(Array(outcomes.suffix(1))), terminator: "")
            }
        }
        print(TrainingTrial.markdown(outcomes), terminator: "")
        let recoveries = TrainingTrial.recoveries(outcomes)
        if !recoveries.isEmpty { print("\n\(recoveries)", terminator: "") }
        if !outcomes.allSatisfy(\.isRight) { throw ExitCode.failure }
    }
}
