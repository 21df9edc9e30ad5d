// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import CommandKit
import Foundation
import ServiceKit

/// `switchyard up --train`: a training run with its hosts on this machine.
struct UpTraining {
    var model: String
    var pools: Int
    var replicas: Int
    var hostThreads: Int?
    var logLevel: String
    /// The arguments of `switchyard train` after the model.
    var arguments: [String]

    /// Starts the hosts, trains, and stops them; a host that dies is restarted, and gets its experts' state again.
    ///
    /// - Throws: What the run throws; `ValidationError` for arguments that `switchyard train` does not know.
    func run() async throws {
        guard !self.arguments.contains(where: { $0 == "--pool" || $0.hasPrefix("--pool=") }) else {
            throw ValidationError(
                "--pool is set by up --train; leave it out, or run `switchyard train` with hosts of its own"
            )
        }
        // Before any process starts.
        let settings = try await TrainCommand.parse([self.model] + self.arguments).settings()
        guard try settings.value(TrainSettings.table.experts) != .frozen else {
            throw ValidationError(
                "experts is frozen, but the hosts of up --train train them; set it to full or lora, or run `switchyard train` with"
                    + " hosts that serve"
            )
        }
        let scratch = try ScratchFolder()
        defer { scratch.remove() }
        let children = ChildSettings(
            executable: Programs.this,
            onExit: .restart,
            startTimeout: .seconds(60),
            events: Self.show
        )
        let names = (0..<self.pools).map { "pool-\($0)" }
        try await ChildProcesses.run(self.hosts(names, scratch.path), settings: children) { children in
            let running = children.running
            let pools = names.flatMap { name in
                let addresses = running.filter { $0.name.hasPrefix("\(name)/") }.map(\.address)
                return ["--pool", "\(name)=\(addresses.joined(separator: ","))"]
            }
            Terminal.print(
                "\(running.count) hosts are up: \(running.map { "\($0.name) \($0.address)" }.joined(separator: ", "))"
            )
            let train = try TrainCommand.parse([self.model] + self.arguments + pools)
            try await train.run()
        }
    }

    private func hosts(_ names: [String], _ folder: String) -> [ChildSpecification] {
        names.flatMap { name in
            (0..<self.replicas)
                .map { replica in
                    let addressFile = "\(folder)/\(name)-\(replica).address"
                    var arguments = [
                        "expert-host", "--train", "--listen", "127.0.0.1:0", "--address-file", addressFile,
                        "--exit-with-standard-input", "--admin-listen", "off", "--log-level", self.logLevel,
                    ]
                    if let hostThreads { arguments += ["--threads", "\(hostThreads)"] }
                    return ChildSpecification(
                        name: "\(name)/\(replica)",
                        arguments: arguments,
                        addressFile: addressFile
                    )
                }
        }
    }

    private static func show(_ event: ChildEvent) {
        switch event {
        case .started: break
        case .line(let name, let text): Terminal.printError("[\(name)] \(text)")
        case .exited(let name, let status): Terminal.printError("\(name) exited: \(status)")
        }
    }
}

extension UpCommand {
    /// The training run that the options describe.
    ///
    /// - Returns: The run; nil for a cluster that serves.
    /// - Throws: `ValidationError` naming an option that does not go with `--train`, or needs it.
    func training() throws -> UpTraining? {
        guard self.train else {
            guard self.trainArguments.isEmpty else {
                throw ValidationError("what follows -- is for a training run; add --train, or leave it out")
            }
            return nil
        }
        let given = [
            ("--listen", self.listen != "127.0.0.1:7400"), ("--admin-listen", self.adminListen != "off"),
            ("--plaintext", self.plaintext), ("--shards", self.shards != nil),
            ("--override", !self.override.isEmpty), ("--merge-adapter", self.mergeAdapter != nil),
            ("--threads", self.threads != nil), ("--dtype", self.precision.dtype != nil),
            ("--expert-dtype", self.precision.expertDtype != nil), ("--wire-dtype", self.precision.wireDtype != nil),
            ("--packed", self.precision.packed),
        ]
        if let option = given.first(where: \.1)?.0 {
            throw ValidationError(
                "\(option) is for a cluster that serves; leave it out with --train (the run's own options follow --)"
            )
        }
        return UpTraining(
            model: self.model,
            pools: self.pools ?? 2,
            replicas: self.replicas ?? 1,
            hostThreads: self.hostThreads,
            logLevel: self.logLevel ?? "warning",
            arguments: self.trainArguments
        )
    }
}
