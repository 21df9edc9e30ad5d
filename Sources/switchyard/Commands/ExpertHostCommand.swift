// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import CommandKit
import ExpertServing
import ExpertTraining
import Logging
import RPCTransport
import ServiceKit
import SwitchyardTypes

/// `switchyard expert-host`: serves the experts of one shard, or of several.
struct ExpertHostCommand: AsyncParsableCommand, ThreadedCommand {
    static let configuration = CommandConfiguration(
        commandName: "expert-host",
        abstract: "Serve the experts of one shard, or of several; or hold experts while they are trained.",
        discussion: """
            Every flag is also an environment variable (--max-rows is SWITCHYARD_MAX_ROWS) and a key of the file that
            --config names. SIGTERM drains: the host tells its gateways that it is leaving, finishes the calls in flight and
            exits. A second SIGTERM stops it at once.

            A shard written by `switchyard shard --packed` is mapped into memory: the host is up at once and reads weights
            on first use, or before serving with --prefault.

            A shard at an https:// address is fetched at start-up, checked against the checksums in its manifest, and kept
            in --shard-cache; later starts serve it from there.

            Waiting calls from several gateways for the same layer are computed in one pass over the expert weights.

            To listen beyond loopback, give it a certificate (`switchyard certs` makes some), or allow plaintext with
            --plaintext. Certificate files are read again when they change.

            With --train it waits for `switchyard train --pool`, which brings the experts, and answers no gateway. With a
            --shard beside --train, a run with --experts lora need not bring the weights below its adapter.

            EXAMPLE
              switchyard expert-host --shard shards/pool-0
              switchyard expert-host --train --snapshots /var/lib/switchyard/snapshots
              switchyard expert-host --train --shard shards/pool-0
              switchyard expert-host --shard shards/pool-0 --dtype bfloat16
              switchyard expert-host --shard packed/pool-0 --prefault
              switchyard expert-host --shard https://bucket.example/shards/pool-0 --shard-cache /var/cache/switchyard
              switchyard expert-host --shard shards/pool-0 --shard shards/pool-1 --zone rack-7
              switchyard expert-host --shard shards/pool-0 --listen 0.0.0.0:7401 --tls-certificate certs/expert-host.pem \
                --tls-key certs/expert-host-key.pem --tls-client-ca certs/ca.pem \
                --tls-allowed-clients spiffe://switchyard/gateway
            """
    )

    @Option(ExpertHostSettings.table.shard) var shard: [String] = []

    @Option(ExpertHostSettings.table.checkpoints) var checkpoints: String?

    @Option(ExpertHostSettings.table.listen) var listen: String?

    @Option(ExpertHostSettings.table.compute.threads) var threads: String?

    @Flag(ExpertHostSettings.table.compute.pinThreads) var pinThreads = false

    @Option(ExpertHostSettings.table.compute.spin) var spinUs: String?

    @Option(ExpertHostSettings.table.dtype) var dtype: String?

    @Flag(ExpertHostSettings.table.prefault) var prefault = false

    @Option(ExpertHostSettings.table.maxRows) var maxRows: String?

    @Option(ExpertHostSettings.table.queueLimit) var queueLimit: String?

    @Option(ExpertHostSettings.table.batchRows) var batchRows: String?

    @Option(ExpertHostSettings.table.batchWindow) var batchWindowUs: String?

    @Flag(ExpertHostSettings.table.train) var train = false

    @Option(ExpertHostSettings.table.snapshots) var snapshots: String?

    @Option(ExpertHostSettings.table.zone) var zone: String?

    @Option(ExpertHostSettings.table.receiveBudget) var receiveBudgetBytes: String?

    @Option(ExpertHostSettings.table.drain) var drainSeconds: String?

    @OptionGroup(title: "Fetching") var fetch: FetchOptions

    @OptionGroup(title: "Security") var security: ListenerSecurityOptions

    @OptionGroup(title: "Metrics and probes") var admin: AdminOptions

    @OptionGroup(title: "Service") var service: ServiceOptions

    func settings() async throws -> Settings {
        try await self.service.settings(CommandSettings.expertHost, of: self)
    }

    /// The configuration from the settings, before anything is opened.
    private struct Plan {
        var configuration: ExpertHostConfiguration
        var sources: WeightSources
        var listen: ListenAddress
    }

    /// What the settings describe.
    private enum Kind {
        case serving(Plan)
        case training(TrainingHostConfiguration, WeightSources, ListenAddress)
    }

    private static func kind(_ settings: Settings) throws -> Kind {
        let table = ExpertHostSettings.table
        guard try table.isTraining(settings) else { return .serving(try Self.plan(settings)) }
        var configuration = TrainingHostConfiguration()
        let listen = try settings.value(table.listen)
        configuration.host = listen.boundHost
        configuration.port = listen.port
        configuration.threads = try settings.value(table.compute.threads)
        configuration.pinsThreads = try settings.value(table.compute.pinThreads)
        configuration.spin = try settings.value(table.compute.spin)
        configuration.snapshotFolder = try settings.value(table.snapshots)
        configuration.receiveBudgetBytes = try settings.value(table.receiveBudget)
        configuration.drainTimeout = try settings.value(table.drain)
        configuration.reflection = try !settings.value(ServiceSettings.table.noReflection)
        _ = try SecuritySettings.listener(settings, at: listen)
        try AdminOptions.read(settings, CommandSettings.hostAdmin, besides: listen)
        try ServiceOptions.logging(settings)
        return .training(configuration, try WeightSources(try settings.value(table.shard), settings), listen)
    }

    /// Reads every setting.
    private static func plan(_ settings: Settings) throws -> Plan {
        let configuration = try ExpertHostConfiguration(settings)
        let listen = try settings.value(ExpertHostSettings.table.listen)
        _ = try SecuritySettings.listener(settings, at: listen)
        try AdminOptions.read(settings, CommandSettings.hostAdmin, besides: listen)
        try ServiceOptions.logging(settings)
        let sources = try WeightSources(configuration.shardDirectories, settings)
        return Plan(configuration: configuration, sources: sources, listen: listen)
    }

    func run() async throws {
        let (settings, plan) = try await ServiceOptions.reading {
            let settings = try await self.settings()
            EarlySignals.endService(endsWithStandardInput: self.service.exitWithStandardInput)
            try ServiceOptions.startLogging(settings)
            return (settings, try Self.kind(settings))
        }
        switch plan {
        case .serving(let plan): try await self.serve(plan, settings)
        case .training(let configuration, let sources, let listen):
            try await self.train(configuration, sources, at: listen, settings)
        }
    }

    private func train(
        _ configuration: TrainingHostConfiguration,
        _ sources: WeightSources,
        at listen: ListenAddress,
        _ settings: Settings
    ) async throws {
        var configuration = configuration
        try ThreadAllowance.require(
            ThreadAllowance.ofServices(computing: configuration.threads),
            for: "switchyard expert-host"
        )
        configuration.reservation = try PortReservation(host: configuration.host, port: configuration.port)
        let logger = Logger(label: "training-host")
        configuration.security = try ListenerSecurityOptions.security(settings, at: listen, logger: logger)
        let port = try self.admin.port(settings, CommandSettings.hostAdmin, of: TrainingHost.component)
        var made = configuration
        try await AdminPort.run(port, logger: logger) {
            let host = try await sources.load(logger: logger) { directories in
                made.shardDirectories = directories
                return try TrainingHost(configuration: made, logger: logger, metrics: AdminPort.metrics(port))
            }
            try await host.runProcess(
                behind: port,
                options: self.service,
                drain: host.configuration.drainTimeout,
                logger: logger
            ) { try await host.boundAddress() }
        }
    }

    private func serve(_ plan: Plan, _ settings: Settings) async throws {
        var configuration = plan.configuration
        try ThreadAllowance.require(
            ThreadAllowance.ofServices(computing: configuration.threads),
            for: "switchyard expert-host"
        )
        // Before anything slow: a port that cannot be had ends the command at once.
        configuration.reservation = try PortReservation(host: configuration.host, port: configuration.port)
        let listen = plan.listen
        let logger = Logger(label: "expert-host")
        configuration.security = try ListenerSecurityOptions.security(settings, at: listen, logger: logger)
        let port = try self.admin.port(settings, CommandSettings.hostAdmin, of: ExpertHost.component)
        try await AdminPort.run(port, logger: logger) {
            let bar = ProgressBar()
            let host = try await plan.sources.load(logger: logger) { directories in
                configuration.shardDirectories = directories
                return try ExpertHost(
                    configuration: configuration,
                    logger: logger,
                    metrics: AdminPort.metrics(port),
                    progress: { bar.show($0) }
                )
            }
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
        _ = try Self.kind(settings)
    }

    static func checkFiles(_ settings: Settings) throws {
        let logger = Logger(label: "expert-host")
        let plan: Plan
        switch try Self.kind(settings) {
        case .serving(let serving): plan = serving
        case .training(_, let sources, let listen):
            _ = try ListenerSecurityOptions.security(settings, at: listen, logger: logger)
            for directory in try sources.localDirectories() ?? [] { _ = try TrainingHost.base(directory) }
            return
        }
        _ = try ListenerSecurityOptions.security(settings, at: plan.listen, logger: logger)
        if let directories = try plan.sources.localDirectories() {
            var configuration = plan.configuration
            configuration.shardDirectories = directories
            try ExpertHost.check(configuration)
        }
    }
}
