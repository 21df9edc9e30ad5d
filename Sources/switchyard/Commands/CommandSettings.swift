// SPDX-License-Identifier: Apache-2.0

import ExpertServing
import GatewayServing
import HTTPDoor
import ServiceKit
import Telemetry

/// The settings of all commands.
enum CommandSettings {
    /// Settings of a gateway's admin port.
    static let gatewayAdmin = AdminSettings(listen: "127.0.0.1:7410")
    /// Settings of an expert host's admin port.
    static let hostAdmin = AdminSettings(listen: "127.0.0.1:7411")
    /// Settings of either admin port, as they are shown for both.
    static let anyAdmin = AdminSettings(
        listen: "127.0.0.1:7410",
        defaultInWords: "127.0.0.1:7410, or 127.0.0.1:7411 for an expert host"
    )

    /// Settings of `switchyard gateway`.
    static let gateway =
        GatewaySettings.table.definitions + DoorSettings.table.definitions + FetchSettings.table.definitions
        + ListenerSecuritySettings.table.definitions + TokensSettings.table.definitions
        + ExpertsSecuritySettings.table.definitions + Self.gatewayAdmin.definitions
        + ServiceSettings.table.definitions

    /// Settings of `switchyard expert-host`.
    static let expertHost =
        ExpertHostSettings.table.definitions + FetchSettings.table.definitions
        + ListenerSecuritySettings.table.definitions + Self.hostAdmin.definitions
        + ServiceSettings.table.definitions

    /// Settings of `generate`, `status`, `plan` and `health`.
    static let client = ClientSettings.table.definitions

    /// Settings of `switchyard pull`.
    static let pull = PullSettings.table.definitions

    /// Settings of a training run's admin port, which is off by default.
    static let trainingAdmin = AdminSettings(listen: "off")

    /// Settings of `switchyard train`.
    static let train =
        TrainSettings.table.definitions + TrainingDataSettings.table.definitions
        + [ComputeSettings().threads.definition] + Self.trainingAdmin.definitions
        + TrainClusterSettings.table.definitions + ExpertsSecuritySettings.table.definitions
        + [ListenerSecuritySettings.table.plaintext.definition, ServiceSettings.table.config.definition]

    /// Settings of `switchyard distill`.
    static let distill =
        DistillSettings.table.definitions + DistillSettings.shared + BatchSettings.table.definitions
        + LossSettings.table.definitions + OptimizerSettings.table.definitions + PaceSettings.table.definitions
        + TrainingDataSettings.table.definitions + [ComputeSettings().threads.definition]
        + Self.trainingAdmin.definitions + ClientSettings.table.security.definitions
        + [ServiceSettings.table.config.definition]

    /// Settings of `switchyard evaluate`.
    static let evaluate = TrainingDataSettings.table.definitions + [LossSettings.table.evalCapacity.definition]

    /// Every setting of any command; one environment may hold variables for all of them.
    static let all =
        Self.gateway + Self.expertHost + Self.client + Self.pull + Self.train
        + DistillSettings.table.definitions
}

/// A command with settings that `switchyard config` shows and checks.
protocol ConfiguredCommand {
    /// All layers of settings.
    ///
    /// - Returns: The settings, none of them read yet.
    /// - Throws: ``Settings/Failure`` for names and files that cannot be used.
    func settings() async throws -> Settings

    /// Reads every setting, without touching files that settings name.
    ///
    /// - Parameter settings: The settings.
    /// - Throws: What is wrong with a value.
    static func checkValues(_ settings: Settings) throws

    /// Opens the files that settings name on this machine: certificates, tokens, folders.
    ///
    /// - Parameter settings: The settings.
    /// - Throws: What cannot be used.
    static func checkFiles(_ settings: Settings) throws
}
