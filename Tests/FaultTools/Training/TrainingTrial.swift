// SPDX-License-Identifier: Apache-2.0

internal import Foundation

/// Training runs with experts on hosts, with faults in them: each must end with the weights of a calm run.
package struct TrainingTrial: Sendable {
    /// What is done to a run, again and again.
    package enum Fault: String, Sendable, CaseIterable {
        /// Nothing: what the others are compared with.
        case calm
        /// A host is killed with SIGKILL and started again.
        case sigkill
        /// A host is stopped with SIGSTOP for a third of the interval.
        case sigstop
        /// A host is cut off the network for a third of the interval.
        case partition
        /// One packet of a hundred is lost, all the time.
        case loss
        /// A host is killed, and its newest snapshot cut in half.
        case torn
        /// Snapshots cannot be written: files may not grow beyond a limit.
        case disk
        /// The trainer is killed with SIGKILL and goes on with `--resume`.
        case trainer
        /// A bit of a weight is flipped in a host's memory.
        case flip

        /// The fault in words.
        package var title: String {
            switch self {
            case .calm: "none"
            case .sigkill: "a host killed (SIGKILL)"
            case .sigstop: "a host stopped (SIGSTOP)"
            case .partition: "a host cut off the network"
            case .loss: "1 % packet loss"
            case .torn: "a host killed, its snapshot torn"
            case .disk: "a full disk on every host"
            case .trainer: "the trainer killed"
            case .flip: "a flipped bit in a host's memory"
            }
        }

        /// Whether hosts must be in network namespaces.
        package var needsLab: Bool { self == .partition || self == .loss }
    }

    /// What came of one run.
    package struct Outcome: Sendable {
        package var fault: Fault
        package var replicas: Int
        package var steps: Int
        /// How often the fault was made.
        package var times: Int
        package var seconds: Double
        /// Seconds of the calm run with as many replicas over these.
        package var throughput: Double?
        /// Whether the weights and the optimizer state are those of the run in one process.
        package var isSame: Bool
        /// Examples that the run took, and those that it should have taken.
        package var examples: (taken: Int, expected: Int)
        /// Memory that was found changed: by a host itself, or by comparison with its replica.
        package var found: Int
        /// How new hosts became of use; without those of a trainer that was killed.
        package var recoveries: [Recovery]
        package var status: String

        /// Whether the row passes.
        package var isRight: Bool {
            self.isSame && self.examples.taken == self.examples.expected && (self.fault != .flip || self.found > 0)
        }
    }

    /// The program, the model, and where files go.
    package var workspace: FaultWorkspace
    package var steps: Int
    /// Texts of a step.
    package var examples: Int
    /// Seconds from a fault to the next.
    package var interval: Double
    package var threads: Int
    /// The rank of an adapter that is trained in place of the weights; nil to train those.
    package var adapterRank: Int?
    package var lab: NetworkLab?

    /// Describes a trial; each parameter is the property of that name.
    package init(
        workspace: FaultWorkspace,
        steps: Int,
        examples: Int,
        interval: Double,
        threads: Int,
        adapterRank: Int? = nil,
        lab: NetworkLab?
    ) {
        self.adapterRank = adapterRank
        self.workspace = workspace
        self.steps = steps
        self.examples = examples
        self.interval = interval
        self.threads = threads
        self.lab = lab
    }

    private var data: String { "\(self.workspace.folder)/data.txt" }

    /// Writes text to learn from: the project's own documents.
    package func prepare() throws {
        let folder = "\(FaultWorkspace.root)/docs"
        let names = try FileManager.default.contentsOfDirectory(atPath: folder).filter { $0.hasSuffix(".md") }.sorted()
        let text = try names.map { try String(contentsOfFile: "\(folder)/\($0)", encoding: .utf8) }
            .joined(separator: "\n")
        try text.write(toFile: self.data, atomically: true, encoding: .utf8)
    }

    private func arguments(_ out: String, _ more: [String]) -> [String] {
        [
            "train", self.workspace.model, "--data", self.data, "--out", "\(self.workspace.folder)/\(out)", "--steps",
            "\(self.steps)", "--batch-examples", "\(self.examples)", "--threads", "\(self.threads)", "--report-every",
            "1",
            "--save-every", "\(max(1, self.steps / 8))", "--keep", "2", "--max-input", "96", "--max-target", "48",
            "--seed", "9",
        ] + self.adapter + more
    }

    private var adapter: [String] {
        guard let rank = self.adapterRank else { return [] }
        return ["--lora-rank", "\(rank)", "--lora-target", "q", "--lora-target", "*.experts.*"]
    }

    private func specification(_ name: String, _ command: [String]) -> ProcessSpecification {
        ProcessSpecification(
            name: name,
            executable: command[0],
            arguments: Array(command.dropFirst()),
            addressFile: "\(self.workspace.folder)/\(name.replacing("/", with: "-")).address",
            logFile: "\(self.workspace.folder)/\(name.replacing("/", with: "-")).log"
        )
    }

    /// Trains in one process.
    package func reference() async throws {
        try await ProcessKeeper.with { keeper in
            let process = keeper.start(
                self.specification("here", [self.workspace.executable] + self.arguments("here", []))
            )
            let exit = try await process.ended(within: .seconds(7200))
            guard exit.code == 0 else { throw FaultError("the run in one process failed: \(exit)") }
        }
    }

    private func contents(_ out: String, _ name: String) -> Data? {
        FileManager.default.contents(atPath: "\(self.workspace.folder)/\(out)/latest/\(name)")
    }

    /// One host, and how to start it again.
    final class Host {
        let name: String
        /// Its pool.
        let pool: Int
        let command: [String]
        let place: LabHost?
        let snapshots: String?
        var process: KeptProcess
        /// Where a weight is in the process's memory, once that was found.
        var weight: (process: Int32, address: UInt64)?

        init(
            _ name: String,
            pool: Int,
            _ command: [String],
            _ place: LabHost?,
            _ snapshots: String?,
            _ process: KeptProcess
        ) {
            self.name = name
            self.pool = pool
            self.command = command
            self.place = place
            self.snapshots = snapshots
            self.process = process
        }
    }

    /// Trains with hosts while a fault is made again and again.
    ///
    /// - Parameters:
    ///   - fault: The fault.
    ///   - replicas: Hosts of each of the two pools.
    ///   - calm: Seconds of the calm run with as many.
    /// - Returns: What came of it.
    /// - Throws: ``FaultError`` where a process does not start.
    package func run(_ fault: Fault, replicas: Int, calm: Double?) async throws -> Outcome {
        let out = "\(fault.rawValue)-\(replicas)"
        return try await ProcessKeeper.with { keeper in
            let hosts = try await self.startHosts(fault, replicas, out, keeper)
            let pools = (0..<2)
                .map { pool in
                    let targets = hosts.filter { $0.name.hasPrefix("\(out)-\(pool)-") }.compactMap(\.process.address)
                    return "pool-\(pool)=\(targets.joined(separator: ","))"
                }
            let more =
                ["--experts", self.adapterRank == nil ? "full" : "lora"]
                + ["--snapshot-every", "20", "--plaintext", "--expert-call-seconds", "20"]
                + pools.flatMap { ["--pool", $0] }
            if fault == .loss { try await self.lab?.lose(perMille: 10, between: hosts.compactMap(\.place)) }
            let start = ContinuousClock.now
            var trainer = keeper.start(
                self.specification("\(out)-trainer", [self.workspace.executable] + self.arguments(out, more))
            )
            var (times, next) = (0, start.advanced(by: .seconds(self.interval)))
            while trainer.exit == nil {
                try await Task.sleep(for: .milliseconds(20))
                guard fault != .calm, fault != .loss, fault != .disk, ContinuousClock.now >= next else { continue }
                if fault == .trainer {
                    trainer = try await self.killTrainer(trainer, out, more, keeper) ?? trainer
                } else if fault == .flip {
                    // Not before a save has shown where a weight is.
                    guard try await self.flip(hosts[times * 7 % hosts.count], out, trainer) else { continue }
                } else {
                    try await self.make(fault, hosts[times * 7 % hosts.count], keeper)
                }
                times += 1
                next = .now.advanced(by: .seconds(self.interval))
            }
            let seconds = Double((ContinuousClock.now - start) / .seconds(1))
            if fault == .loss { try await self.lab?.loseNothing(between: hosts.compactMap(\.place)) }
            return self.outcome(fault, replicas, out, trainer, times, seconds, calm)
        }
    }

    private func startHosts(
        _ fault: Fault,
        _ replicas: Int,
        _ out: String,
        _ keeper: ProcessKeeper
    ) async throws -> [Host] {
        var hosts: [Host] = []
        for pool in 0..<2 {
            for replica in 0..<replicas {
                let name = "\(out)-\(pool)-\(replica)"
                let place = fault.needsLab ? try await self.lab?.addHost() : nil
                let keeps = fault == .torn || fault == .disk
                let snapshots = keeps ? "\(self.workspace.folder)/\(name)-snapshots" : nil
                var command = [
                    self.workspace.executable, "expert-host", "--train", "--threads", "1", "--admin-listen", "off",
                    "--exit-with-standard-input", "--address-file", "\(self.workspace.folder)/\(name).address",
                    "--listen", "\(place?.address ?? "127.0.0.1"):0",
                ]
                if place != nil { command.append("--plaintext") }
                if let snapshots { command += ["--snapshots", snapshots] }
                if let place { command = place.command(command) }
                if fault == .disk {
                    // No file may grow beyond a mebibyte; the signal that says so is ignored, so that writing fails.
                    command = ["/bin/sh", "-c", "trap '' XFSZ; ulimit -f 2048; exec \"$@\"", "sh"] + command
                }
                let process = keeper.start(self.specification(name, command))
                hosts.append(Host(name, pool: pool, command, place, snapshots, process))
            }
        }
        for host in hosts { try await host.process.listening(within: .seconds(60)) }
        return hosts
    }

    private func make(_ fault: Fault, _ host: Host, _ keeper: ProcessKeeper) async throws {
        let pause = Duration.seconds(self.interval / 3)
        switch fault {
        case .sigkill, .torn:
            guard let address = host.process.address else { return }
            try host.process.signal(SIGKILL)
            _ = try await host.process.ended(within: .seconds(30))
            if fault == .torn, let folder = host.snapshots { Self.tear(folder) }
            let again = host.command.map { $0.hasSuffix(":0") ? address : $0 }
            host.process = keeper.start(self.specification(host.name, again))
            try await host.process.listening(within: .seconds(60))
        case .sigstop:
            try host.process.signal(SIGSTOP)
            try await Task.sleep(for: pause)
            try host.process.signal(SIGCONT)
        case .partition:
            guard let place = host.place else { return }
            try await self.lab?.cut(place)
            try await Task.sleep(for: pause)
            try await self.lab?.heal(place)
        case .calm, .loss, .disk, .trainer, .flip: break
        }
    }

    /// Cuts the newest snapshot in half.
    private static func tear(_ folder: String) {
        let files = (try? FileManager.default.subpathsOfDirectory(atPath: folder)) ?? []
        let states = files.filter { $0.hasSuffix(".state") }
        guard let newest = states.max(by: { ($0.count, $0) < ($1.count, $1) }) else { return }
        let path = "\(folder)/\(newest)"
        guard let data = FileManager.default.contents(atPath: path) else { return }
        _ = FileManager.default.createFile(atPath: path, contents: data.prefix(data.count / 2))
    }

    private func killTrainer(
        _ trainer: KeptProcess,
        _ out: String,
        _ more: [String],
        _ keeper: ProcessKeeper
    ) async throws -> KeptProcess? {
        guard (try? trainer.signal(SIGKILL)) != nil else { return nil }
        _ = try await trainer.ended(within: .seconds(30))
        let hasSave = FileManager.default.fileExists(atPath: "\(self.workspace.folder)/\(out)/latest")
        if !hasSave { try? FileManager.default.removeItem(atPath: "\(self.workspace.folder)/\(out)") }
        let arguments = self.arguments(out, more + (hasSave ? ["--resume"] : []))
        return keeper.start(self.specification("\(out)-trainer", [self.workspace.executable] + arguments))
    }

    private func outcome(
        _ fault: Fault,
        _ replicas: Int,
        _ out: String,
        _ trainer: KeptProcess,
        _ times: Int,
        _ seconds: Double,
        _ calm: Double?
    ) -> Outcome {
        let adapter = self.adapterRank == nil ? [] : ["adapter/adapter_model.safetensors"]
        let files = ["model.safetensors", "resume/optimizer.safetensors"] + adapter
        let isSame = files.allSatisfy { name in
            self.contents(out, name).map { $0 == self.contents("here", name) } ?? false
        }
        let lines =
            (try? String(contentsOfFile: "\(self.workspace.folder)/\(out)/metrics.jsonl", encoding: .utf8)) ?? ""
        let reports = lines.split(separator: "\n").count { $0.contains("\"training\"") }
        let status = TrainingStatusFile(folder: "\(self.workspace.folder)/\(out)")
        return Outcome(
            fault: fault,
            replicas: replicas,
            steps: self.steps,
            times: times,
            seconds: seconds,
            throughput: calm.map { $0 / seconds },
            isSame: isSame,
            examples: (reports * self.examples, self.steps * self.examples),
            found: status.changes,
            recoveries: status.recoveries,
            status: trainer.exit.map { $0.code == 0 ? "" : "\($0): \(trainer.lines.suffix(2).joined(separator: " "))" }
                ?? "still runs"
        )
    }
}
