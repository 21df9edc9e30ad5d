// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Checkpoints
import CommandKit
import Foundation
import Logging
import ServiceKit
import Synchronization

/// `switchyard up`: a whole cluster on this machine.
struct UpCommand: AsyncParsableCommand, ThreadedCommand {
    static let configuration = CommandConfiguration(
        commandName: "up",
        abstract: "Run a whole cluster on this machine: child processes, one terminal, clean stop.",
        discussion: """
            Shards the model into a temporary folder, or into --shards DIR, which later starts reuse, and starts the
            expert hosts and the gateway. A host that dies is restarted. A model without experts (dense T5) is served
            by the gateway alone.

            Ctrl-C, SIGTERM or a closed terminal (SIGHUP) stops the gateway, which finishes the requests in flight, and
            then the hosts. A second Ctrl-C or SIGTERM cuts off requests in flight.

            With --train it trains instead: it starts hosts that hold the experts, and runs `switchyard train` with the
            options that follow --.

            EXAMPLE
              switchyard up deploy/models/switch-mini --pools 4 --replicas 2
              switchyard up google/switch-base-8 --expert-dtype bfloat16 --packed --shards shards
              switchyard up deploy/models/switch-mini --http-listen 127.0.0.1:8080
              switchyard up google/flan-t5-base --dtype int8
              switchyard up --train google/switch-base-8 --pools 2 --replicas 2 -- --data train.jsonl --out run --steps 2000
            """
    )

    @Argument(
        help: ArgumentHelp("A folder in Hugging Face layout, or a hub id in the local cache.", valueName: "model")
    )
    var modelArgument: String?

    @Option(help: "Number of pools, each with its own experts. (default: 2)")
    var pools: Int?

    @Option(help: "Expert hosts of each pool. (default: 1)")
    var replicas: Int?

    @Option(help: "Where the gateway listens.")
    var listen: String = "127.0.0.1:7400"

    @Option(help: "Where the gateway serves metrics and probes over HTTP, such as 127.0.0.1:7410.")
    var adminListen: String = "off"

    @Option(help: "Where the gateway answers OpenAI's and other JSON over HTTP, such as 127.0.0.1:8080.")
    var httpListen: String = "off"

    @Flag(help: "Allow --listen on addresses other than loopback, in plaintext; also SWITCHYARD_PLAINTEXT=true.")
    var plaintext = false

    @Option(help: ArgumentHelp("Keep the shards in this folder, and reuse them on the next start.", valueName: "dir"))
    var shards: String?

    @Option(help: ArgumentHelp("Override a value in config.json; may be given several times.", valueName: "key=value"))
    var override: [String] = []

    @Option(
        help: ArgumentHelp(
            "Merge this LoRA adapter into the weights: a folder, or a hub id in the local cache.",
            valueName: "dir"
        )
    )
    var mergeAdapter: String?

    @Option(help: "Compute threads of the gateway.")
    var threads: Int?

    @Option(help: "Compute threads of each expert host.")
    var hostThreads: Int?

    @Option(
        help: ArgumentHelp(
            "Lowest level of the processes' log lines to show; also SWITCHYARD_LOG_LEVEL. (default: warning)",
            valueName: "level"
        )
    )
    var logLevel: String?

    @Flag(help: "Train the model with its experts on hosts, in place of serving it.")
    var train = false

    @OptionGroup(title: "Precision") var precision: ClusterPrecisionOptions

    @Argument(
        parsing: .postTerminator,
        help: ArgumentHelp("With --train: options of `switchyard train`.", valueName: "train-options")
    )
    var argumentsAfterTerminator: [String] = []

    /// The model: before `--`, or the first argument after it, for names that begin with a dash.
    var model: String { self.modelArgument ?? self.argumentsAfterTerminator.first ?? "" }

    /// What else follows `--`.
    var trainArguments: [String] {
        self.modelArgument == nil
            ? Array(self.argumentsAfterTerminator.dropFirst()) : self.argumentsAfterTerminator
    }

    func validate() throws {
        guard !self.model.isEmpty else { throw ValidationError("Missing expected argument '<model>'") }
        guard self.pools ?? 1 >= 1, self.replicas ?? 1 >= 1 else {
            throw ValidationError("--pools and --replicas must be at least 1")
        }
        if let level = self.logLevel, Logger.Level(rawValue: level) == nil {
            let allowed = Logger.Level.allCases.map(\.rawValue).joined(separator: ", ")
            throw ValidationError("--log-level is \"\(level)\", but must be one of \(allowed)")
        }
    }

    func run() async throws {
        if let training = try self.training() { return try await training.run() }
        try SecuritySettings.checkPlaintext(
            try await Settings(
                known: [ListenerSecuritySettings.table.plaintext.definition],
                elsewhere: CommandSettings.all,
                flags: self.plaintext ? ["plaintext": "true"] : [:],
                environment: ProcessInfo.processInfo.environment,
                file: nil
            ),
            host: try ListenAddress(parsing: self.listen).host,
            what: "listening at \(self.listen)",
            instead: "certificates on `switchyard gateway` and `switchyard expert-host` in place of `up`"
        )
        // What nobody reads must hold up neither signals nor the processes; the cluster outlives the reader of its lines.
        StandardStream.writeBehind(note: { StandardStream.note($0) + "\n" }, endsWithOutput: false)
        let children = ChildSignals()
        let ending = try await StopSignals.run(children: children, onSignal: Self.tell) {
            try await self.serve(children)
        }
        // Two queues: what the processes said last comes before the last line.
        StandardStream.flush()
        switch ending {
        case .finished: break
        case .stopped: Terminal.print("stopped")
        case .hastened:
            Terminal.print("stopped; requests in flight were cut off")
            throw ExitCode.failure
        }
    }

    private func serve(_ children: ChildSignals) async throws {
        let overrides = try ModelSettings.overrides(self.override)
        let directory = try ModelSettings.directory(self.model)
        guard try ModelConfiguration.load(directory: directory, overrides: overrides).hasExperts else {
            try self.refuseExpertOptions()
            var layout = self.layout(LocalCluster.Layout(withoutExperts: directory))
            if let adapter = self.mergeAdapter { layout.gatewayArguments += ["--merge-adapter", adapter] }
            return try await self.run(layout, children)
        }
        let workspace: ShardWorkspace
        do {
            workspace = try await StopSignals.interruptible {
                try ShardWorkspace.prepare(
                    model: self.model,
                    pools: self.pools ?? 2,
                    folder: self.shards,
                    packing: self.precision.packing,
                    overrides: overrides,
                    adapter: self.mergeAdapter
                )
            }
        } catch is CancellationError {
            // The cut continues until this process ends, which is next.
            if let folder = self.shards { ShardWorkspace.discardPartialCut(of: folder) }
            throw CancellationError()
        }
        defer { workspace.discard() }
        let parts = LocalCluster.Layout(shards: workspace.folder, pools: workspace.pools)
        try await self.run(self.layout(parts), children)
    }

    /// Refuses options that say something of experts, for a model that has none.
    private func refuseExpertOptions() throws {
        let given = [
            ("--pools", self.pools != nil), ("--replicas", self.replicas != nil), ("--shards", self.shards != nil),
            ("--host-threads", self.hostThreads != nil), ("--expert-dtype", self.precision.expertDtype != nil),
            ("--wire-dtype", self.precision.wireDtype != nil), ("--packed", self.precision.packed),
        ]
        guard let option = given.first(where: \.1)?.0 else { return }
        throw ValidationError(
            "\(option) is about experts, and \(self.model) has none: the gateway serves it alone; leave it out"
        )
    }

    private func run(_ layout: LocalCluster.Layout, _ children: ChildSignals) async throws {
        var layout = layout
        layout.signals = children
        try await layout.readDrains(ProcessInfo.processInfo.environment)
        let isReady = Atomic(false)
        try await LocalCluster.run(
            layout,
            executable: Programs.this,
            events: { Self.show($0, isReady: isReady.load(ordering: .relaxed)) },
            body: { cluster in
                var report = try await UpReport.collect(cluster)
                if self.httpListen != "off" { report.httpAddress = self.httpListen }
                Terminal.print(report.text(columns: Terminal.columns))
                isReady.store(true, ordering: .relaxed)
                // Until a signal cancels it.
                while true { try await Task.sleep(for: .seconds(3600)) }
            }
        )
    }

    /// What both kinds of models have in common.
    private func layout(_ parts: LocalCluster.Layout) -> LocalCluster.Layout {
        var layout = parts
        layout.replicas = self.replicas ?? 1
        layout.gatewayListen = self.listen
        layout.hostsUseSockets = true
        layout.gatewayAdminListen = self.adminListen
        if self.plaintext { layout.gatewayArguments = ["--plaintext"] }
        layout.gatewayArguments += ["--http-listen", self.httpListen]
        // The parts remember the overrides; a variable that the gateway inherits must not add others.
        layout.gatewayArguments += self.override.flatMap { ["--override", $0] }
        layout.gatewayThreads = self.threads
        layout.hostThreads = self.hostThreads
        layout.onHostExit = .restart
        let variable = ProcessInfo.processInfo.environment[Settings.variable("log-level")] ?? ""
        // The processes inherit the environment.
        if let level = self.logLevel ?? (variable.isEmpty ? Logger.Level.warning.rawValue : nil) {
            layout.gatewayArguments += ["--log-level", level]
            layout.hostArguments += ["--log-level", level]
        }
        self.precision.apply(to: &layout)
        return layout
    }

    private static func tell(_ signals: Int) {
        switch signals {
        case 1: Terminal.print("\nstopping the gateway, then the hosts; Ctrl-C again cuts off requests in flight")
        case 2: Terminal.print("cutting off requests in flight")
        default: Terminal.print("killing all processes")
        }
    }

    /// Until the cluster is ready the table covers every start; after that a host that comes back is worth a line.
    private static func show(_ event: ChildEvent, isReady: Bool) {
        switch event {
        case .started(let child):
            guard isReady else { return }
            Terminal.printError("\(child.name) is back at \(child.address), process \(child.processIdentifier)")
        case .line(let name, let text):
            Terminal.printError("[\(name)] \(text)")
        case .exited(let name, let status):
            Terminal.printError("\(name) exited: \(status)")
        }
    }
}
