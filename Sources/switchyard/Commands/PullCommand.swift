// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Checkpoints
import CommandKit
import Foundation
import GatewayServing
import ServiceKit
import SwitchyardTypes
import WeightFetching

/// Settings of `switchyard pull`.
struct PullSettings: SettingTable {
    static let table = PullSettings()

    let fetchCA = FetchSettings.table.fetchCA
    let plaintext = Setting.toggle("plaintext", "Allow an http:// address on another machine.")
}

/// `switchyard pull`: a checkpoint from the Hugging Face hub into the local cache.
struct PullCommand: AsyncParsableCommand, ThreadedCommand {
    static let configuration = CommandConfiguration(
        commandName: "pull",
        abstract: "Fetch a checkpoint from the Hugging Face hub, or from a mirror of it, into the local cache.",
        discussion: """
            Fetches what serving needs: configuration, tokenizer, and weights in safetensors, or else in torch files. An
            interrupted download resumes where it stopped, checksums are verified, and the revision appears in the cache
            once it is complete. The hub's own tools use the same cache and variables: HF_HUB_CACHE, HF_HOME, HF_ENDPOINT,
            HF_TOKEN.

            EXAMPLES
              switchyard pull google/switch-base-8
              switchyard shard google/switch-base-8 --out shards --pools 2
              switchyard pull google/switch-base-8 --revision main --endpoint https://mirror.example --jobs 8
              HF_TOKEN=... switchyard pull my-org/my-switch --include "README.md"
            """
    )

    @Argument(help: ArgumentHelp("A model's name on the hub, optionally with @revision.", valueName: "org/name"))
    var model: String

    @Option(help: "A branch, a tag or a commit. (default: main)")
    var revision: String?

    @Option(
        help: ArgumentHelp(
            "The hub's address, or a mirror's; also HF_ENDPOINT. (default: https://huggingface.co)",
            valueName: "url"
        )
    )
    var endpoint: String?

    @Option(
        help: ArgumentHelp(
            "Fetch these files too; * stands for any characters. May be given several times.",
            valueName: "pattern"
        )
    )
    var include: [String] = []

    @Option(
        help: ArgumentHelp("Do not fetch these files. May be given several times.", valueName: "pattern")
    )
    var exclude: [String] = []

    @Option(
        help: ArgumentHelp(
            "Check what was fetched with this value in config.json; may be given several times.",
            valueName: "key=value"
        )
    )
    var override: [String] = []

    @Option(help: "Files fetched at once.")
    var jobs: Int = 4

    @Option(PullSettings.table.fetchCA, namesVariable: true) var fetchCa: String?

    @Flag(PullSettings.table.plaintext, namesVariable: true) var plaintext = false

    @Flag(help: "Print what was fetched as JSON.")
    var json = false

    @Flag(help: "Show no progress, and print only the folder.")
    var quiet = false

    func validate() throws {
        guard (1...64).contains(self.jobs) else {
            throw ValidationError("--jobs is \(self.jobs), but must be from 1 to 64")
        }
        guard !self.json || !self.quiet else { throw ValidationError("--json and --quiet cannot be combined") }
    }

    func run() async throws {
        EarlySignals.endCommand()
        let environment = ProcessInfo.processInfo.environment
        let settings = try await Settings(
            known: CommandSettings.pull,
            elsewhere: CommandSettings.all,
            flags: ["fetch-ca": self.fetchCa, "plaintext": self.plaintext ? "true" : nil].compactMapValues { $0 },
            environment: environment,
            file: nil
        )
        let overrides = try ModelSettings.overrides(self.override, environment: [:])
        let hub = try HubEnvironment(environment, endpoint: self.endpoint)
        try FetchOptions.check(hub.endpoint, settings)
        let model = try HubModel(parsing: self.model, revision: self.revision)
        let pull = HubPull(
            model,
            selection: HubSelection(include: self.include, exclude: self.exclude),
            environment: hub,
            client: try FetchOptions.client(settings, jobs: self.jobs)
        )
        let bar = self.quiet || self.json ? nil : ProgressBar()
        let report = try await pull.run { event in
            switch event {
            case .progress(let label, let completed, let total):
                bar?.update(label, completed: completed, total: total, isBytes: true)
            case .retry(let reason, let wait):
                Terminal.printError("\(reason); retrying in \(Terminal.time(wait))")
            case .waiting(let what):
                Terminal.printError("\(what): another process is fetching it; waiting")
            case .warning(let text):
                Terminal.printError(text)
            }
        }
        try self.show(report, model)
        try self.check(report.directory, overrides)
    }

    /// Opens what was fetched, as far as a service of ours would refuse it.
    private func check(_ directory: String, _ overrides: [String: String]) throws {
        if let adapter = PulledAdapter(directory) {
            let base = try MergedAdapter.check(directory)
            if !self.quiet, !self.json { Terminal.print(adapter.next(self.model, base: base, self.override)) }
            if adapter.isAlone { return }
        }
        do {
            let hasTokenizer = try ServedModel.check(directory, overrides: overrides)
            if !hasTokenizer, !self.quiet, !self.json {
                Terminal.printError("\(self.model) has no tokenizer: a gateway will take ids only")
            }
        } catch let error as CheckpointError where overrides.isEmpty && error.code == .otherFamily {
            // A model that others serve need not be one of ours.
            return
        }
        // Who overrides a value wants to know whether it helps.
        guard !overrides.isEmpty else { return }
        let adapter = PulledAdapter(directory) == nil ? nil : directory
        try Checkpoint.open(directory, overrides: overrides, adapter: adapter).validate()
    }

    private func show(_ report: HubPull.Report, _ model: HubModel) throws {
        if self.json {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
            let text = try encoder.encode(PullReport(model: model, report: report))
            Terminal.print(String(decoding: text, as: UTF8.self))
            return
        }
        if self.quiet {
            Terminal.print(report.directory)
            return
        }
        var table = TextTable([("file", .left), ("bytes", .right), ("", .left)])
        for file in report.files { table.add([file.name, "\(file.byteCount)", file.origin.rawValue]) }
        Terminal.print(table.text)
        let name = model.revision == "main" ? model.name : "\(model.name)@\(model.revision)"
        Terminal.print("\n\(model.name) at \(report.commit) is in \(report.directory)")
        guard PulledAdapter(report.directory) == nil else { return }
        Terminal.print(
            "Next:  switchyard shard \(name) --out shards --pools 2"
                + self.override.map { " --override \($0)" }.joined()
        )
    }
}

/// An adapter in what was fetched: alone, or beside a model.
struct PulledAdapter {
    /// Whether there is no model beside it.
    let isAlone: Bool

    /// Looks for an adapter; nil where there is none.
    ///
    /// - Parameter directory: The folder with what was fetched.
    init?(_ directory: String) {
        func exists(_ name: String) -> Bool { FileManager.default.fileExists(atPath: "\(directory)/\(name)") }
        guard exists("adapter_config.json") else { return nil }
        self.isAlone = !exists("config.json")
    }

    /// What to do with it.
    ///
    /// - Parameters:
    ///   - name: The adapter's name on the hub.
    ///   - base: The model that it was made for, if it says.
    ///   - overrides: The overrides as they were given.
    /// - Returns: A line.
    func next(_ name: String, base: String?, _ overrides: [String]) -> String {
        let model = self.isAlone ? base ?? "MODEL" : name
        return "Next:  switchyard shard \(model) --out shards --pools 2 --merge-adapter \(name)"
            + overrides.map { " --override \($0)" }.joined()
    }
}

/// What `pull --json` prints.
private struct PullReport: Encodable {
    struct File: Encodable {
        var name: String
        var bytes: Int
        var fetchedBytes: Int
        var state: String

        enum CodingKeys: String, CodingKey {
            case name
            case bytes
            case fetchedBytes = "fetched_bytes"
            case state
        }
    }

    var model: String
    var revision: String
    var commit: String
    var directory: String
    var fetchedBytes: Int
    var files: [File]

    enum CodingKeys: String, CodingKey {
        case model
        case revision
        case commit
        case directory
        case fetchedBytes = "fetched_bytes"
        case files
    }

    init(model: HubModel, report: HubPull.Report) {
        self.model = model.name
        self.revision = model.revision
        self.commit = report.commit
        self.directory = report.directory
        self.fetchedBytes = report.receivedBytes
        self.files = report.files.map {
            File(name: $0.name, bytes: $0.byteCount, fetchedBytes: $0.receivedBytes, state: $0.origin.rawValue)
        }
    }
}
