// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Foundation
import Logging
import ServiceKit

/// Flags that every long-running command has, and the settings they start from.
struct ServiceOptions: ParsableArguments {
    /// Keys of the settings that these flags set.
    static let keys = ["config", "log-level", "log-format", "no-reflection"]

    @Option(help: ArgumentHelp("A JSON file with settings; flags and environment go before it.", valueName: "file"))
    var config: String?

    @Option(help: "Least level that is logged: trace, debug, info, notice, warning, error, critical. (default: info)")
    var logLevel: String?

    @Option(help: "How log lines are written: text or json. (default: text)")
    var logFormat: String?

    @Flag(help: "Do not tell clients the services and messages by gRPC server reflection.")
    var noReflection = false

    @Option(help: .hidden)
    var addressFile: String?

    @Flag(help: .hidden)
    var exitWithStandardInput = false

    /// Reads all layers of settings.
    ///
    /// - Parameters:
    ///   - keys: Every key of the command.
    ///   - flags: What was given as flags; nil values were not given.
    /// - Returns: The settings.
    /// - Throws: ``Settings/Failure`` naming the setting that cannot be used.
    func settings(keys: [String], flags: [String: String?]) async throws -> Settings {
        var given = flags.compactMapValues { $0 }
        given["config"] = self.config
        given["log-level"] = self.logLevel
        given["log-format"] = self.logFormat
        given["no-reflection"] = self.noReflection ? "true" : nil
        let environment = ProcessInfo.processInfo.environment
        let file = environment[Settings.variable("config")].flatMap { $0.isEmpty ? nil : $0 }
        return try await Settings(
            known: Self.keys + keys,
            elsewhere: SettingKeys.all,
            flags: given,
            environment: environment,
            file: self.config ?? file
        )
    }

    /// Reads how the process logs.
    ///
    /// - Parameter settings: All settings of the command.
    /// - Returns: How lines are written, and from which level on.
    /// - Throws: ``Settings/Failure`` for a level or a form that there is not.
    static func logging(_ settings: Settings) throws -> (format: LineLogHandler.Format, level: Logger.Level) {
        let levelText = try settings.string("log-level", default: "info")
        guard let level = Logger.Level(rawValue: levelText) else {
            let allowed = Logger.Level.allCases.map(\.rawValue).joined(separator: ", ")
            throw Settings.Failure("log-level is \"\(levelText)\", but must be one of \(allowed)")
        }
        let formatText = try settings.string("log-format", default: "text")
        guard let format = LineLogHandler.Format(rawValue: formatText) else {
            throw Settings.Failure("log-format is \"\(formatText)\", but must be text or json")
        }
        return (format, level)
    }

    /// Starts logging as the settings say.
    ///
    /// - Parameter settings: All settings of the command.
    /// - Throws: ``Settings/Failure`` for a level or a form that there is not.
    static func startLogging(_ settings: Settings) throws {
        let (format, level) = try Self.logging(settings)
        LineLogHandler.bootstrap(format: format, level: level)
    }

    /// Tells whoever started this process where it listens: by a file that appears whole.
    ///
    /// - Parameter address: `host:port`.
    /// - Throws: Where the file cannot be written.
    func announce(_ address: String) throws {
        guard let path = self.addressFile else { return }
        try Data((address + "\n").utf8).write(to: URL(fileURLWithPath: path), options: .atomic)
    }
}
