// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Checkpoints
import CommandKit
import Foundation
import ServiceKit
import SwitchModel
import UnixSignals

/// `switchyard up`: a whole cluster on this machine.
struct UpCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "up",
        abstract: "Run a whole cluster on this machine: child processes, one terminal, clean stop.",
        discussion: """
            Shards the model into a temporary folder, or into --shards DIR where a second start finds them, starts the
            expert hosts and the gateway, and stops them in order at Ctrl-C. A host that dies is started again.

            EXAMPLE
              switchyard up deploy/models/switch-mini --pools 4 --replicas 2
              switchyard up google/switch-base-8 --expert-dtype bfloat16 --packed --shards shards
            """
    )

    @Argument(help: "A folder in Hugging Face layout, or a hub id in the local cache.")
    var model: String

    @Option(help: "Number of pools, each with its own experts.")
    var pools: Int = 2

    @Option(help: "Expert hosts of each pool.")
    var replicas: Int = 1

    @Option(help: "Where the gateway listens.")
    var listen: String = "127.0.0.1:7400"

    @Option(help: "Where the gateway serves metrics and probes over HTTP, such as 127.0.0.1:7410.")
    var adminListen: String = "off"

    @Flag(help: "Allow --listen on addresses other than loopback, in plaintext; also SWITCHYARD_PLAINTEXT=true.")
    var plaintext = false

    @Option(help: ArgumentHelp("Keep the shards in this folder; used again if it holds them.", valueName: "dir"))
    var shards: String?

    @Option(help: "Compute threads of the gateway.")
    var threads: Int?

    @Option(help: "Compute threads of each expert host.")
    var hostThreads: Int?

    @OptionGroup(title: "Precision") var precision: ClusterPrecisionOptions

    func validate() throws {
        guard self.pools >= 1, self.replicas >= 1 else {
            throw ValidationError("--pools and --replicas must be at least 1")
        }
    }

    func run() async throws {
        try SecuritySettings.checkPlaintext(
            try await Settings(
                known: ["plaintext"],
                elsewhere: SettingKeys.all,
                flags: self.plaintext ? ["plaintext": "true"] : [:],
                environment: ProcessInfo.processInfo.environment,
                file: nil
            ),
            host: try ListenAddress(parsing: self.listen).host,
            what: "listening at \(self.listen)",
            instead: "certificates on `switchyard gateway` and `switchyard expert-host` in the place of `up`"
        )
        let workspace = try ShardWorkspace.prepare(
            model: self.model,
            pools: self.pools,
            folder: self.shards,
            packing: self.precision.packing
        )
        defer { workspace.discard() }
        var layout = LocalCluster.Layout(shards: workspace.folder, pools: workspace.pools)
        layout.replicas = self.replicas
        layout.gatewayListen = self.listen
        layout.gatewayAdminListen = self.adminListen
        if self.plaintext { layout.gatewayArguments = ["--plaintext"] }
        layout.gatewayThreads = self.threads
        layout.hostThreads = self.hostThreads
        layout.onHostExit = .restart
        self.precision.apply(to: &layout)

        // The signals are caught before the first child exists, so that none is left behind.
        let signals = await UnixSignalsSequence(trapping: .sigint, .sigterm)
        try await LocalCluster.run(layout, executable: Programs.this, events: Self.show) { cluster in
            Terminal.print(
                "\n\(Terminal.styled("ready", .bold, .green)) on \(cluster.gatewayAddress): "
                    + "switchyard generate --endpoint \(cluster.gatewayAddress) \"my <extra_id_0> for a horse!\"\n"
                    + "Ctrl-C stops everything.\n"
            )
            for await signal in signals {
                Terminal.print("\n\(signal): stopping the gateway, then the hosts")
                break
            }
        }
        Terminal.print("stopped")
    }

    static func show(_ event: ChildEvent) {
        switch event {
        case .started(let child):
            Terminal.print("\(child.name) listens on \(child.address) (process \(child.processIdentifier))")
        case .line(let name, let text):
            Terminal.print("\(Terminal.styled("[\(name)]", .dim)) \(text)")
        case .exited(let name, let status):
            Terminal.print(Terminal.styled("\(name) left: \(status)", .yellow))
        }
    }
}
