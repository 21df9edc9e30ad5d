// SPDX-License-Identifier: Apache-2.0

import CommandKit
import ExpertServing
import Foundation
import GatewayServing
import ServiceKit

extension LocalCluster.Layout {
    /// What is assumed of processes whose configuration file cannot be read twice: the longest drain that is allowed.
    static let longestDrain: Duration = .seconds(3600)

    /// Learns how long the processes drain, from the environment and the configuration file that they will read too.
    ///
    /// - Parameter environment: What the processes inherit.
    /// - Throws: ``Settings/Failure`` for a value that they would refuse.
    mutating func readDrains(_ environment: [String: String]) async throws {
        let file = environment[ServiceSettings.table.config.definition.variable] ?? ""
        var status = stat()
        // A pipe can be read once, by a process that waits for its settings.
        let isReadable = file.isEmpty || stat(file, &status) != 0 || status.st_mode & S_IFMT == S_IFREG
        func drain(_ setting: Setting<Duration>, _ known: [SettingDefinition]) async throws -> Duration {
            let settings = try await Settings(
                known: known,
                elsewhere: CommandSettings.all,
                flags: [:],
                environment: environment,
                file: isReadable && !file.isEmpty ? file : nil
            )
            return isReadable || settings.isSet(setting) ? try settings.value(setting) : Self.longestDrain
        }
        self.gatewayDrain = try await drain(GatewaySettings.table.drain, CommandSettings.gateway)
        self.hostDrain = try await drain(ExpertHostSettings.table.drain, CommandSettings.expertHost)
    }
}
