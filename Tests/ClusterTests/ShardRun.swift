// SPDX-License-Identifier: Apache-2.0

import CommandKit
import Foundation
import Testing

@testable import switchyard

/// A folder with lines to learn from and what a run in one process ends with.
final class ShardRun: Sendable {
    let folder: String
    /// What both the run in one process and the one with hosts are told.
    let more: [String]
    let experts: String
    private let saved: [String: Data]
    private let examples: Int

    /// The files of a save that must be the same.
    static let files = ["model.safetensors", "resume/optimizer.safetensors"]
    static let adapterFiles = ["adapter/adapter_model.safetensors", "adapter/adapter_config.json"]

    /// Makes the folder, and trains in one process.
    ///
    /// - Parameters:
    ///   - more: Further flags of the run in one process and of those with hosts.
    ///   - experts: What hosts do with experts: `--experts`.
    ///   - examples: Examples of a step.
    /// - Throws: Where the program cannot be run, or saves nothing.
    init(_ more: [String] = [], experts: String = "full", examples: Int = 6) async throws {
        self.more = more
        self.experts = experts
        self.examples = examples
        self.folder = NSTemporaryDirectory() + "train-shards-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: self.folder, withIntermediateDirectories: true)
        let words = ["horse", "kingdom", "night", "king", "sword", "crown", "heart"]
        let lines = (0..<60).map { "my \(words[$0 % 7]) and the \(words[$0 / 7 % 7])\t\(words[$0 / 7 % 7])" }
        try lines.joined(separator: "\n")
            .write(toFile: "\(self.folder)/data.tsv", atomically: true, encoding: .utf8)
        let result = try await Commands.run(
            TestCluster.executable,
            Self.arguments(self.folder, "here", examples: examples) + more
        )
        #expect(result.status == 0, "\(result.errors)")
        var saved: [String: Data] = [:]
        for name in experts == "lora" ? Self.files + Self.adapterFiles : Self.files {
            saved[name] = try Self.file(self.folder, "here", name)
        }
        self.saved = saved
    }

    deinit { try? FileManager.default.removeItem(atPath: self.folder) }

    /// Eight steps with the default dropout and optimizer.
    static func arguments(_ folder: String, _ out: String, steps: Int = 8, examples: Int = 6) -> [String] {
        [
            "train", TestCluster.miniature, "--data", "\(folder)/data.tsv", "--out", "\(folder)/\(out)", "--steps",
            "\(steps)", "--batch-examples", "\(examples)", "--save-every", "2", "--keep", "100", "--threads", "1",
            "--report-every", "1", "--eval-share", "0.1", "--eval-every", "4", "--part-tokens", "60",
        ]
    }

    static func file(_ folder: String, _ out: String, _ name: String) throws -> Data {
        try Data(contentsOf: URL(fileURLWithPath: "\(folder)/\(out)/latest/\(name)"))
    }

    func train(
        _ out: String,
        _ pools: [String],
        steps: Int = 8,
        _ more: [String] = []
    ) async throws -> Commands.Output {
        let arguments =
            Self.arguments(self.folder, out, steps: steps, examples: self.examples) + self.more
            + ["--experts", self.experts] + pools.flatMap { ["--pool", $0] }
        return try await Commands.run(TestCluster.executable, arguments + more)
    }

    /// The same weights, the same optimizer state, and the same adapter.
    func expectSame(_ out: String, _ result: Commands.Output) throws {
        #expect(result.status == 0, "\(result.errors)")
        for (name, bytes) in self.saved {
            #expect(try Self.file(self.folder, out, name) == bytes, "\(out): \(name)")
        }
    }

    /// Waits until a run says of itself what a test waits for.
    func status(of out: String, _ isThere: (TrainingStatus) -> Bool) async throws -> TrainingStatus? {
        for _ in 0..<12_000 {
            if let status = try? TrainingStatus(of: "\(self.folder)/\(out)"), isThere(status) { return status }
            try await Task.sleep(for: .milliseconds(10))
        }
        Issue.record(
            "the run did not get there in two minutes: \((try? TrainingStatus(of: "\(self.folder)/\(out)"))as Any)"
        )
        return nil
    }

    /// Waits until a run has got so far.
    func wait(for step: Int, of out: String) async throws {
        for _ in 0..<60_000 {
            let metrics =
                (try? String(contentsOfFile: "\(self.folder)/\(out)/metrics.jsonl", encoding: .utf8)) ?? ""
            if metrics.split(separator: "\n").count(where: { $0.contains("training") }) >= step { return }
            try await Task.sleep(for: .milliseconds(2))
        }
        Issue.record("the run did not get to step \(step) in two minutes")
    }
}

/// Starts hosts that train; one that dies is restarted on its address.
func withTrainingHosts(
    pools: Int,
    replicas: Int,
    snapshots: String? = nil,
    shards: String? = nil,
    kernels: [String?] = [],
    adminListen: String = "off",
    onExit: ChildExitPolicy = .restart,
    log: ProcessLog = ProcessLog(),
    body: @escaping @Sendable ([String], @escaping @Sendable () -> [ChildProcess]) async throws -> Void
) async throws {
    let scratch = try ScratchFolder()
    defer { scratch.remove() }
    let names = (0..<pools).map { "pool-\($0)" }
    let hosts = names.flatMap { pool in
        (0..<replicas)
            .map { replica in
                let addressFile = "\(scratch.path)/\(pool)-\(replica).address"
                let level = replica < kernels.count ? kernels[replica] : nil
                return ChildSpecification(
                    name: "\(pool)/\(replica)",
                    arguments: (level.map { ["SWITCHYARD_KERNELS=\($0)"] } ?? []) + [
                        TestCluster.executable, "expert-host", "--train", "--listen", "127.0.0.1:0", "--admin-listen",
                        adminListen, "--admin-address-file", "\(addressFile).admin", "--threads", "1", "--address-file",
                        addressFile, "--exit-with-standard-input",
                    ] + (snapshots.map { ["--snapshots", "\($0)/\(pool)-\(replica)"] } ?? [])
                        + (shards.map { ["--shard", "\($0)/\(pool)"] } ?? []),
                    addressFile: addressFile,
                    adminAddressFile: adminListen == "off" ? nil : "\(addressFile).admin"
                )
            }
    }
    let settings = ChildSettings(
        executable: "/usr/bin/env",
        onExit: onExit,
        startTimeout: .seconds(300),
        events: { log.note($0) }
    )
    try await ChildProcesses.run(hosts, settings: settings) { children in
        let running = children.running
        let flags = names.map { pool in
            let addresses = running.filter { $0.name.hasPrefix("\(pool)/") }.map(\.address)
            return "\(pool)=\(addresses.joined(separator: ","))"
        }
        try await body(flags) { children.running }
    }
}

/// Kills a host with SIGKILL, once it is up.
func killHost(_ name: String, _ hosts: @Sendable () -> [ChildProcess]) async throws {
    for _ in 0..<1000 {
        if let victim = hosts().first(where: { $0.name == name }) {
            signal(SIGKILL, to: victim)
            return
        }
        try await Task.sleep(for: .milliseconds(20))
    }
    Issue.record("\(name) is not up")
}
