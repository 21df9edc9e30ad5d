// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import CommandKit
import Foundation
import ServiceKit
import WeightFetching

/// `switchyard config`: a service's settings, and where each value comes from.
struct ConfigCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "config",
        abstract:
            "Show a service's settings and where each value comes from, check them, or list all settings.",
        discussion: """
            Takes the flags of the service, reads the same environment and file, and starts nothing. Secrets are not shown:
            tokens, and the user, password and query of addresses.

            With --check it also opens the certificates, tokens and folders that settings name on this machine, and prints
            only errors. The exit status is 0 if the service could start with these settings.

            EXAMPLES
              switchyard config list gateway
              switchyard config gateway --config gateway.json
              SWITCHYARD_SHARD=shards/pool-0 switchyard config expert-host --json
              switchyard config gateway --model shards/gateway --pool pool-0=127.0.0.1:7401 --check
            """,
        subcommands: [ConfigGatewayCommand.self, ConfigExpertHostCommand.self, ConfigListCommand.self]
    )
}

/// `switchyard config gateway`.
struct ConfigGatewayCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "gateway",
        abstract: "Show or check the settings of a gateway.",
        discussion: """
            EXAMPLE
              switchyard config gateway --model shards/gateway --pool pool-0=127.0.0.1:7401
            """
    )

    @OptionGroup var output: ConfigOutput

    @OptionGroup(title: "The gateway's") var command: GatewayCommand

    func run() async throws {
        try await self.output.show(self.command)
    }
}

/// `switchyard config expert-host`.
struct ConfigExpertHostCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "expert-host",
        abstract: "Show or check the settings of an expert host.",
        discussion: """
            EXAMPLE
              switchyard config expert-host --shard shards/pool-0
            """
    )

    @OptionGroup var output: ConfigOutput

    @OptionGroup(title: "The host's") var command: ExpertHostCommand

    func run() async throws {
        try await self.output.show(self.command)
    }
}

/// What `switchyard config` does with settings.
struct ConfigOutput: ParsableArguments {
    @Flag(help: "Print JSON.")
    var json = false

    @Flag(help: "Print only errors, including those of the files that settings name.")
    var check = false

    /// Shows or checks the settings of a command.
    ///
    /// - Parameter command: The command with its flags.
    /// - Throws: What is wrong with the settings, after showing them.
    func show<Command: ConfiguredCommand>(_ command: Command) async throws {
        let settings = try await command.settings()
        guard !self.check else {
            try Command.checkValues(settings)
            try Command.checkFiles(settings)
            return
        }
        let result = Result { try Command.checkValues(settings) }
        let report = ConfigReport(settings.inForce)
        Terminal.print(self.json ? try report.json() : report.table())
        try result.get()
    }
}

/// Settings for people or programs.
struct ConfigReport: Encodable {
    /// One setting.
    struct Entry: Encodable {
        var key: String
        /// The value in parts; empty if there is none.
        var values: [String]
        var source: String
        var variable: String
        /// The default as people would write it; nil if there is none.
        var `default`: String?
        /// What a value may be.
        var allowed: String
    }

    /// The settings by key.
    var settings: [Entry]

    /// Prepares a report.
    ///
    /// - Parameter settings: What is in force.
    init(_ settings: [SettingInForce]) {
        self.settings = settings.map { setting in
            Entry(
                key: setting.key,
                values: setting.values.map { Self.masked($0) },
                source: Self.text(setting.source),
                variable: setting.definition.variable,
                default: setting.definition.shownDefault,
                allowed: setting.definition.allowed
            )
        }
    }

    /// Removes secrets from addresses.
    private static func masked(_ value: String) -> String {
        ["http://", "https://"].contains { value.lowercased().hasPrefix($0) } ? RemoteAddress.masked(value) : value
    }

    private static func text(_ source: Settings.Source) -> String {
        switch source {
        case .flag: "flag"
        case .environment: "environment"
        case .file(let path): "file:\(path)"
        case .default: "default"
        }
    }

    /// The settings as a table.
    ///
    /// - Returns: Lines without the last line's end.
    func table() -> String {
        var table = TextTable([("setting", .left), ("value", .left), ("from", .left), ("allowed", .left)])
        for entry in self.settings {
            let from = entry.source == "environment" ? "environment \(entry.variable)" : entry.source
            let value = entry.values.isEmpty ? "-" : entry.values.joined(separator: "; ")
            table.add([entry.key, value, from, entry.allowed])
        }
        return table.text
    }

    /// The settings as JSON.
    ///
    /// - Returns: One object.
    /// - Throws: Never in practice.
    func json() throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        return String(decoding: try encoder.encode(self), as: UTF8.self)
    }
}
