// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import CommandKit
import GatewayServing
import HTTPDoor
import Logging
import RPCTransport
import ServiceKit

/// `switchyard gateway`: serves a model whose experts live on expert hosts.
struct GatewayCommand: AsyncParsableCommand, ThreadedCommand {
    static let configuration = CommandConfiguration(
        commandName: "gateway",
        abstract: "Serve a model whose experts live on expert hosts.",
        discussion: """
            Every flag is also an environment variable (--queue-limit is SWITCHYARD_QUEUE_LIMIT; several pools are
            separated by semicolons, and \\; is a semicolon within a value) and a key of the file that --config names. SIGTERM drains.

            Traffic beyond loopback is encrypted unless --plaintext allows otherwise. Certificates and tokens are read again
            when their files change.

            EXAMPLES
              switchyard gateway --model shards/gateway --pool pool-0=127.0.0.1:7401
              switchyard gateway --model shards/gateway --pool pool-0=a:7401 --pool pool-1=b:7401,c:7401 --plaintext
              switchyard gateway --model shards/gateway --pool pool-0=127.0.0.1:7401 --dtype bfloat16 --wire-dtype bfloat16
              switchyard gateway --model shards/gateway --pool pool-0=127.0.0.1:7401 --http-listen 127.0.0.1:8080
              switchyard gateway --model shards/gateway --pool pool-0=a:7401 --listen 0.0.0.0:7400 \
                --tls-certificate certs/gateway.pem --tls-key certs/gateway-key.pem --tokens tokens \
                --experts-tls-ca certs/ca.pem --experts-tls-certificate certs/gateway.pem \
                --experts-tls-key certs/gateway-key.pem
            """
    )

    @Option(GatewaySettings.table.model) var model: String?

    @Option(GatewaySettings.table.checkpoints) var checkpoints: String?

    @Flag(GatewaySettings.table.remoteRollouts) var remoteRollouts = false

    @Option(GatewaySettings.table.rolloutFile) var rolloutFile: String?

    @Option(GatewaySettings.table.modelName) var modelName: String?

    @Option(GatewaySettings.table.mergeAdapter) var mergeAdapter: String?

    @Option(GatewaySettings.table.pool) var pool: [String] = []

    @Option(GatewaySettings.table.listen) var listen: String?

    @OptionGroup(title: "Precision") var precision: GatewayPrecisionOptions

    @OptionGroup(title: "Scheduling") var scheduling: SchedulingOptions

    @Option(GatewaySettings.table.maxInputTokens) var maxInputTokens: String?

    @Option(GatewaySettings.table.maxNewTokens) var maxNewTokens: String?

    @OptionGroup(title: "Expert pools") var pools: ExpertPoolOptions

    @OptionGroup(title: "Fetching") var fetch: FetchOptions

    @Option(GatewaySettings.table.maxDroppedFraction) var maxDroppedFraction: String?

    @Option(GatewaySettings.table.capacity) var capacity: String?

    @Option(GatewaySettings.table.startupWait) var startupWaitSeconds: String?

    @Option(GatewaySettings.table.maxConnections) var maxConnections: String?

    @Option(GatewaySettings.table.connectionShare) var connectionShare: String?

    @Option(GatewaySettings.table.maxConnectionAge) var maxConnectionAgeSeconds: String?

    @Option(GatewaySettings.table.maxConnectionAgeGrace) var maxConnectionAgeGraceSeconds: String?

    @Option(GatewaySettings.table.drain) var drainSeconds: String?

    @Option(GatewaySettings.table.receiveBudget) var receiveBudgetBytes: String?

    @Option(GatewaySettings.table.override) var override: [String] = []

    @OptionGroup(title: "HTTP and JSON") var http: HTTPOptions

    @OptionGroup(title: "Security of the listener") var security: ListenerSecurityOptions

    @OptionGroup(title: "Security of the listener") var tokens: TokensOptions

    @OptionGroup(title: "Security to expert hosts") var expertsSecurity: ExpertsSecurityOptions

    @OptionGroup(title: "Metrics and probes") var admin: AdminOptions

    @OptionGroup(title: "Service") var service: ServiceOptions

    func run() async throws {
        let (settings, plan) = try await ServiceOptions.reading {
            let settings = try await self.settings()
            EarlySignals.endService(endsWithStandardInput: self.service.exitWithStandardInput)
            try ServiceOptions.startLogging(settings)
            return (settings, try Self.plan(settings))
        }
        let logger = Logger(label: "gateway")
        var configuration = plan.configuration
        try ThreadAllowance.require(
            ThreadAllowance.ofServices(computing: configuration.threads),
            for: "switchyard gateway"
        )
        // Before anything slow: a port that cannot be had ends the command at once.
        configuration.reservation = try PortReservation(host: configuration.host, port: configuration.port)
        var web = plan.door?.configuration
        if let door = web {
            web?.reservation = try PortReservation(host: door.host, port: door.port, setting: "http-listen")
        }
        let port = try self.admin.port(settings, CommandSettings.gatewayAdmin, of: Gateway.component)
        try Self.open(settings, plan, &configuration, logger: logger)
        web?.tokens = configuration.tokens
        if let address = plan.door?.address {
            // The same files; a listener on loopback may do without them, and another may not.
            web?.security =
                try SecuritySettings.listener(settings, at: address) == nil ? .plaintext : configuration.security
        }
        try await AdminPort.run(port, logger: logger) {
            configuration.adapterDirectory = try configuration.adapterDirectory.map(ModelSettings.directory)
            let bar = ProgressBar()
            let gateway = try await plan.sources.load(logger: logger) { directories in
                configuration.modelDirectory = directories.first ?? configuration.modelDirectory
                return try Gateway(
                    configuration: configuration,
                    logger: logger,
                    metrics: AdminPort.metrics(port),
                    progress: { bar.show($0) }
                )
            }
            let door = web.map {
                HTTPDoor(configuration: $0, backend: GatewayDoor(calls: gateway.calls), logger: Logger(label: "http"))
            }
            if let door { gateway.attach(DoorListener(door: door)) }
            try await gateway.runProcess(
                behind: port,
                options: self.service,
                drain: configuration.drainTimeout,
                logger: logger
            ) {
                try await gateway.waitUntilServing()
                if let door { try await self.http.announce(door) }
                return try await gateway.boundAddress()
            }
        }
    }

    func settings() async throws -> Settings {
        try await self.service.settings(CommandSettings.gateway, of: self)
    }

    /// The configuration from the settings, before anything is opened.
    private struct Plan {
        var configuration: GatewayConfiguration
        var sources: WeightSources
        var listen: ListenAddress
        var door: (configuration: DoorConfiguration, address: ListenAddress)?
    }

    /// Opens the certificates and tokens.
    private static func open(
        _ settings: Settings,
        _ plan: Plan,
        _ configuration: inout GatewayConfiguration,
        logger: Logger
    ) throws {
        configuration.security = try ListenerSecurityOptions.security(settings, at: plan.listen, logger: logger)
        configuration.tokens = try TokensOptions.gate(settings, logger: logger)
        configuration.cluster.channel.security = try ExpertsSecurityOptions.security(
            settings,
            pools: plan.configuration.cluster.pools,
            logger: logger
        )
    }

    /// Reads every setting.
    private static func plan(_ settings: Settings) throws -> Plan {
        let configuration = try GatewayConfiguration(settings)
        let listen = try settings.value(GatewaySettings.table.listen)
        _ = try SecuritySettings.listener(settings, at: listen)
        try TokensOptions.check(settings)
        _ = try ExpertsSecurityOptions.options(settings, pools: configuration.cluster.pools)
        try AdminOptions.read(settings, CommandSettings.gatewayAdmin, besides: listen)
        let admin = try settings.value(CommandSettings.gatewayAdmin.adminListen)
        let door = try HTTPOptions.read(
            settings,
            configuration,
            besides: [("listen", listen), ("admin-listen", admin)]
        )
        try ServiceOptions.logging(settings)
        let sources = try WeightSources([configuration.modelDirectory], settings)
        return Plan(configuration: configuration, sources: sources, listen: listen, door: door)
    }
}

extension GatewayCommand: ConfiguredCommand {
    static func checkValues(_ settings: Settings) throws {
        _ = try Self.plan(settings)
    }

    static func checkFiles(_ settings: Settings) throws {
        let plan = try Self.plan(settings)
        var configuration = plan.configuration
        try Self.open(settings, plan, &configuration, logger: Logger(label: "gateway"))
        configuration.adapterDirectory = try configuration.adapterDirectory.map(ModelSettings.directory)
        if let directory = try plan.sources.localDirectories()?.first {
            configuration.modelDirectory = directory
            try Gateway.check(configuration)
        }
    }
}
