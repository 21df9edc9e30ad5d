// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import ExpertPooling
import ExpertTraining
import GatewayServing
import Logging
import RPCTransport
import ServiceKit
import SwitchTraining
import TrainingRuns

/// Settings of a training run whose experts are on hosts.
struct TrainClusterSettings: SettingTable {
    static let table = TrainClusterSettings()

    let pool = GatewaySettings.table.pool
    let wait = Setting.time(
        "expert-wait-seconds",
        .seconds,
        in: 1...86_400,
        default: 600,
        "How long a step waits while no expert host answers, before the run ends."
    )
    let call = Setting.time(
        "expert-call-seconds",
        .seconds,
        in: 1...3600,
        default: 30,
        "How long a call to an expert host may take before it is made again."
    )
    let snapshotEvery = Setting.whole(
        "snapshot-every",
        in: 1...1_000_000,
        default: 50,
        "Steps after which the state of experts on hosts is kept again; what came since can be repeated."
    )
    let logBytes = Setting.whole(
        "log-bytes",
        in: 1 << 20...1 << 44,
        default: 1 << 30,
        "Memory for what came since; states are kept earlier where it is not enough."
    )
    let logFolder = Setting.text(
        "log-dir",
        defaultInWords: "none: all of it is in memory",
        placeholder: "dir",
        "The folder for what log-bytes does not hold."
    )
    let logFileBytes = Setting.whole(
        "log-file-bytes",
        in: 1 << 20...1 << 50,
        default: 16 << 30,
        "Bytes of files in log-dir at most."
    )
    let hedgePercent = GatewaySettings.table.pools.hedgePercent
    let auditPercent = GatewaySettings.table.pools.auditPercent
    let auditMemory = GatewaySettings.table.pools.auditMemory

    /// Those of the log of experts that are trained.
    private var ofLog: [SettingDefinition] {
        [
            self.snapshotEvery.definition, self.logBytes.definition, self.logFolder.definition,
            self.logFileBytes.definition,
        ]
    }

    /// Those that no other command has.
    var own: [SettingDefinition] { [self.wait.definition, self.call.definition] + self.ofLog }

    /// The first of the log's settings that is set.
    private func logSetting(_ settings: Settings) -> String? {
        for (key, isSet) in [
            (self.snapshotEvery.key, settings.isSet(self.snapshotEvery)),
            (self.logBytes.key, settings.isSet(self.logBytes)),
            (self.logFolder.key, settings.isSet(self.logFolder)),
            (self.logFileBytes.key, settings.isSet(self.logFileBytes)),
        ] where isSet {
            return key
        }
        return nil
    }

    /// The hosts of a run, and how it waits for them.
    struct Hosts: Sendable {
        var cluster: ExpertClusterConfiguration
        var patience = TrainingCluster.Patience()
        /// The same hosts where they train; nil where experts stay as they are.
        var training: ShardedExperts.Configuration?

        /// Reads the certificates of the connections.
        mutating func openFiles(_ settings: Settings, logger: Logger) throws {
            self.cluster.channel.security = try ExpertsSecurityOptions.security(
                settings,
                pools: self.cluster.pools,
                logger: logger
            )
            self.training?.channel = self.cluster.channel
        }
    }

    /// The hosts that settings describe.
    ///
    /// - Parameters:
    ///   - settings: The settings.
    ///   - plan: The run.
    /// - Returns: The hosts, the files of their security not read yet; nil for a run that computes its experts itself.
    /// - Throws: ``Settings/Failure`` naming what cannot be used.
    func hosts(_ settings: Settings, of plan: RunPlan) throws -> Hosts? {
        let pools = try settings.value(self.pool)
        guard !pools.isEmpty else {
            let key =
                settings.isSet(self.wait)
                ? self.wait.key : settings.isSet(self.call) ? self.call.key : self.logSetting(settings)
            if let key {
                throw Settings.Failure(
                    "\(key) is for experts on hosts; name them with --pool NAME=TARGET, or leave it out"
                )
            }
            return nil
        }
        if plan.freezesExperts {
            try self.checkFrozen(settings, plan)
        } else {
            try self.checkTrained(settings)
        }
        var hosts = Hosts(cluster: ExpertClusterConfiguration(pools: pools))
        hosts.patience.layer = try settings.value(self.wait)
        hosts.patience.call = try settings.value(self.call)
        hosts.cluster.choice.hedgeFraction = Double(try settings.value(self.hedgePercent)) / 100
        hosts.cluster.choice.auditFraction = try settings.value(self.auditPercent) / 100
        hosts.cluster.auditMemoryBytes = try settings.value(self.auditMemory)
        hosts.cluster.allowsPlaintext = try settings.value(ListenerSecuritySettings.table.plaintext)
        _ = try ExpertsSecurityOptions.options(settings, pools: pools)
        if !plan.freezesExperts { hosts.training = try self.training(settings, hosts, pools) }
        return hosts
    }

    private func checkFrozen(_ settings: Settings, _ plan: RunPlan) throws {
        guard plan.training.precision == .float32 else {
            throw Settings.Failure(
                "precision is \(plan.training.precision.rawValue), but expert hosts compute in float32; leave it out"
            )
        }
        if let key = self.logSetting(settings) {
            throw Settings.Failure("\(key) is for experts that are trained; leave it out with --experts frozen")
        }
    }

    private func checkTrained(_ settings: Settings) throws {
        for (key, isSet) in [
            (self.hedgePercent.key, settings.isSet(self.hedgePercent)),
            (self.auditPercent.key, settings.isSet(self.auditPercent)),
            (self.auditMemory.key, settings.isSet(self.auditMemory)),
        ] where isSet {
            throw Settings.Failure("\(key) is for experts that stay as they are; leave it out, or set --experts frozen")
        }
    }

    private func training(
        _ settings: Settings,
        _ hosts: Hosts,
        _ pools: [PoolSpecification]
    ) throws -> ShardedExperts.Configuration {
        let shards = try pools.map { pool in
            ShardedExperts.Configuration.Pool(
                name: pool.name,
                targets: try pool.targets.map { target in
                    guard case .address(let host, let port) = target else {
                        throw Settings.Failure(
                            "pool: \(target) stands for any number of hosts, but hosts that train are replicas with names: name each"
                                + " as host:port"
                        )
                    }
                    return (host, port)
                }
            )
        }
        var training = ShardedExperts.Configuration(pools: shards, channel: hosts.cluster.channel)
        training.call = hosts.patience.call
        training.patience = hosts.patience.layer
        training.stepsPerSnapshot = try settings.value(self.snapshotEvery)
        training.logBytes = try settings.value(self.logBytes)
        training.logFolder = try settings.value(self.logFolder)
        training.logFileBytes = try settings.value(self.logFileBytes)
        guard training.logFolder != nil || !settings.isSet(self.logFileBytes) else {
            throw Settings.Failure(
                "\(self.logFileBytes.key) is for files of the log; name their folder with --log-dir, or leave it out"
            )
        }
        return training
    }
}

/// Flags of a training run whose experts are on hosts.
struct TrainClusterOptions: ParsableArguments {
    @Option(TrainClusterSettings.table.pool) var pool: [String] = []
    @Option(TrainClusterSettings.table.wait) var expertWaitSeconds: String?
    @Option(TrainClusterSettings.table.call) var expertCallSeconds: String?
    @Option(TrainClusterSettings.table.snapshotEvery) var snapshotEvery: String?
    @Option(TrainClusterSettings.table.logBytes) var logBytes: String?
    @Option(TrainClusterSettings.table.logFolder) var logDir: String?
    @Option(TrainClusterSettings.table.logFileBytes) var logFileBytes: String?
    @Option(TrainClusterSettings.table.hedgePercent) var hedgePercent: String?
    @Option(TrainClusterSettings.table.auditPercent) var auditPercent: String?
    @Option(TrainClusterSettings.table.auditMemory) var auditMemoryBytes: String?
    @Flag(ListenerSecuritySettings.table.plaintext) var plaintext = false
}
