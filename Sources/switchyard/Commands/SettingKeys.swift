// SPDX-License-Identifier: Apache-2.0

import ServiceKit

/// The settings of all commands.
enum SettingKeys {
    /// Every key that some command reads; in one environment there may be variables for all of them.
    static let all: Set<String> = Set(ServiceOptions.keys)
        .union(GatewayCommand.settingKeys)
        .union(ExpertHostCommand.settingKeys)
        .union(ClientOptions.settingKeys)
        .union(PullCommand.settingKeys)
}

/// A command with settings that `switchyard config` shows and checks.
protocol ConfiguredCommand {
    /// All layers of settings.
    ///
    /// - Returns: The settings, none of them read yet.
    /// - Throws: ``Settings/Failure`` for names and files that cannot be used.
    func settings() async throws -> Settings

    /// Reads every setting, and touches no file that a setting names.
    ///
    /// - Parameter settings: The settings.
    /// - Throws: What is wrong with a value.
    static func checkValues(_ settings: Settings) throws

    /// Opens what settings name on this machine: certificates, tokens, folders.
    ///
    /// - Parameter settings: The settings.
    /// - Throws: What cannot be used.
    static func checkFiles(_ settings: Settings) throws
}
