// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import ExpertPooling
import Logging
import RPCTransport
import ServiceKit

/// How a process that listens is secured, as flags.
struct ListenerSecurityOptions: ParsableArguments {
    @Option(help: ArgumentHelp("TLS: this server's certificate chain (PEM, leaf first).", valueName: "file"))
    var tlsCertificate: String?

    @Option(help: ArgumentHelp("TLS: the certificate's private key (PEM, no passphrase).", valueName: "file"))
    var tlsKey: String?

    @Option(
        help: ArgumentHelp("TLS: take only clients with a certificate of these authorities (PEM).", valueName: "file")
    )
    var tlsClientCa: String?

    @Option(
        help: ArgumentHelp(
            "TLS: and of those, only clients whose certificate has one of these DNS names or URIs.",
            valueName: "name[,name]"
        )
    )
    var tlsAllowedClients: String?

    @Flag(help: "Allow plaintext on addresses other than loopback: for networks that are trusted.")
    var plaintext = false

    /// What was given, by key.
    var flags: [String: String?] {
        [
            "tls-certificate": self.tlsCertificate, "tls-key": self.tlsKey, "tls-client-ca": self.tlsClientCa,
            "tls-allowed-clients": self.tlsAllowedClients, "plaintext": self.plaintext ? "true" : nil,
        ]
    }

    /// The listener's security, its files read.
    ///
    /// - Parameters:
    ///   - settings: All settings of the command.
    ///   - address: Where it listens.
    ///   - logger: Told of certificates that are loaded again.
    /// - Returns: The security.
    /// - Throws: ``Settings/Failure`` and `TLSError` saying what cannot be used.
    static func security(_ settings: Settings, at address: ListenAddress, logger: Logger) throws -> ServerSecurity {
        guard let options = try SecuritySettings.listener(settings, at: address) else { return .plaintext }
        let tls = ServerTLS(options, logger: logger)
        try tls.load()
        return .tls(tls)
    }
}

/// How a gateway's connections to its expert hosts are secured, as flags.
struct ExpertsSecurityOptions: ParsableArguments {
    @Option(
        name: .customLong("experts-tls-ca"),
        help: ArgumentHelp("TLS to the expert hosts: the authorities of their certificates (PEM).", valueName: "file")
    )
    var authority: String?

    @Option(
        name: .customLong("experts-tls-certificate"),
        help: ArgumentHelp("TLS to the expert hosts: the gateway's own certificate chain (PEM).", valueName: "file")
    )
    var certificate: String?

    @Option(
        name: .customLong("experts-tls-key"),
        help: ArgumentHelp("TLS to the expert hosts: that certificate's private key (PEM).", valueName: "file")
    )
    var key: String?

    @Option(
        name: .customLong("experts-tls-server-name"),
        help: ArgumentHelp(
            "TLS to the expert hosts: the DNS name that all their certificates have. (default: each target's own)",
            valueName: "name"
        )
    )
    var serverName: String?

    /// What was given, by key.
    var flags: [String: String?] {
        [
            "experts-tls-ca": self.authority, "experts-tls-certificate": self.certificate, "experts-tls-key": self.key,
            "experts-tls-server-name": self.serverName,
        ]
    }

    /// What the connections to the expert hosts are secured with; no file is read.
    ///
    /// - Parameters:
    ///   - settings: All settings of the command.
    ///   - pools: The pools that are connected to.
    /// - Returns: Options of TLS, or nil for plaintext.
    /// - Throws: ``Settings/Failure`` saying what cannot be used.
    static func options(_ settings: Settings, pools: [PoolSpecification]) throws -> ClientTLSOptions? {
        let targets = pools.flatMap(\.targets)
        // What a file lists is looked at whenever it is read.
        let hosts = targets.compactMap { target in
            switch target {
            case .address(let host, _), .name(let host, _): (host: host, target: target.description)
            case .file: nil
            }
        }
        guard let options = try SecuritySettings.experts(settings, hosts: hosts) else { return nil }
        for case .name in targets where options.serverName == nil {
            // Such a target becomes addresses, which certificates seldom name.
            throw Settings.Failure(
                "a dns:/// target needs to be told which name the hosts' certificates have: set --experts-tls-server-name "
                    + "or \(Settings.variable("experts-tls-server-name"))"
            )
        }
        return options
    }

    /// The security of the connections to the expert hosts, its files read.
    ///
    /// - Parameters:
    ///   - settings: All settings of the command.
    ///   - pools: The pools that are connected to.
    ///   - logger: Told of certificates that are loaded again.
    /// - Returns: The security.
    /// - Throws: ``Settings/Failure`` and `TLSError` saying what cannot be used.
    static func security(
        _ settings: Settings,
        pools: [PoolSpecification],
        logger: Logger
    ) throws -> ClientSecurity {
        guard let options = try Self.options(settings, pools: pools) else { return .plaintext }
        let tls = ClientTLS(options, logger: logger)
        try tls.load()
        return .tls(tls)
    }
}

/// Which tokens a gateway takes, as flags.
struct TokensOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Take only calls with a token of this file: lines name:token or name:sha256:HEX.",
            valueName: "file"
        )
    )
    var tokens: String?

    @Flag(help: "Ask for a token at health checks too.")
    var tokensCoverHealth = false

    /// What was given, by key.
    var flags: [String: String?] {
        ["tokens": self.tokens, "tokens-cover-health": self.tokensCoverHealth ? "true" : nil]
    }

    /// Reads the settings; no file is opened.
    ///
    /// - Parameter settings: All settings of the command.
    /// - Returns: The file with the tokens, if there is one, and whether health checks need one too.
    /// - Throws: ``Settings/Failure`` for a setting that means nothing without another.
    @discardableResult
    static func check(_ settings: Settings) throws -> (file: String?, coversHealth: Bool) {
        let coversHealth = try settings.bool("tokens-cover-health")
        let file = try settings.string("tokens")
        guard file != nil || !coversHealth else {
            throw Settings.Failure(
                "tokens-cover-health is set without tokens: set --tokens or \(Settings.variable("tokens")) as well"
            )
        }
        return (file, coversHealth)
    }

    /// The gate, its file read; nil where every call is let in.
    ///
    /// - Parameters:
    ///   - settings: All settings of the command.
    ///   - logger: Told when the file is read again.
    /// - Returns: The gate.
    /// - Throws: ``Settings/Failure`` saying what cannot be used.
    static func gate(_ settings: Settings, logger: Logger) throws -> TokenGate? {
        let (file, coversHealth) = try Self.check(settings)
        guard let file else { return nil }
        let gate = TokenGate(file: file, coversHealth: coversHealth, logger: logger)
        try gate.load()
        return gate
    }
}
