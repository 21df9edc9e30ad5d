// SPDX-License-Identifier: Apache-2.0

import CommandKit
import Foundation
import Testing

@testable import switchyard

/// What a run in one process ends with.
///
/// Tests that compare with the same run share it, since it is the longest part of most.
struct ShardReference: Sendable {
    /// The run's folder, which tests only read.
    let folder: String
    /// The files that must be the same, by their names.
    let saved: [String: Data]

    private struct Key: Hashable {
        var more: [String]
        var experts: String
        var examples: Int
    }

    private actor Store {
        var runs: [Key: Task<ShardReference, any Error>] = [:]

        func run(_ key: Key) -> Task<ShardReference, any Error> {
            if let run = self.runs[key] { return run }
            let run = Task { try await ShardReference(key) }
            self.runs[key] = run
            return run
        }
    }

    private static let store = Store()

    /// Holds all references until the tests' process ends.
    private static let root: String = {
        let path = NSTemporaryDirectory() + "train-references-\(UUID().uuidString)"
        atexit { try? FileManager.default.removeItem(atPath: ShardReference.root) }
        return path
    }()

    /// Trains once for each set of arguments.
    static func of(_ more: [String], experts: String, examples: Int) async throws -> ShardReference {
        try await Self.store.run(Key(more: more, experts: experts, examples: examples)).value
    }

    private init(_ key: Key) async throws {
        let parent = "\(Self.root)/\(UUID().uuidString)"
        try ShardRun.writeData(in: parent)
        let arguments = ShardRun.arguments(parent, "here", examples: key.examples) + key.more
        let result = try await Commands.run(TestCluster.executable, arguments)
        try #require(result.status == 0, "\(result.errors)")
        var saved: [String: Data] = [:]
        for name in key.experts == "lora" ? ShardRun.files + ShardRun.adapterFiles : ShardRun.files {
            saved[name] = try ShardRun.file(parent, "here", name)
        }
        self.folder = "\(parent)/here"
        self.saved = saved
    }
}

/// A folder with lines to learn from and what a run in one process ends with.
final class ShardRun: Sendable {
    let folder: String
    /// What both the run in one process and the one with hosts are told.
    let more: [String]
    let experts: String
    /// The run in one process.
    let reference: ShardReference
    private let examples: Int

    /// The files of a save that must be the same.
    static let files = ["model.safetensors", "resume/optimizer.safetensors"]
    static let adapterFiles = ["adapter/adapter_model.safetensors", "adapter/adapter_config.json"]

    /// Makes the folder, and trains in one process unless another test has done so.
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
        self.reference = try await ShardReference.of(more, experts: experts, examples: examples)
        try Self.writeData(in: self.folder)
    }

    /// Makes a folder with `data.tsv`.
    static func writeData(in folder: String) throws {
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        let words = ["horse", "kingdom", "night", "king", "sword", "crown", "heart"]
        let lines = (0..<60).map { "my \(words[$0 % 7]) and the \(words[$0 / 7 % 7])\t\(words[$0 / 7 % 7])" }
        try lines.joined(separator: "\n").write(toFile: "\(folder)/data.tsv", atomically: true, encoding: .utf8)
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
        for (name, bytes) in self.reference.saved {
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
