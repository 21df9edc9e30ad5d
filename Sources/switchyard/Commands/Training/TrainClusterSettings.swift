// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import ExpertPooling
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
    let hedgePercent = GatewaySettings.table.pools.hedgePercent
    let auditPercent = GatewaySettings.table.pools.auditPercent
    let auditMemory = GatewaySettings.table.pools.auditMemory

    /// Those that no other command has.
    var own: [SettingDefinition] { [self.wait.definition, self.call.definition] }

    /// The hosts of a run, and how it waits for them.
    struct Hosts: Sendable {
        var cluster: ExpertClusterConfiguration
        var patience = TrainingCluster.Patience()

        /// Reads the certificates of the connections.
        mutating func openFiles(_ settings: Settings, logger: Logger) throws {
            self.cluster.channel.security = try ExpertsSecurityOptions.security(
                settings,
                pools: self.cluster.pools,
                logger: logger
            )
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
            for (key, isSet) in [
                (self.wait.key, settings.isSet(self.wait)), (self.call.key, settings.isSet(self.call)),
            ] where isSet {
                throw Settings.Failure(
                    "\(key) is for experts on hosts; name them with --pool NAME=TARGET, or leave it out"
                )
            }
            return nil
        }
        guard plan.freezesExperts else {
            throw Settings.Failure(
                "the experts of --pool stay as they are; set --experts frozen, or train without hosts"
            )
        }
        guard plan.training.precision == .float32 else {
            throw Settings.Failure(
                "precision is \(plan.training.precision.rawValue), but expert hosts compute in float32; leave it out"
            )
        }
        var hosts = Hosts(cluster: ExpertClusterConfiguration(pools: pools))
        hosts.patience.layer = try settings.value(self.wait)
        hosts.patience.call = try settings.value(self.call)
        hosts.cluster.choice.hedgeFraction = Double(try settings.value(self.hedgePercent)) / 100
        hosts.cluster.choice.auditFraction = try settings.value(self.auditPercent) / 100
        hosts.cluster.auditMemoryBytes = try settings.value(self.auditMemory)
        hosts.cluster.allowsPlaintext = try settings.value(ListenerSecuritySettings.table.plaintext)
        _ = try ExpertsSecurityOptions.options(settings, pools: pools)
        return hosts
    }
}

/// Flags of a training run whose experts are on hosts.
struct TrainClusterOptions: ParsableArguments {
    @Option(TrainClusterSettings.table.pool) var pool: [String] = []
    @Option(TrainClusterSettings.table.wait) var expertWaitSeconds: String?
    @Option(TrainClusterSettings.table.call) var expertCallSeconds: String?
    @Option(TrainClusterSettings.table.hedgePercent) var hedgePercent: String?
    @Option(TrainClusterSettings.table.auditPercent) var auditPercent: String?
    @Option(TrainClusterSettings.table.auditMemory) var auditMemoryBytes: String?
    @Flag(ListenerSecuritySettings.table.plaintext) var plaintext = false
}
