// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import CommandKit
import ExpertServing
import Logging
import ServiceKit

/// `switchyard expert-host`: serves the experts of one shard, or of several.
struct ExpertHostCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "expert-host",
        abstract: "Serve the experts of one shard, or of several.",
        discussion: """
            Every flag is also an environment variable (--max-rows is SWITCHYARD_MAX_ROWS) and a key of the file that
            --config names. SIGTERM drains: the host says that it leaves, finishes the calls that it has and those that are on
            their way, and exits. A second SIGTERM ends it at once.

            A shard that `switchyard shard --packed` wrote is mapped and served as it lies: the host is up at once, and
            reads weights when they are first used, or before it serves with --prefault.

            A shard that an address names is fetched at the start, compared with the checksums in its manifest, and kept in
            --shard-cache; later starts serve it from there.

            Calls of several gateways that wait for the same layer are computed in one pass over the experts' weights.

            On an address that others can reach, give it a certificate (`switchyard certs` makes some), or ask for plaintext
            by name. Certificate files are read again when they change.

            EXAMPLE
              switchyard expert-host --shard shards/pool-0
              switchyard expert-host --shard shards/pool-0 --dtype bfloat16
              switchyard expert-host --shard packed/pool-0 --prefault
              switchyard expert-host --shard https://bucket.example/shards/pool-0 --shard-cache /var/cache/switchyard
              switchyard expert-host --shard shards/pool-0 --shard shards/pool-1 --zone rack-7
              switchyard expert-host --shard shards/pool-0 --listen 0.0.0.0:7401 --tls-certificate certs/expert-host.pem \
                --tls-key certs/expert-host-key.pem --tls-client-ca certs/ca.pem \
                --tls-allowed-clients spiffe://switchyard/gateway
            """
    )

    @Option(
        help: ArgumentHelp(
            "A shard's folder, or its https:// address, or a whole checkpoint; may be given several times.",
            valueName: "dir"
        )
    )
    var shard: [String] = []

    @Option(help: "Where to listen. (default: 127.0.0.1:7401)")
    var listen: String?

    @Option(help: "Compute threads. (default: all processors)")
    var threads: String?

    @Flag(help: "Keep each compute thread on a processor of its own, where nothing else computes on them.")
    var pinThreads = false

    @Option(
        help: ArgumentHelp(
            "How weights are kept: checkpoint, float32, bfloat16, int8; a packed shard's stay as they are. (default: checkpoint)",
            valueName: "type"
        )
    )
    var dtype: String?

    @Flag(help: "Read packed shards once and compare their checksums before serving.")
    var prefault = false

    @Option(help: "Most token rows of one call. (default: 16384)")
    var maxRows: String?

    @Option(help: "Calls that may wait; one more is refused. (default: 256)")
    var queueLimit: String?

    @Option(
        help: "Token rows up to which calls that wait are computed in one pass; 1 for each by itself. (default: 1024)"
    )
    var batchRows: String?

    @Option(
        help: ArgumentHelp(
            "How long to wait with a call for another gateway's that is expected for the same layer. (default: 1000)",
            valueName: "us"
        )
    )
    var batchWindowUs: String?

    @Option(help: ArgumentHelp("Where this host runs, for gateways that prefer their own zone.", valueName: "name"))
    var zone: String?

    @Option(help: "Seconds that calls may take to finish when draining. (default: 20)")
    var drainSeconds: String?

    @OptionGroup(title: "Fetching") var fetch: FetchOptions

    @OptionGroup(title: "Security") var security: ListenerSecurityOptions

    @OptionGroup(title: "Metrics and probes") var admin: AdminOptions

    @OptionGroup(title: "Service") var service: ServiceOptions

    private static let adminAddress = "127.0.0.1:7411"

    /// The settings' keys, but for those of every service.
    static let settingKeys =
        [
            "shard", "listen", "threads", "pin-threads", "dtype", "prefault", "max-rows", "queue-limit", "batch-rows",
            "batch-window-us", "zone",
            "drain-seconds",
        ] + FetchOptions.keys + SecuritySettings.listenerKeys + AdminOptions.keys

    func settings() async throws -> Settings {
        try await self.service.settings(
            keys: Self.settingKeys,
            flags: [
                "shard": self.shard.isEmpty ? nil : self.shard.joined(separator: ";"), "listen": self.listen,
                "threads": self.threads, "pin-threads": self.pinThreads ? "true" : nil, "dtype": self.dtype,
                "prefault": self.prefault ? "true" : nil,
                "max-rows": self.maxRows, "queue-limit": self.queueLimit,
                "batch-rows": self.batchRows, "batch-window-us": self.batchWindowUs, "zone": self.zone,
                "drain-seconds": self.drainSeconds,
            ]
            .merging(self.fetch.flags) { own, _ in own }
            .merging(self.security.flags) { own, _ in own }
            .merging(self.admin.flags) { own, _ in own }
        )
    }

    /// What the settings say, before anything is opened.
    private struct Plan {
        var configuration: ExpertHostConfiguration
        var sources: WeightSources
        var listen: ListenAddress
    }

    /// Reads every setting.
    private static func plan(_ settings: Settings) throws -> Plan {
        let shards = try settings.strings("shard") ?? []
        guard !shards.isEmpty else {
            throw Settings.Failure("no shard is named: pass --shard DIR or set SWITCHYARD_SHARD")
        }
        let listen = try ListenAddress(parsing: try settings.string("listen", default: "127.0.0.1:7401"))
        var configuration = ExpertHostConfiguration(shardDirectories: shards)
        configuration.host = listen.host
        configuration.port = listen.port
        configuration.threads = try settings.int("threads", in: 1...1024, default: Processors.count)
        configuration.pinsThreads = try settings.bool("pin-threads")
        configuration.storage = try settings.weightStorage()
        configuration.prefault = try settings.bool("prefault")
        configuration.maxRowsPerCall = try settings.int("max-rows", in: 1...1_048_576, default: 16_384)
        configuration.queueLimit = try settings.int("queue-limit", in: 1...65_536, default: 256)
        configuration.batchRowLimit = try settings.int("batch-rows", in: 1...1_048_576, default: 1024)
        configuration.batchWindow = .microseconds(try settings.int("batch-window-us", in: 0...1_000_000, default: 1000))
        configuration.zone = try settings.string("zone")
        configuration.drainTimeout = .seconds(try settings.int("drain-seconds", in: 0...3600, default: 20))
        configuration.reflection = try !settings.bool("no-reflection")
        _ = try SecuritySettings.listener(settings, at: listen)
        _ = try AdminOptions.read(settings, default: Self.adminAddress)
        _ = try ServiceOptions.logging(settings)
        try configuration.validate()
        return Plan(configuration: configuration, sources: try WeightSources(shards, settings), listen: listen)
    }

    func run() async throws {
        let settings = try await self.settings()
        EarlySignals.endService()
        try ServiceOptions.startLogging(settings)
        let plan = try Self.plan(settings)
        var configuration = plan.configuration
        let listen = plan.listen
        let logger = Logger(label: "expert-host")
        configuration.security = try ListenerSecurityOptions.security(settings, at: listen, logger: logger)
        let port = try self.admin.port(settings, of: ExpertHost.component, default: Self.adminAddress)
        try await AdminPort.run(port, logger: logger) {
            configuration.shardDirectories = try await plan.sources.directories(logger: logger)
            let bar = ProgressBar()
            let host = try ExpertHost(
                configuration: configuration,
                logger: logger,
                metrics: AdminPort.metrics(port),
                progress: { bar.show($0) }
            )
            try await host.runProcess(
                behind: port,
                options: self.service,
                drain: configuration.drainTimeout,
                logger: logger
            ) { try await host.boundAddress() }
        }
    }
}

extension ExpertHostCommand: ConfiguredCommand {
    static func checkValues(_ settings: Settings) throws {
        _ = try Self.plan(settings)
    }

    static func checkFiles(_ settings: Settings) throws {
        let plan = try Self.plan(settings)
        _ = try ListenerSecurityOptions.security(settings, at: plan.listen, logger: Logger(label: "expert-host"))
        try plan.sources.check()
    }
}
