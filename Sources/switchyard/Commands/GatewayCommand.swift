// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import BatchScheduling
import CommandKit
import ExpertPooling
import GatewayServing
import Logging
import RPCTransport
import ServiceKit
import SwitchModel

/// `switchyard gateway`: serves a model whose experts live on expert hosts.
struct GatewayCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "gateway",
        abstract: "Serve a model whose experts live on expert hosts.",
        discussion: """
            Every flag is also an environment variable (--queue-limit is SWITCHYARD_QUEUE_LIMIT; several pools are
            separated by semicolons) and a key of the file that --config names. SIGTERM drains.

            What crosses a network is encrypted, or plaintext is asked for by name (--plaintext). Certificates and tokens
            are read again when their files change.

            EXAMPLES
              switchyard gateway --model shards/gateway --pool pool-0=127.0.0.1:7401
              switchyard gateway --model shards/gateway --pool pool-0=a:7401 --pool pool-1=b:7401,c:7401 --plaintext
              switchyard gateway --model shards/gateway --pool pool-0=127.0.0.1:7401 --dtype bfloat16 --wire-dtype bfloat16
              switchyard gateway --model shards/gateway --pool pool-0=a:7401 --listen 0.0.0.0:7400 \
                --tls-certificate certs/gateway.pem --tls-key certs/gateway-key.pem --tokens tokens \
                --experts-tls-ca certs/ca.pem --experts-tls-certificate certs/gateway.pem \
                --experts-tls-key certs/gateway-key.pem
            """
    )

    @Option(
        help: ArgumentHelp(
            "The gateway part of a model or its https:// address, a whole checkpoint, or a hub id.",
            valueName: "dir"
        )
    )
    var model: String?

    @Option(
        help: ArgumentHelp(
            "A pool; once for each. A target is host:port, dns:///name:port or file:///list.",
            valueName: "name=target[,target]"
        )
    )
    var pool: [String] = []

    @Option(help: "Where to listen. (default: 127.0.0.1:7400)")
    var listen: String?

    @OptionGroup(title: "Precision") var precision: GatewayPrecisionOptions

    @OptionGroup(title: "Scheduling") var scheduling: SchedulingOptions

    @Option(help: "Longest input in tokens. (default: 2048)")
    var maxInputTokens: String?

    @Option(help: "Largest max_new_tokens of a request. (default: 1024)")
    var maxNewTokens: String?

    @OptionGroup(title: "Expert pools") var pools: ExpertPoolOptions

    @OptionGroup(title: "Fetching") var fetch: FetchOptions

    @Option(help: "Expert capacity: checkpoint, unlimited or factor:NUMBER. (default: checkpoint)")
    var capacity: String?

    @Option(help: "Seconds to wait for a host for every expert before serving without. (default: 60)")
    var startupWaitSeconds: String?

    @Option(help: "Seconds that requests may take to finish when draining. (default: 30)")
    var drainSeconds: String?

    @Option(help: ArgumentHelp("Replace a value of config.json; may be given several times.", valueName: "key=value"))
    var override: [String] = []

    @OptionGroup(title: "Security towards clients") var security: ListenerSecurityOptions

    @OptionGroup(title: "Security towards clients") var tokens: TokensOptions

    @OptionGroup(title: "Security towards expert hosts") var expertsSecurity: ExpertsSecurityOptions

    @OptionGroup(title: "Metrics and probes") var admin: AdminOptions

    @OptionGroup(title: "Service") var service: ServiceOptions

    func run() async throws {
        let settings = try await self.settings()
        EarlySignals.endService()
        try ServiceOptions.startLogging(settings)
        let plan = try Self.plan(settings)
        let logger = Logger(label: "gateway")
        var configuration = plan.configuration
        let port = try self.admin.port(settings, of: Gateway.component, default: Self.adminAddress)
        try Self.open(settings, plan, &configuration, logger: logger)
        try await AdminPort.run(port, logger: logger) {
            let directories = try await plan.sources.directories(logger: logger)
            configuration.modelDirectory = directories.first ?? configuration.modelDirectory
            let bar = ProgressBar()
            let gateway = try Gateway(
                configuration: configuration,
                logger: logger,
                metrics: AdminPort.metrics(port),
                progress: { bar.show($0) }
            )
            try await gateway.runProcess(
                behind: port,
                options: self.service,
                drain: configuration.drainTimeout,
                logger: logger
            ) {
                try await gateway.waitUntilServing()
                return try await gateway.boundAddress()
            }
        }
    }

    private static let adminAddress = "127.0.0.1:7410"

    /// The settings' keys, but for those of every service.
    static let settingKeys =
        [
            "model", "pool", "listen", "max-input-tokens", "max-new-tokens", "capacity", "startup-wait-seconds",
            "drain-seconds", "override",
        ] + GatewayPrecisionOptions.keys + SchedulingOptions.keys + ExpertPoolOptions.keys + FetchOptions.keys
        + SecuritySettings.listenerKeys
        + SecuritySettings.tokensKeys
        + SecuritySettings.expertsKeys + AdminOptions.keys

    func settings() async throws -> Settings {
        try await self.service.settings(
            keys: Self.settingKeys,
            flags: [
                "model": self.model, "pool": self.pool.isEmpty ? nil : self.pool.joined(separator: ";"),
                "listen": self.listen,
                "max-input-tokens": self.maxInputTokens, "max-new-tokens": self.maxNewTokens,
                "capacity": self.capacity, "startup-wait-seconds": self.startupWaitSeconds,
                "drain-seconds": self.drainSeconds,
                "override": self.override.isEmpty ? nil : self.override.joined(separator: ";"),
            ]
            .merging(self.precision.flags) { own, _ in own }
            .merging(self.scheduling.flags) { own, _ in own }
            .merging(self.pools.flags) { own, _ in own }
            .merging(self.fetch.flags) { own, _ in own }
            .merging(self.security.flags) { own, _ in own }
            .merging(self.tokens.flags) { own, _ in own }
            .merging(self.expertsSecurity.flags) { own, _ in own }
            .merging(self.admin.flags) { own, _ in own }
        )
    }

    /// What the settings say, before anything is opened.
    private struct Plan {
        var configuration: GatewayConfiguration
        var sources: WeightSources
        var listen: ListenAddress
        var pools: [PoolSpecification]
    }

    /// Opens the files of security.
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
            pools: plan.pools,
            logger: logger
        )
    }

    /// Reads every setting.
    private static func plan(_ settings: Settings) throws -> Plan {
        guard let model = try settings.string("model") else {
            throw Settings.Failure("no model is named: pass --model DIR or set SWITCHYARD_MODEL")
        }
        let pools = try (try settings.strings("pool") ?? []).map { try PoolSpecification(parsing: $0) }
        guard !pools.isEmpty else {
            throw Settings.Failure("no pool is named: pass --pool NAME=HOST:PORT for each, or set SWITCHYARD_POOL")
        }
        let listen = try ListenAddress(parsing: try settings.string("listen", default: "127.0.0.1:7400"))
        var configuration = GatewayConfiguration(modelDirectory: model, pools: pools)
        configuration.modelOverrides = try ModelSettings.overrides(try settings.strings("override") ?? [])
        configuration.host = listen.host
        configuration.port = listen.port
        _ = try SecuritySettings.listener(settings, at: listen)
        try TokensOptions.check(settings)
        _ = try ExpertsSecurityOptions.options(settings, pools: pools)
        _ = try AdminOptions.read(settings, default: Self.adminAddress)
        _ = try ServiceOptions.logging(settings)
        configuration.cluster.allowsPlaintext = try settings.bool("plaintext")
        try GatewayPrecisionOptions.apply(settings, to: &configuration)
        try SchedulingOptions.apply(settings, to: &configuration)
        configuration.engine.capacityPolicy = try ModelSettings.capacityPolicy(
            try settings.string("capacity", default: "checkpoint")
        )
        configuration.limits.maxInputTokens = try settings.int(
            "max-input-tokens",
            in: 1...1_048_576,
            default: configuration.limits.maxInputTokens
        )
        configuration.limits.maxNewTokens = try settings.int(
            "max-new-tokens",
            in: 1...GenerationParameters.maximumNewTokens,
            default: configuration.limits.maxNewTokens
        )
        try ExpertPoolOptions.apply(settings, to: &configuration)
        configuration.readyTimeout = .seconds(try settings.int("startup-wait-seconds", in: 0...86_400, default: 60))
        configuration.drainTimeout = .seconds(try settings.int("drain-seconds", in: 0...3600, default: 30))
        configuration.reflection = try !settings.bool("no-reflection")
        return Plan(
            configuration: configuration,
            sources: try WeightSources([model], settings),
            listen: listen,
            pools: pools
        )
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
        try plan.sources.check()
    }
}
