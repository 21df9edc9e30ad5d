// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Foundation
import Logging
import ServiceKit
import SwitchyardClient

/// Which gateway to call, how to be sure of it, and for how long to wait.
struct ClientOptions: ParsableArguments {
    /// The settings' keys.
    static let settingKeys = ["endpoint"] + SecuritySettings.clientKeys + SecuritySettings.tokenKeys

    @Option(help: "The gateway's address; also SWITCHYARD_ENDPOINT. (default: 127.0.0.1:7400)")
    var endpoint: String?

    @Option(
        help: ArgumentHelp(
            "Give up after so many seconds; 0 waits for ever. (default: 120, for health 5)",
            valueName: "seconds"
        )
    )
    var timeout: Double?

    @Flag(help: "Use TLS and trust the system's certificate authorities; also SWITCHYARD_TLS=true.")
    var tls = false

    @Option(
        help: ArgumentHelp(
            "Use TLS and trust these authorities (PEM); also SWITCHYARD_TLS_CA.",
            valueName: "file"
        )
    )
    var tlsCa: String?

    @Option(
        help: ArgumentHelp(
            "TLS: this client's certificate chain (PEM); also SWITCHYARD_TLS_CERTIFICATE.",
            valueName: "file"
        )
    )
    var tlsCertificate: String?

    @Option(
        help: ArgumentHelp("TLS: that certificate's private key (PEM); also SWITCHYARD_TLS_KEY.", valueName: "file")
    )
    var tlsKey: String?

    @Option(
        help: ArgumentHelp(
            "TLS: the DNS name of the gateway's certificate; also SWITCHYARD_TLS_SERVER_NAME. (default: the endpoint's)",
            valueName: "name"
        )
    )
    var tlsServerName: String?

    @Flag(help: "Allow plaintext to other machines, token included; also SWITCHYARD_PLAINTEXT=true.")
    var plaintext = false

    @Option(
        help: ArgumentHelp(
            "Show the gateway the token in this file; also SWITCHYARD_TOKEN_FILE, or SWITCHYARD_TOKEN with the token.",
            valueName: "file"
        )
    )
    var tokenFile: String?

    /// Runs a body with a client of the gateway.
    ///
    /// - Parameters:
    ///   - fallback: Who is called where nothing is set.
    ///   - defaultTimeout: Seconds after which a call ends, unless the flag says otherwise; 0 for never.
    ///   - body: Gets the client.
    /// - Throws: What the call throws, with a hint where no gateway answers; ``Settings/Failure`` for flags that cannot be
    ///   used.
    func withClient(
        fallback: Endpoint = .local,
        defaultTimeout: Double = 120,
        _ body: (GatewayClient) async throws -> Void
    ) async throws {
        let settings = try await self.settings()
        let endpoint = try settings.string("endpoint").map { try Endpoint(parsing: $0) } ?? fallback
        var configuration = GatewayClientConfiguration.defaults
        configuration.timeout = try Self.duration(seconds: self.timeout ?? defaultTimeout)
        configuration.token = try SecuritySettings.token(settings).map { try BearerToken($0) }
        let options = try SecuritySettings.client(settings, host: endpoint.host, endpoint: endpoint.description)
        // Plaintext that comes this far is on loopback or was asked for.
        configuration.security = options.map { .tls($0) } ?? .plaintext
        // What goes wrong is thrown; the same on the terminal as a line of a log would say it twice.
        let logger = Logger(label: "switchyard") { _ in SwiftLogNoOpLogHandler() }
        try await GatewayClient.with(endpoint: endpoint, configuration: configuration, logger: logger, body)
    }

    /// The timeout that was given; nil for 0, and where none was.
    var chosenTimeout: Duration? {
        get throws { try self.timeout.flatMap { try Self.duration(seconds: $0) } }
    }

    /// The first flag given that says which gateway to call, or how; nil where there is none.
    var connectionFlag: String? {
        let flags: [(String, Bool)] = [
            ("--endpoint", self.endpoint != nil), ("--tls", self.tls), ("--tls-ca", self.tlsCa != nil),
            ("--tls-certificate", self.tlsCertificate != nil), ("--tls-key", self.tlsKey != nil),
            ("--tls-server-name", self.tlsServerName != nil), ("--plaintext", self.plaintext),
            ("--token-file", self.tokenFile != nil),
        ]
        return flags.first(where: \.1)?.0
    }

    /// A number of seconds as a duration, or nil for 0, which is without end.
    private static func duration(seconds: Double) throws -> Duration? {
        guard (0...86_400).contains(seconds) else {
            throw Settings.Failure("timeout is \(seconds), but must be from 0 to 86400 seconds (--timeout)")
        }
        return seconds > 0 ? .milliseconds(Int64(seconds * 1000)) : nil
    }

    private func settings() async throws -> Settings {
        let flags: [String: String?] = [
            "endpoint": self.endpoint, "tls": self.tls ? "true" : nil, "tls-ca": self.tlsCa,
            "tls-certificate": self.tlsCertificate, "tls-key": self.tlsKey, "tls-server-name": self.tlsServerName,
            "plaintext": self.plaintext ? "true" : nil, "token-file": self.tokenFile,
        ]
        return try await Settings(
            known: Self.settingKeys,
            elsewhere: SettingKeys.all,
            flags: flags.compactMapValues { $0 },
            environment: ProcessInfo.processInfo.environment,
            file: nil
        )
    }
}
