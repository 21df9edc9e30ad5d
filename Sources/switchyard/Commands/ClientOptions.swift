// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Foundation
import Logging
import ServiceKit
import SwitchyardClient

/// Settings of the commands that call a gateway.
struct ClientSettings: SettingTable {
    static let table = ClientSettings()

    let endpoint = Setting.parsed(
        "endpoint",
        default: nil as Endpoint?,
        written: nil,
        defaultInWords: "127.0.0.1:7400",
        allowed: "HOST:PORT or unix:/PATH",
        range: "HOST:PORT or unix:/PATH",
        placeholder: "host:port",
        "The gateway's address."
    ) { try Endpoint(parsing: $0) }
    let security = ClientSecuritySettings.table
}

/// Which gateway to call, how to verify it, and how long to wait.
struct ClientOptions: ParsableArguments {
    @Option(ClientSettings.table.endpoint, namesVariable: true) var endpoint: String?

    @Option(
        help: ArgumentHelp(
            "Give up after this many seconds; 0 waits forever. (0 to 86400; default: 120, health: 5)",
            valueName: "seconds"
        )
    )
    var timeout: Double?

    @Flag(ClientSettings.table.security.tls, namesVariable: true) var tls = false

    @Option(ClientSettings.table.security.tlsCA, namesVariable: true) var tlsCa: String?

    @Option(ClientSettings.table.security.tlsCertificate, namesVariable: true) var tlsCertificate: String?

    @Option(ClientSettings.table.security.tlsKey, namesVariable: true) var tlsKey: String?

    @Option(ClientSettings.table.security.tlsServerName, namesVariable: true) var tlsServerName: String?

    @Flag(ClientSettings.table.security.plaintext, namesVariable: true) var plaintext = false

    @Option(ClientSettings.table.security.tokenFile, namesVariable: true) var tokenFile: String?

    /// Runs a body with a client of the gateway.
    ///
    /// - Parameters:
    ///   - fallback: The endpoint if none is set.
    ///   - defaultTimeout: Timeout of a call in seconds, unless the flag sets another; 0 for none.
    ///   - body: Gets the client.
    /// - Throws: What the call throws, with a hint if no gateway answers; ``Settings/Failure`` for a wrong setting.
    func withClient(
        fallback: Endpoint = .local,
        defaultTimeout: Double = 120,
        _ body: (GatewayClient) async throws -> Void
    ) async throws {
        let settings = try await self.settings()
        let endpoint = try settings.value(ClientSettings.table.endpoint) ?? fallback
        var configuration = GatewayClientConfiguration.defaults
        configuration.timeout = try Self.duration(seconds: self.timeout ?? defaultTimeout)
        configuration.token = try SecuritySettings.token(settings).map { try BearerToken($0) }
        let options = try SecuritySettings.client(settings, host: endpoint.host, endpoint: endpoint.description)
        // Without TLS the connection is to loopback, or a setting allows plaintext.
        configuration.security = options.map { .tls($0) } ?? .plaintext
        // Errors are thrown; logging them as well would show them twice.
        let logger = Logger(label: "switchyard") { _ in SwiftLogNoOpLogHandler() }
        try await GatewayClient.with(endpoint: endpoint, configuration: configuration, logger: logger, body)
    }

    /// The given timeout; nil for 0 and if none was given.
    var chosenTimeout: Duration? {
        get throws { try self.timeout.flatMap { try Self.duration(seconds: $0) } }
    }

    /// The first given flag that says which gateway to call, or how; nil if there is none.
    var connectionFlag: String? {
        let flags: [(String, Bool)] = [
            ("--endpoint", self.endpoint != nil), ("--tls", self.tls), ("--tls-ca", self.tlsCa != nil),
            ("--tls-certificate", self.tlsCertificate != nil), ("--tls-key", self.tlsKey != nil),
            ("--tls-server-name", self.tlsServerName != nil), ("--plaintext", self.plaintext),
            ("--token-file", self.tokenFile != nil),
        ]
        return flags.first(where: \.1)?.0
    }

    /// A number of seconds as a duration; nil for 0, which waits forever.
    private static func duration(seconds: Double) throws -> Duration? {
        guard (0...86_400).contains(seconds) else {
            throw Settings.Failure("the flag --timeout is \(seconds); it must be a number of seconds from 0 to 86400")
        }
        return seconds > 0 ? .milliseconds(Int64(seconds * 1000)) : nil
    }

    private func settings() async throws -> Settings {
        let known = ClientSettings.table.definitions
        let keys = Set(known.map(\.key))
        return try await Settings(
            known: known,
            elsewhere: CommandSettings.all,
            flags: SettingFlags.given(by: self).filter { keys.contains($0.key) },
            environment: ProcessInfo.processInfo.environment,
            file: nil
        )
    }
}
