// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import CommandKit
import Foundation
import Logging
import RPCTransport
import ServiceKit

/// Flags that every long-running command has, and the settings they start from.
struct ServiceOptions: ParsableArguments {
    @Option(ServiceSettings.table.config) var config: String?

    @Option(ServiceSettings.table.logLevel) var logLevel: String?

    @Option(ServiceSettings.table.logFormat) var logFormat: String?

    @Flag(ServiceSettings.table.noReflection) var noReflection = false

    @Option(help: .hidden)
    var addressFile: String?

    @Flag(help: .hidden)
    var exitWithStandardInput = false

    /// Reads all layers of settings.
    ///
    /// - Parameters:
    ///   - known: Every setting of the command.
    ///   - command: The command with its flags.
    /// - Returns: The settings.
    /// - Throws: ``Settings/Failure`` naming the setting that cannot be used.
    func settings(_ known: [SettingDefinition], of command: some ParsableArguments) async throws -> Settings {
        let keys = Set(known.map(\.key))
        let environment = ProcessInfo.processInfo.environment
        let file = environment[ServiceSettings.table.config.definition.variable].flatMap { $0.isEmpty ? nil : $0 }
        return try await Settings(
            known: known,
            elsewhere: CommandSettings.all,
            flags: SettingFlags.given(by: command).filter { keys.contains($0.key) },
            environment: environment,
            file: self.config ?? file
        )
    }

    /// Reads how the process logs.
    ///
    /// - Parameter settings: All settings of the command.
    /// - Returns: The format of lines, and the lowest level.
    /// - Throws: ``Settings/Failure`` for an unknown level or form.
    @discardableResult
    static func logging(_ settings: Settings) throws -> (format: LineLogHandler.Format, level: Logger.Level) {
        (
            try settings.value(ServiceSettings.table.logFormat),
            try settings.value(ServiceSettings.table.logLevel)
        )
    }

    /// Starts logging as the settings say, and raises the limit of open files as far as the process may.
    ///
    /// - Parameter settings: All settings of the command.
    /// - Throws: ``Settings/Failure`` for an unknown level or form.
    static func startLogging(_ settings: Settings) throws {
        let (format, level) = try Self.logging(settings)
        LineLogHandler.bootstrap(format: format, level: level)
        // Each connection takes a descriptor, and the usual limit is far below what a machine can do.
        guard let limit = DescriptorLimit.raise() else { return }
        Logger(label: "switchyard")
            .info("the limit of open files", metadata: ["descriptors": "\(limit.now)", "before": "\(limit.before)"])
    }

    /// The status of a service whose settings cannot be used, `EX_CONFIG` of sysexits.h: starting it again changes nothing.
    static let unusableSettings = ExitCode(78)

    /// Reads settings for a service; where they cannot be used, it says why and ends with a status of its own.
    ///
    /// - Parameter body: Reads them.
    /// - Returns: What the body returns.
    /// - Throws: ``unusableSettings`` in place of ``Settings/Failure``, and what else the body throws.
    static func reading<Result>(_ body: () async throws -> Result) async throws -> Result {
        do {
            return try await body()
        } catch let failure as Settings.Failure {
            Terminal.printError("Error: \(failure)")
            throw Self.unusableSettings
        }
    }

    /// Tells the parent process where this one listens, through a file that appears whole.
    ///
    /// - Parameter address: `host:port`.
    /// - Throws: If the file cannot be written.
    func announce(_ address: String) throws {
        guard let path = self.addressFile else { return }
        try Data((address + "\n").utf8).write(to: URL(fileURLWithPath: path), options: .atomic)
    }
}
